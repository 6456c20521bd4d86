"""The entries of a list of videos, checked and gathered into a table: one reader for all forms of lists."""

from array import array
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np

from vidstill.data.manifest.table import COLUMNS, VideoTable
from vidstill.data.storage.addresses import check_listed_path
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.storage.filesystem import base_name, parent_path
from vidstill.utils.text import shorten
from vidstill.utils.types import InputError

INDEX_FILE = "index.jsonl"
"""The list of packed videos, beside their shards."""

MAX_CLASSES = 100_000
"""A larger number is a time stamp or an identifier, not a label."""


ListEntry = Mapping[str, Any]
"""What a line states of a video, by the keys of a JSON line."""

_FIELDS: dict[str, tuple[set[type], float, str]] = {  # the types, the largest number, and how a message says it
    "path": ({str}, 0, "a path"),
    # one, or a list of them, as numbers or as names
    "label": ({int}, MAX_CLASSES - 1, "a number counted from 0, one for each class (names belong in `class`)"),
    "class": ({str}, 0, "a name"),
    "split": ({str}, 0, "a name"),
    "frames": ({int}, 2**31 - 1, "how many there are"),
    "rate": ({int, float}, 1e9, "frames per second"),
    "bytes": ({int}, 2**62, "how many there are"),  # of the file, or of the video in its shard
    "error": ({str}, 0, "what is wrong"),
    "shard": ({str}, 0, "a path"),
    "offset": ({int}, 2**62, "a number of bytes"),  # of a packed video in its shard
    # of another type these are ignored, as other people's lists may use the names for something else
    "group": ({str, int}, 0, ""),
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
        self._is_confined = isinstance(path, str) or base_name(path) == INDEX_FILE
        self.class_to_idx, self.idx_to_class = dict[str, int](), dict[int, str]()
        self._label_kind: str | None = None
        splits, shards, codecs, groups = (dict[str, int]() for _ in range(4))
        line_numbers, split_indices = array("q"), array("q")
        names, errors, extra_labels = list[str](), dict[int, str](), list[tuple[int, int]]()
        columns = {name: array(np.dtype(dtype).char) for name, (dtype, _) in COLUMNS.items()}
        appends = [(columns[name].append, missing) for name, (_, missing) in COLUMNS.items()]
        for row, (number, line) in enumerate(entries):
            entry = self._check(number, line)
            label, *further = self._read_labels(number, entry) or (None,)
            shard = None if entry["shard"] is None else shards.setdefault(entry["shard"], len(shards))
            codec = None if entry["codec"] is None else codecs.setdefault(entry["codec"], len(codecs))
            group = None if entry["group"] in (None, "") else groups.setdefault(str(entry["group"]), len(groups))
            frames, rate, size, offset = (entry[key] for key in ("frames", "rate", "bytes", "offset"))
            values = label, frames, rate, size, None, shard, offset, entry["width"], entry["height"], codec, group
            for (append, missing), value in zip(appends, values, strict=True):  # in the order of COLUMNS
                append(missing if value is None else value)
            line_numbers.append(number)
            split_indices.append(splits.setdefault(entry["split"] or "", len(splits)))
            names.append(entry["path"])
            extra_labels += [(row, each) for each in further]
            if entry["error"]:
                errors[row] = entry["error"]
        self.line_numbers, self.splits, self.split_names = np.array(line_numbers), np.array(split_indices), list(splits)
        arrays = {name: np.array(column) for name, column in columns.items()}
        nonempty = {name: column for name, column in arrays.items() if (column != COLUMNS[name][1]).any()}
        try:
            self.rows = VideoTable(
                parent_path(path),
                names,
                nonempty,
                shards=list(shards),
                codecs=list(codecs),
                groups=list(groups),
                errors=errors,
                extra_labels=extra_labels,
                is_confined=self._is_confined,
            )
        except UnicodeEncodeError as error:
            number = line_numbers[names.index(error.object)]
            name = shorten(error.object)
            raise InputError(f"line {number} of {path} has a path that no file can have: {name}") from None

    def _check(self, number: int, line: ListEntry) -> dict[str, Any]:
        """Return all fields, None where nothing is stated or it means something else; labels are checked later."""
        entry = {key: line.get(key) for key in _FIELDS}
        for key, value in entry.items():
            if not (value is None or key in ("label", "class") or _is_valid(key, value)):
                if _FIELDS[key][2]:
                    raise self._make_error(number, key, value)
                entry[key] = None
        if entry["shard"] is not None and None in (entry["offset"], entry["bytes"]):
            raise InputError(f"line {number} of {self.path} names a shard without `offset` and `bytes` in it")
        file = str(entry["path"] if entry["shard"] is None else entry["shard"])
        if self._is_confined or "://" in file:  # a list may have a million rows
            check_listed_path(file, f"line {number} of {self.path}", is_confined=self._is_confined)
        return entry

    def _read_labels(self, number: int, entry: ListEntry) -> list[int]:
        """Return the labels of a line. All lines state them by number, or all by name, or none."""
        where, pair = f"line {number} of {self.path}", (entry["label"], entry["class"])
        labels, names = (each if type(each) is list else [each] for each in pair)
        has_labels, has_names = (each is not None for each in pair)
        if (
            has_labels
            and has_names
            and ((type(pair[0]) is list) != (type(pair[1]) is list) or len(labels) != len(names))
        ):
            raise InputError(f"{where} has {len(labels)} labels and {len(names)} classes; name each")
        values = labels if has_labels else names
        if not values:
            raise InputError(f"{where} has an empty list of labels; state one or more")
        for pair in zip_longest(labels, names):
            for key, value in zip(("label", "class"), pair, strict=True):
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
        text = shorten(str(value))
        return InputError(f"line {number} of {self.path} has the {key} {text}; state {_FIELDS[key][2]}")


def _is_valid(key: str, value: Any) -> bool:
    types, largest, _ = _FIELDS[key]
    return type(value) in types and (not largest or 0 <= value <= largest)
