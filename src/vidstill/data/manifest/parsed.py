"""The entries of a list of videos, checked and gathered into a table: one reader for all forms of lists."""

from array import array
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np

from vidstill.data.manifest.table import COLUMNS, VideoTable
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.storage.filesystem import parent_path
from vidstill.utils.text import shorten
from vidstill.utils.types import InputError

MAX_CLASSES = 100_000
"""A larger number is a time stamp or an identifier, not a label."""


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
    "frames": ({int}, 2**31 - 1, "how many there are"),
    "rate": ({int, float}, 1e9, "frames per second"),
    "bytes": ({int}, 2**62, "how many there are"),
    "error": ({str}, 0, "what is wrong"),
    "shard": ({str}, 0, "a path"),
    "offset": ({int}, 2**62, "a number of bytes"),
    "width": ({int}, 2**31 - 1, ""),
    "height": ({int}, 2**31 - 1, ""),
    "codec": ({str}, 0, ""),
}


class ParsedList:
    """The rows of a list, checked one by one, before any file is looked up.

    `line_numbers` and `splits` have an entry for each row; a split is an index into `split_names`, and its name is
    empty if a line states none. `class_to_idx` has the labels that are names, and the rows hold the index;
    `idx_to_class` has the names of numbered classes, if the list states both.

    Args:
        format: The form of the list, for messages.
        entries: The entry of each line, with the line's number.

    Raises:
        InputError: A line states something that cannot be; the message has its number.
    """

    def __init__(self, path: PathOrUrl, format: str, entries: Iterable[tuple[int, ListEntry]]):
        self.path, self.format = path, format
        self.class_to_idx, self.idx_to_class = dict[str, int](), dict[int, str]()
        self._label_kind: str | None = None
        splits, shards, codecs = dict[str, int](), dict[str, int](), dict[str, int]()
        line_numbers, split_indices = array("q"), array("q")
        names, errors, extra_labels = list[str](), dict[int, str](), list[tuple[int, int]]()
        columns = {name: array(np.dtype(dtype).char) for name, (dtype, _) in COLUMNS.items()}
        appends = [(columns[name].append, missing) for name, (_, missing) in COLUMNS.items()]
        for row, (number, entry) in enumerate(entries):
            entry = self._check(number, entry)
            label, *further = self._read_labels(number, entry) or (None,)
            shard = None if entry.shard is None else shards.setdefault(entry.shard, len(shards))
            codec = None if entry.codec is None else codecs.setdefault(entry.codec, len(codecs))
            values = label, entry.frames, entry.rate, entry.bytes, shard, entry.offset, entry.width, entry.height, codec
            for (append, missing), value in zip(appends, values, strict=True):  # in the order of COLUMNS
                append(missing if value is None else value)
            line_numbers.append(number)
            split_indices.append(splits.setdefault(entry.split or "", len(splits)))
            names.append(entry.path)
            extra_labels += [(row, each) for each in further]
            if entry.error:
                errors[row] = entry.error
        self.line_numbers, self.splits, self.split_names = np.array(line_numbers), np.array(split_indices), list(splits)
        arrays = {name: np.array(column) for name, column in columns.items()}
        nonempty = {name: column for name, column in arrays.items() if (column != COLUMNS[name][1]).any()}
        root, texts = parent_path(path), {"shards": list(shards), "codecs": list(codecs)}
        try:
            self.rows = VideoTable(root, names, nonempty, **texts, errors=errors, extra_labels=extra_labels)
        except UnicodeEncodeError as error:
            number = line_numbers[names.index(error.object)]
            name = shorten(error.object)
            raise InputError(f"line {number} of {path} has a path that no file can have: {name}") from None

    def _check(self, number: int, entry: ListEntry) -> ListEntry:
        """Return the entry without facts that mean something else; the labels are checked later."""
        for key, value in zip(ListEntry._fields, entry, strict=True):
            if value is None or key in ("label", "class_") or _is_valid(key, value):
                continue
            if _CHECKS[key][2]:
                raise self._make_error(number, key, value)
            entry = entry._replace(**{key: None})
        if entry.shard is not None and None in (entry.offset, entry.bytes):
            raise InputError(f"line {number} of {self.path} names a shard without `offset` and `bytes` in it")
        return entry

    def _read_labels(self, number: int, entry: ListEntry) -> list[int]:
        """Return the labels of a line. All lines state them by number, or all by name, or none."""
        where = f"line {number} of {self.path}"
        labels, names = (each if type(each) is list else [each] for each in (entry.label, entry.class_))
        has_labels, has_names = entry.label is not None, entry.class_ is not None
        are_lists = type(entry.label) is list, type(entry.class_) is list
        if has_labels and has_names and (len(set(are_lists)) > 1 or len(labels) != len(names)):
            raise InputError(f"{where} has {len(labels)} labels and {len(names)} classes; name each")
        values = labels if has_labels else names
        if not values:
            raise InputError(f"{where} has an empty list of labels; state one or more")
        for pair in zip_longest(labels, names):
            for key, value in zip(("label", "class_"), pair, strict=True):
                if not (value is None or _is_valid(key, value)):
                    raise self._make_error(number, key, value)
        if len(set(values)) < len(values):
            raise InputError(f"{where} states one label twice; state each once")
        kind = "a number for a label" if has_labels else "a class" if has_names else "no label"
        self._label_kind = self._label_kind or kind
        if kind != self._label_kind:
            raise InputError(f"{where} has {kind}; the first has {self._label_kind}")
        if not has_labels:
            return [self.class_to_idx.setdefault(name, len(self.class_to_idx)) for name in names] if has_names else []
        for label, name in zip(labels, names, strict=True) if has_names else ():
            if name != (previous := self.idx_to_class.setdefault(label, name)):
                raise InputError(f"{where} calls class {label} {name!r}, before {previous!r}")
        return labels

    def _make_error(self, number: int, key: str, value: Any) -> InputError:
        name, description = key.rstrip("_"), _CHECKS[key][2]
        return InputError(f"line {number} of {self.path} has the {name} {shorten(str(value))}; state {description}")


def _is_valid(key: str, value: Any) -> bool:
    types, largest, _ = _CHECKS[key]
    return type(value) in types and (not largest or 0 <= value <= largest)
