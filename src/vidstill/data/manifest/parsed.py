"""The entries of a list of videos, checked and gathered into a table: one reader for all forms of lists."""

from array import array
from collections.abc import Iterator, Sequence
from itertools import count, islice, zip_longest
from typing import Any, NamedTuple

import numpy as np

from vidstill.data.manifest.table import COLUMNS, VideoTable
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.storage.filesystem import parent_path
from vidstill.utils.text import shorten
from vidstill.utils.types import InputError

MAX_CLASSES = 100_000
"""A larger number is a time stamp or an identifier, not a label."""

MAX_FRAMES = 2**31 - 1


class ListEntry(NamedTuple):
    """What a line states of a video; None where it states nothing. JSON lines have these names as keys.

    Args:
        label, class_: One, or a list of them, as numbers counted from 0 or as names.
        rate: Mean frames per second.
        bytes: Size of the file, or of the video in its shard.
        error: Why the video does not decode.
        shard, offset: A packed video's shard, and its first byte there.
        width, height: Of the frames in pixels, upright.
        codec: As FFmpeg calls it. It and the size are ignored if they are of another type, as other people's lists may
            use the names for something else.
    """

    path: Any
    label: Any = None
    class_: Any = None
    split: Any = None
    frames: Any = None
    rate: Any = None
    bytes: Any = None
    error: Any = None
    shard: Any = None
    offset: Any = None
    width: Any = None
    height: Any = None
    codec: Any = None


_CHECKS: dict[str, tuple[set[type], float, str]] = {  # the types, the largest number, and how a message says it
    "path": ({str}, 0, "a path"),
    "label": ({int}, MAX_CLASSES - 1, "a number counted from 0, one for each class (names belong in `class`)"),
    "class_": ({str}, 0, "a name"),
    "split": ({str}, 0, "a name"),
    "frames": ({int}, MAX_FRAMES, "how many there are"),
    "rate": ({int, float}, 1e9, "frames per second"),
    "bytes": ({int}, 2**62, "how many there are"),
    "error": ({str}, 0, "what is wrong"),
    "shard": ({str}, 0, "a path"),
    "offset": ({int}, 2**62, "a number of bytes"),
    "width": ({int}, 2**31 - 1, ""),
    "height": ({int}, 2**31 - 1, ""),
    "codec": ({str}, 0, ""),
}
_COLUMNS = {  # of the table, by the entries' names
    "frames": "frames",
    "rate": "frame_rate",
    "bytes": "file_size",
    "offset": "offset",
    "width": "width",
    "height": "height",
}
_UNCHECKED = ("width", "height", "codec")
_CHUNK_ROWS = 512  # lines that are checked together, column by column


