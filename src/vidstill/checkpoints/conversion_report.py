"""What became of every tensor of a foreign file, and of every one that a model wants."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

How = Literal["taken", "renamed", "reshaped", "resized", "ignored", "missing", "unexplained"]
"""As it was; under another name; in another shape (joined, split, turned, repeated); for another grid; left out; not in
the file; or not accounted for, which is an error."""


@dataclass(frozen=True)
class Entry:
    """
    Args:
        theirs: its name in the file; "": it is not there.
        ours: its name here; "": it has no place here.
        shape: the file's; where it is not there, ours.
        why: in words, where it was not simply taken.
    """

    theirs: str
    ours: str
    shape: tuple[int, ...]
    how: How
    why: str = ""


@dataclass(frozen=True)
class Ledger:
    """
    Args:
        layout: in words, what the file was taken for, and by which signs.
        notes: what the file does not say and was assumed, or taken from what was asked for.
    """

    layout: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()

    def of(self, how: How) -> Iterator[Entry]:
        return (entry for entry in self.entries if entry.how == how)
