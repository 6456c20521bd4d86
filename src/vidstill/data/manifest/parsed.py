"""What a file lists before anything is looked up, and the rules for labels that all forms of lists share."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from vidstill.data.manifest.table import Rows
from vidstill.data.storage.fetch import Place
from vidstill.utils.types import InputError

MOST_CLASSES = 100_000
"""A larger number is a time stamp or an identifier, not a label."""

MOST_FRAMES = 2**31 - 1


@dataclass
class VideoList:
    """The rows of a list.

    Args:
        form: in words, how it is written.
        rows: where labels are words, a row's label is the word's place in `words`.
        lines: each row's line in the file, from 1.
        words: the labels that are words, in the order in which they are met.
        names: the name of a numbered class, where the list states both.
        splits: each row's split, where the list states any.
    """

    path: Place
    form: str
    rows: Rows
    lines: array = field(default_factory=lambda: array("q"))
    words: dict[str, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    splits: list[str] = field(default_factory=list)

    def number(self, line: int, label: int) -> int:
        """A label that is a number."""
        if not 0 <= label < MOST_CLASSES:
            raise InputError(
                f"line {line} of {self.path} has the label {label}; labels are counted from 0, one for each class"
            )
        return label

    def once(self, line: int, labels: Sequence[int]) -> Sequence[int]:
        """A clip's labels, none of them twice."""
        if len(set(labels)) < len(labels):
            raise InputError(f"line {line} of {self.path} states one label twice; state each once")
        return labels

    def word(self, label: str) -> int:
        """A label that is a name."""
        return self.words.setdefault(label, len(self.words))

    def call(self, line: int, label: int, name: str) -> None:
        """Says that a numbered class has a name."""
        known = self.names.setdefault(label, name)
        if name != known:
            raise InputError(f"line {line} of {self.path} calls class {label} {name!r}, before {known!r}")

    def frames(self, line: int, text: str) -> int | None:
        """A stated number of frames; none where nothing is stated."""
        if text and not (text.isdecimal() and int(text) <= MOST_FRAMES):
            raise InputError(f"line {line} of {self.path} states {short(text)} frames; state how many there are")
        return int(text) if text else None


def short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
