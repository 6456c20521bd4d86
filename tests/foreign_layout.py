"""Our tensors under the authors' names and in their shapes: the way back through a rename table, for tests."""

from collections.abc import Mapping, Sequence

from einops import rearrange
from torch import Tensor

from vidstill.weights.names import Name


def in_their_words(ours: Mapping[str, Tensor], names: Sequence[Name]) -> dict[str, Tensor]:
    theirs = {}
    for name, tensor in ours.items():
        rule = next(rule for rule in names if rule.ours is not None and name.startswith(rule.ours))
        shaped = rearrange(tensor, rule.to_theirs, **rule.axes) if rule.to_theirs else tensor
        theirs[rule.theirs + name.removeprefix(str(rule.ours))] = shaped
    return theirs
