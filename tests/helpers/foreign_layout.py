"""Tensors under foreign names and under ours, for tests."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vidstill.checkpoints.layouts.rename import RenameRule, rename_tensors, rename_to_foreign


def to_foreign(tensors: Mapping[str, Tensor], rules: Sequence[RenameRule]) -> dict[str, Tensor]:
    return rename_to_foreign(tensors, rules, "the test's rules do not fit")


def translate_state_dict(foreign_tensors: Mapping[str, Tensor], rules: Sequence[RenameRule]) -> dict[str, Tensor]:
    """Return foreign tensors under our names; every one must be known and complete."""
    tensors, entries = rename_tensors(foreign_tensors, rules)
    assert not [entry for entry in entries if entry.status == "unexplained"]
    assert {entry.native_name for entry in entries if entry.native_name} == tensors.keys()
    return tensors
