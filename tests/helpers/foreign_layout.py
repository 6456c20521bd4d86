"""Our tensors under the authors' names and in their shapes, for tests."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vidstill.checkpoints import convert as exporting
from vidstill.checkpoints.layouts.rename import RenameRule


def in_their_words(ours: Mapping[str, Tensor], names: Sequence[RenameRule]) -> dict[str, Tensor]:
    return exporting.rename_to_foreign(ours, names, "the test's table lacks a name")
