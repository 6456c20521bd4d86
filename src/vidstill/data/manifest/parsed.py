"""What a file lists before anything is looked up, and the rules for labels that all forms of lists share."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.utils.types import InputError

MAX_CLASSES = 100_000
"""A larger number is a time stamp or an identifier, not a label."""

MAX_FRAMES = 2**31 - 1


@dataclass
class ParsedList:
    """The rows of a list.

    Args:
        format: in words, how it is written.
        rows: where labels are words, a row's label is the word's place in `list_top_modules`.
        line_numbers: each row's line in the file, from 1.
        class_to_idx: the labels that are words, in the order in which they are met.
        idx_to_class: the name of a numbered class, where the list states both.
        splits: each row's split, where the list states any.
    """

    path: PathOrUrl
    format: str
    rows: VideoTable
    line_numbers: array = field(default_factory=lambda: array("q"))
    class_to_idx: dict[str, int] = field(default_factory=dict)
    idx_to_class: dict[int, str] = field(default_factory=dict)
    splits: list[str] = field(default_factory=list)

    def check_label(self, line_number: int, label: int) -> int:
        """A label that is a number."""
        if not 0 <= label < MAX_CLASSES:
            raise InputError(
                f"line {line_number} of {self.path} has the label {label}; labels are counted from 0, one for each class"
            )
        return label

    def check_unique_labels(self, line_number: int, labels: Sequence[int]) -> Sequence[int]:
        """A clip's labels, none of them twice."""
        if len(set(labels)) < len(labels):
            raise InputError(f"line {line_number} of {self.path} states one label twice; state each once")
        return labels

    def add_class(self, class_name: str) -> int:
        """A label that is a name."""
        return self.class_to_idx.setdefault(class_name, len(self.class_to_idx))

    def name_class(self, line_number: int, label: int, name: str) -> None:
        """Says that a numbered class has a name."""
        known = self.idx_to_class.setdefault(label, name)
        if name != known:
            raise InputError(f"line {line_number} of {self.path} calls class {label} {name!r}, before {known!r}")

    def parse_num_frames(self, line_number: int, text: str) -> int | None:
        """A stated number of frames; none where nothing is stated."""
        if text and not (text.isdecimal() and int(text) <= MAX_FRAMES):
            raise InputError(
                f"line {line_number} of {self.path} states {shorten(text)} frames; state how many there are"
            )
        return int(text) if text else None


def shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
