"""Datasets that are lists of videos: the rows of each split, and the numbers and names of the classes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from vidstill.data.manifest.csv_table import read_csv_table
from vidstill.data.manifest.jsonl import is_json_lines, read_json_lines
from vidstill.data.manifest.manifest import SPLIT_ALIASES, Manifest, Split, build_manifest, match_splits, select_split
from vidstill.data.manifest.parsed import ListEntry, ParsedList
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import base_name, is_file, parent_path, read_lines
from vidstill.utils.text import shorten
from vidstill.utils.types import InputError

_SPLIT_ALIASES = frozenset(name for names in SPLIT_ALIASES.values() for name in names)


@dataclass(frozen=True)
class ListFileReader:
    """A list that the user names: all of it, unless it states splits.

    Args:
        root: Where its paths start, if not in its own directory.
    """

    path: PathOrUrl
    root: PathOrUrl | None
    is_packed: bool = False

    @cached_property
    def _parsed_list(self) -> ParsedList:
        return read_list_file(self.path)

    def list_splits(self) -> tuple[Split, ...]:
        return match_splits(self._parsed_list.split_names)

    def read_manifest(self, split: Split | None) -> Manifest:
        return _build_list_manifest(
            self._parsed_list, [self._parsed_list], split or "train", self.root, packed=self.is_packed
        )


@dataclass(frozen=True)
class SplitListReader:
    """A directory with a list for each split.

    Args:
        split_lists: The lists, by the name of the split.
        root: Where their paths start, if not in their own directory.
    """

    folder: PathOrUrl
    split_lists: dict[str, PathOrUrl]
    root: PathOrUrl | None

    def list_splits(self) -> tuple[Split, ...]:
        return match_splits(self.split_lists)

    def read_manifest(self, split: Split | None) -> Manifest:
        path = select_split(self.folder, self.split_lists, split)
        tables = {each: read_list_file(each) for each in self.split_lists.values()}
        return _build_list_manifest(tables[path], list(tables.values()), split or "train", self.root)


def _build_list_manifest(
    table: ParsedList, tables: list[ParsedList], split: Split, root: PathOrUrl | None, *, packed: bool = False
) -> Manifest:
    """Build the manifest of one list of a dataset; all lists number its classes, so that every split has the same."""
    path = table.path
    classes, classes_file = _read_classes(path, tables), join_path(parent_path(path), "classes.txt")
    order = {name: label for label, name in enumerate(classes)}
    if unknown := sorted(set(table.class_to_idx) - set(order)):
        raise InputError(f"{path} has the class {unknown[0]!r}, which is not in {classes_file}; add it there")
    names = SPLIT_ALIASES[split]
    has_splits = not _SPLIT_ALIASES.isdisjoint(table.split_names)
    if has_splits and set(table.split_names).isdisjoint(names):
        raise InputError(f"{path} has no row of the {split} split, only {', '.join(sorted(table.split_names))}")
    is_in_split = np.array([name in names or not has_splits for name in table.split_names], bool)
    mask = is_in_split[table.splits]
    label_map = np.array([order[name] for name in table.class_to_idx], np.int32) if table.class_to_idx else None
    rows, line_numbers = table.rows.select(mask, label_map), table.line_numbers[mask]
    indices, labels = rows.list_label_pairs()
    if (too_large := labels >= len(classes)).any():
        first = int(np.argmax(too_large))
        raise InputError(
            f"line {line_numbers[indices[first]]} of {path} has the label {labels[first]}, but {classes_file} names "
            f"only {len(classes)} classes (labels are counted from 0)"
        )
    rows.root = root or parent_path(path)
    description = f"packed videos by their {base_name(path)}" if packed else f"{base_name(path)}, {table.format}"
    description += f", its {split} split" if has_splits else ""
    multi_label = any(each.rows.multi_label for each in tables)
    return build_manifest(path, rows, classes, description, line_numbers=line_numbers, multi_label=multi_label)


def _read_classes(path: PathOrUrl, tables: list[ParsedList]) -> tuple[str, ...]:
    """Return the names of the classes: from `classes.txt` beside the list, or from the lists themselves."""
    tables = [table for table in tables if len(table.rows) and table.rows[0].label is not None]
    if not tables:
        return ()
    if is_file(classes_file := join_path(parent_path(path), "classes.txt")):
        return tuple(line for _, line in read_lines(classes_file))
    if any(table.class_to_idx for table in tables):
        return tuple(sorted({name for table in tables for name in table.class_to_idx}))
    names = {label: name for table in tables for label, name in table.idx_to_class.items()}
    num_classes = 1 + max(int(table.rows.list_label_pairs()[1].max()) for table in tables)
    return tuple(names.get(i, str(i)) for i in range(num_classes))


def read_list_file(path: PathOrUrl) -> ParsedList:
    """Read JSON lines, a CSV table whose header has a `path`, or lines of one of the plain forms.

    The first line decides which it is; every other line must agree.

    Raises:
        InputError: A line cannot be read; the message has its number.
    """
    lines = read_lines(path)
    number, first_line = next(lines, (0, ""))
    all_lines = chain([(number, first_line)], lines) if number else iter(())
    if is_json_lines(path, first_line):
        return read_json_lines(path, all_lines)
    header = [name.strip(' "').lower() for name in first_line.split(",")]
    if "path" in header:
        return read_csv_table(path, header, lines)
    form = next(form for form in _LINE_FORMATS if form == "path" or _parse_plain_line(form, first_line))
    return ParsedList(path, f"a list of `{form}` lines", _parse_plain_lines(path, form, all_lines))


_LABELS_PATTERN = re.compile(r"-?\d+(,-?\d+)*")
_LINE_FORMATS = ("path frames label", "path label", "path")  # the narrowest first


def _parse_plain_lines(path: PathOrUrl, form: str, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, ListEntry]]:
    """Parse `path`, `path label` or `path frames label` lines; a path with spaces needs a label behind it.

    Several labels of a clip are separated by commas.
    """
    for number, line in lines:
        entry = _parse_plain_line(form, line)
        if entry is None or (form == "path" and any(_parse_plain_line(other, line) for other in _LINE_FORMATS[:2])):
            raise InputError(
                f"line {number} of {path} reads {shorten(line)}, which is not `{form}` as on its first line"
            )
        yield number, entry


def _parse_plain_line(form: str, line: str) -> ListEntry | None:
    """Return what a line states, or None if it has another form."""
    if form == "path":
        return ListEntry(line)
    parts = line.rsplit(None, 1)
    if len(parts) != 2:
        return None
    name, text = parts
    if text.isdecimal():
        label: Any = int(text)
    elif _LABELS_PATTERN.fullmatch(text):
        label = [int(each) for each in text.split(",")] if "," in text else int(text)
    else:
        return None
    if form == "path label":
        return ListEntry(name, label)
    fields = name.split()
    if len(fields) != 2 or not fields[1].isdecimal():
        return None
    return ListEntry(fields[0], label, frames=int(fields[1]))
