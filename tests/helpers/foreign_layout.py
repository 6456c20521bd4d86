"""Our tensors under the authors' names and in their shapes, for tests."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vidstill.checkpoints import convert as exporting
from vidstill.checkpoints.layouts.rename import Name


def in_their_words(ours: Mapping[str, Tensor], names: Sequence[Name]) -> dict[str, Tensor]:
    return exporting.in_their_words(ours, names, "the test's table lacks a name")