class ParsedList:
    """The rows of a list, checked and gathered chunk by chunk, before any file is looked up.

    `line_numbers` and `splits` have an entry for each row; a split is an index into `split_names`, and its name is
    empty if a line states none. `class_to_idx` has the labels that are names, and the rows hold the index;
    `idx_to_class` has the names of numbered classes, if the list states both.

    Args:
        format: The form of the list, for messages.
        entries: The entry of each line, with the line's number.

    Raises:
        InputError: A line states something that cannot be; the message has its number.
    """

    def __init__(self, path: PathOrUrl, format: str, entries: Iterator[tuple[int, ListEntry]]):
        self.path, self.format = path, format
        self.class_to_idx, self.idx_to_class = dict[str, int](), dict[int, str]()
        self._split_to_idx, self._shard_to_idx, self._codec_to_idx = (
            dict[str, int](),
            dict[str, int](),
            dict[str, int](),
        )
        self._line_numbers, self._names, self._splits = list[int](), list[str](), list[int]()
        self._extra_labels, self._errors = list[tuple[int, int]](), dict[int, str]()
        self._columns: dict[str, Any] = {}
        self._label_kind: str | None = None
        while chunk := list(islice(entries, _CHUNK_ROWS)):
            self._add_chunk([number for number, _ in chunk], [entry for _, entry in chunk])
        self.rows = self._build_table()
        self.line_numbers, self.splits = np.array(self._line_numbers, np.int64), np.array(self._splits, np.int64)
        self.split_names = list(self._split_to_idx)

    def _add_chunk(self, numbers: list[int], entries: list[ListEntry]) -> None:
        values = _transpose(entries)
        if any(list in map(type, values.get(key, ())) for key in ("label", "class_")):
            entries = [self._split_labels(*each) for each in zip(count(len(self._names)), numbers, entries)]
            values = _transpose(entries)
        values = {key: column for key, column in values.items() if key not in _UNCHECKED or _is_valid(key, column)}
        if not all(_is_valid(key, column) for key, column in values.items()) or "shard" in values:
            for number, entry in zip(numbers, entries, strict=True):
                _check_entry(self.path, number, entry)
        self._add_labels(numbers, entries, values.get("label", ()), values.get("class_", ()))
        for key, column in _COLUMNS.items():
            self._append(column, values.get(key, ()))
        for key, indices in (("shard", self._shard_to_idx), ("codec", self._codec_to_idx)):
            texts = values.get(key, ())
            self._append(key, [None if text is None else indices.setdefault(text, len(indices)) for text in texts])
        splits = values.get("split", [""] * len(entries))
        self._splits += [self._split_to_idx.setdefault(split or "", len(self._split_to_idx)) for split in splits]
        self._errors |= {i: error for i, error in enumerate(values.get("error", ()), len(self._names)) if error}
        self._line_numbers += numbers
        self._names += values["path"]

    def _append(self, column: str, values: Sequence[int | float | None]) -> None:
        """Append the rows of a chunk to a column; rows of chunks that state nothing are filled up before."""
        if values:
            dtype, missing = COLUMNS[column]
            rows = self._columns.setdefault(column, array(np.dtype(dtype).char))
            rows.extend([missing] * (len(self._names) - len(rows)))
            rows.extend(values if None not in values else [missing if value is None else value for value in values])

    def _add_labels(
        self,
        numbers: list[int],
        entries: list[ListEntry],
        labels: Sequence[int | None],
        classes: Sequence[str | None],
    ) -> None:
        """Append the labels, which all lines state by number, or all by name, or none."""
        self._label_kind = self._label_kind or _get_label_kind(entries[0])
        if self._label_kind != _get_label_kind(entries[0]) or None in (labels or classes):
            for number, entry in zip(numbers, entries, strict=True):
                if (kind := _get_label_kind(entry)) != self._label_kind:
                    raise InputError(f"line {number} of {self.path} has {kind}; the first has {self._label_kind}")
        if labels and classes and set(zip(labels, classes, strict=True)) - self.idx_to_class.items():
            for number, label, name in zip(numbers, labels, classes, strict=True):
                if name is not None and label is not None:
                    self._name_class(number, label, name)
        self._append("label", labels or [self._add_class(name) for name in classes if name is not None])

    def _add_class(self, name: str) -> int:
        return self.class_to_idx.setdefault(name, len(self.class_to_idx))

    def _name_class(self, number: int, label: int, name: str) -> None:
        previous = self.idx_to_class.setdefault(label, name)
        if name != previous:
            raise InputError(f"line {number} of {self.path} calls class {label} {name!r}, before {previous!r}")

    def _split_labels(self, row: int, number: int, entry: ListEntry) -> ListEntry:
        """Return the entry with its first label and first class only; the further labels are kept apart."""
        where = f"line {number} of {self.path}"
        if type(entry.label) is not list and type(entry.class_) is not list:
            return entry
        labels = entry.label if type(entry.label) is list else [entry.label]
        names = entry.class_ if type(entry.class_) is list else [entry.class_]
        has_both = entry.label is not None and entry.class_ is not None
        if has_both and (type(entry.label) is not type(entry.class_) or len(labels) != len(names)):
            raise InputError(f"{where} has {len(labels)} labels and {len(names)} classes; name each")
        used = labels if entry.label is not None else names
        if not used:
            raise InputError(f"{where} has an empty list of labels; state one or more")
        for label, name in zip_longest(labels, names):
            _check_entry(self.path, number, ListEntry("", label, name))
        if len(set(used)) < len(used):
            raise InputError(f"{where} states one label twice; state each once")
        if has_both:
            for label, name in zip(labels, names, strict=True):
                self._name_class(number, label, name)
        if len(used) > 1:
            further = labels[1:] if entry.label is not None else [self._add_class(name) for name in names][1:]
            self._extra_labels += [(row, label) for label in further]
        return entry._replace(label=labels[0], class_=names[0])

    def _build_table(self) -> VideoTable:
        for column in self._columns:
            rows, missing = self._columns[column], COLUMNS[column][1]
            rows.extend([missing] * (len(self._names) - len(rows)))
        try:
            return VideoTable(
                parent_path(self.path),
                self._names,
                self._columns,
                shards=list(self._shard_to_idx),
                codecs=list(self._codec_to_idx),
                errors=self._errors,
                extra_labels=self._extra_labels,
            )
        except UnicodeEncodeError as error:
            number = self._line_numbers[self._names.index(error.object)]
            name = shorten(error.object)
            raise InputError(f"line {number} of {self.path} has a path that no file can have: {name}") from None


def _transpose(entries: list[ListEntry]) -> dict[str, tuple[Any, ...]]:
    """Return the columns of which a line states something."""
    columns = zip(ListEntry._fields, zip(*entries, strict=True), strict=True)
    return {key: values for key, values in columns if values.count(None) < len(values)}


def _get_label_kind(entry: ListEntry) -> str:
    if entry.label is not None:
        return "a number for a label"
    return "no label" if entry.class_ is None else "a class"


def _is_valid(key: str, values: Sequence[Any]) -> bool:
    types, largest, _ = _CHECKS[key]
    if not set(map(type, values)) <= types | {type(None)}:
        return False
    if not largest:
        return True
    numbers = values if None not in values else [value for value in values if value is not None]
    return not numbers or (min(numbers) >= 0 and max(numbers) <= largest)


def _check_entry(path: PathOrUrl, line_number: int, entry: ListEntry) -> None:
    """Raise an InputError if a value of a line has the wrong type or range."""
    for key, (_, _, description) in _CHECKS.items():
        if key not in _UNCHECKED and not _is_valid(key, [value := getattr(entry, key)]):
            name = key.rstrip("_")
            raise InputError(f"line {line_number} of {path} has the {name} {shorten(str(value))}; state {description}")
    if entry.shard is not None and (entry.offset is None or entry.bytes is None):
        raise InputError(f"line {line_number} of {path} names a shard without `offset` and `bytes` in it")
