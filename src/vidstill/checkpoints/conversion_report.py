"""What became of every tensor of a foreign file, and of every one that a model wants."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

ConversionStatus = Literal["unchanged", "renamed", "reshaped", "resized", "ignored", "missing", "unexplained"]
"""As it was; under another name; in another shape (joined, split, turned, repeated); for another grid; left out; not in
the file; or not accounted for, which is an error."""


@dataclass(frozen=True)
class TensorConversion:
    """
    Args:
        foreign_name: its name in the file; "": it is not there.
        native_name: its name here; "": it has no place here.
        shape: the file's; where it is not there, ours.
        reason: in words, where it was not simply taken.
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
        layout_description: in words, what the file was taken for, and by which signs.
        notes: what the file does not say and was assumed, or taken from what was asked for.
    """

    layout_description: str
    entries: tuple[TensorConversion, ...]
    notes: tuple[str, ...] = ()

    def filter_by_status(self, status: ConversionStatus) -> Iterator[TensorConversion]:
        return (entry for entry in self.entries if entry.status == status)
