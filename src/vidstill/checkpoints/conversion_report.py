"""What became of every tensor of a foreign file, and of every tensor that the model needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

ConversionStatus = Literal["unchanged", "renamed", "reshaped", "ignored", "missing", "unexplained"]
"""Reshaped: also joined, split or turned. Ignored: left out, with a reason. Missing: not in the file, with a reason.
Unexplained: an error."""


@dataclass(frozen=True)
class TensorConversion:
    """
    Args:
        foreign_name: Its name in the file; "": the file lacks it.
        native_name: Its name here; "": it is not used here.
        shape: In the file; of a missing tensor, in the model.
        reason: Why it is not simply unchanged.
    """

    foreign_name: str
    native_name: str
    shape: tuple[int, ...]
    status: ConversionStatus
    reason: str = ""


@dataclass(frozen=True)
class ConversionReport:
    """
    Args:
        layout_description: What the file was recognized as, and by which signs.
        entries: One for each tensor, or for each place it goes to.
        notes: What the file does not say and was assumed or taken from the hint.
    """

    layout_description: str
    entries: tuple[TensorConversion, ...]
    notes: tuple[str, ...] = ()

    def filter_by_status(self, status: ConversionStatus) -> Iterator[TensorConversion]:
        return (entry for entry in self.entries if entry.status == status)
