"""Our tensors under the authors' names and in their shapes: the way back through a rename table, for tests."""

from collections.abc import Mapping, Sequence

import torch
from einops import rearrange
from torch import Tensor

from vidstill.weights.names import Name


def in_their_words(ours: Mapping[str, Tensor], names: Sequence[Name]) -> dict[str, Tensor]:
    theirs: dict[str, Tensor] = {}
    rows: dict[str, list[tuple[Name, Tensor]]] = {}
    for name, tensor in ours.items():
        first = next(rule for rule in names if rule.ours is not None and name.startswith(rule.ours))
        last = name.removeprefix(str(first.ours))
        if first.rows is not None:
            rows.setdefault(first.theirs + last, []).append((first, tensor))
            continue
        if first.part is None:
            theirs[first.theirs + last] = _shaped(tensor, first)
            continue
        parts = [rule for rule in names if rule.ours == first.ours and rule.part is not None]
        for rule, part in zip(parts, tensor.chunk(len(parts)), strict=True):
            theirs[rule.theirs + last] = _shaped(part, rule)
    for name, found in rows.items():
        found.sort(key=lambda pair: pair[0].rows[0])
        theirs[name] = _shaped(torch.cat([tensor for _, tensor in found]), found[0][0])
    return theirs


def _shaped(tensor: Tensor, rule: Name) -> Tensor:
    return rearrange(tensor, rule.to_theirs, **rule.axes) if rule.to_theirs else tensor
