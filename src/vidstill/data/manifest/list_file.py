"""A data set that is stated in lists: which rows belong to a split, and how its classes are numbered and called."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vidstill.data.manifest.csv_table import read_csv_table
from vidstill.data.manifest.jsonl import is_json_lines, read_json_lines
from vidstill.data.manifest.manifest import SPLIT_ALIASES, Manifest, Split, build_manifest, match_splits, select_split
from vidstill.data.manifest.parsed import ParsedList, shorten
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import base_name, is_file, parent_path, read_lines
from vidstill.utils.types import InputError

_SPLIT_ALIASES = frozenset(name for names in SPLIT_ALIASES.values() for name in names)


@dataclass(frozen=True)
class ListFileReader:
    """A list that was named itself: whole, but for a column `split`.

    Args:
        root: where its paths start, if not in its own folder.
    """

    path: PathOrUrl
    root: PathOrUrl | None
    is_packed: bool = False

    @cached_property
    def _parsed_list(self) -> ParsedList:
        return read_list_file(self.path)

    def list_splits(self) -> tuple[Split, ...]:
        return match_splits(set(self._parsed_list.splits))

    def read_manifest(self, split: Split | None) -> Manifest:
        return _build_list_manifest(
            self._parsed_list, [self._parsed_list], split or "train", self.root, packed=self.is_packed
        )


@dataclass(frozen=True)
class SplitListReader:
    """A folder with a list for each split.

    Args:
        split_lists: by the split's name.
        root: where their paths start, if not in their own folder.
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
    """One list of a data set; the others help to number its classes, so that they are the same in every split."""
    path = table.path
    classes = _read_classes(path, tables)
    order = {name: label for label, name in enumerate(classes)}
    if stray := sorted(set(table.class_to_idx) - set(order)):
        raise InputError(
            f"{path} has the class {stray[0]!r}, which is not in {join_path(parent_path(path), 'classes.txt')}; add it there"
        )
    names = SPLIT_ALIASES[split]
    whole = not _SPLIT_ALIASES.intersection(table.splits)
    if not whole and not set(table.splits).intersection(names):
        raise InputError(f"{path} has no row of the {split} split, only {', '.join(sorted(set(table.splits)))}")
    kept = np.ones(len(table.rows), bool) if whole else np.array([each in names for each in table.splits], bool)
    numbers = np.array([order[word] for word in table.class_to_idx], np.int32) if table.class_to_idx else None
    rows = table.rows.select(kept, numbers)
    lines = np.array(table.line_numbers)[kept]
    whose, labels = rows.list_label_pairs()
    if (beyond := labels >= len(classes)).any():
        first = int(np.argmax(beyond))
        raise InputError(
            f"line {lines[whose[first]]} of {path} has the label {labels[first]}, but "
            f"{join_path(parent_path(path), 'classes.txt')} names only {len(classes)} classes (labels are counted from 0)"
        )
    rows.root = root or parent_path(path)
    kind = f"packed videos by their {base_name(path)}" if packed else f"{base_name(path)}, {table.format}"
    several = any(each.rows.multi_label for each in tables)
    kind += "" if whole else f", its {split} split"
    return build_manifest(path, rows, classes, kind, line_numbers=lines.tolist(), multi_label=several)


def _read_classes(path: PathOrUrl, tables: list[ParsedList]) -> tuple[str, ...]:
    """The classes' names: from `classes.txt` beside the list, or from the lists themselves."""
    tables = [table for table in tables if len(table.rows) and table.rows[0].label is not None]
    if not tables:
        return ()
    named = join_path(parent_path(path), "classes.txt")
    if is_file(named):
        return tuple(line for _, line in read_lines(named))
    if any(table.class_to_idx for table in tables):
        return tuple(sorted({word for table in tables for word in table.class_to_idx}))
    names = {label: name for table in tables for label, name in table.idx_to_class.items()}
    return tuple(
        names.get(i, str(i)) for i in range(1 + max(int(table.rows.list_label_pairs()[1].max()) for table in tables))
    )


_LABELS_PATTERN = re.compile(r"-?\d+(,-?\d+)*")


_LINE_FORMATS = ("path frames label", "path label", "path")  # from the narrowest


def read_list_file(path: PathOrUrl) -> ParsedList:
    """A list's rows: JSON lines, a CSV table whose header names a `path`, or lines of one of the plain forms.

    The first line decides which it is; every other line has to agree.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    lines = read_lines(path)
    number, line = next(lines, (0, ""))
    if is_json_lines(path, line):
        return read_json_lines(path, (number, line), lines)
    header = [name.strip(' "').lower() for name in line.split(",")]
    if "path" in header:
        return read_csv_table(path, header, lines)
    return _read_plain_lines(path, (number, line), lines)


def _read_plain_lines(path: PathOrUrl, first: tuple[int, str], lines: Iterator[tuple[int, str]]) -> ParsedList:
    """`path`, `path label` or `path frames label` lines; a path with spaces has to be followed by a label.

    Several labels of a clip have commas between them.
    """
    number, line = first
    form = next(form for form in _LINE_FORMATS if form == "path" or _split_line(form, line))
    found = ParsedList(path, f"a list of `{form}` lines", VideoTable(parent_path(path)))
    add, note = found.rows.append, found.line_numbers.append
    while number:
        parts = _split_line(form, line)
        if parts is None or (
            form == "path" and (_split_line("path label", line) or _split_line("path frames label", line))
        ):
            raise InputError(
                f"line {number} of {path} reads {shorten(line)}, which is not `{form}` as on its first line"
            )
        name, frames, label = parts
        if "," in label:
            labels = found.check_unique_labels(
                number, [found.check_label(number, int(one)) for one in label.split(",")]
            )
            add(name, labels[0], found.parse_num_frames(number, frames), extra_labels=labels[1:])
        else:
            add(name, found.check_label(number, int(label)) if label else None, found.parse_num_frames(number, frames))
        note(number)
        number, line = next(lines, (0, ""))
    return found


def _split_line(form: str, line: str) -> tuple[str, str, str] | None:
    """A line's path, frames and labels ("": it has none), or None where it has another form."""
    if form == "path":
        return line, "", ""
    parts = line.rsplit(None, 1)
    if len(parts) != 2 or not (parts[1].isdecimal() or _LABELS_PATTERN.fullmatch(parts[1])):
        return None
    if form == "path label":
        return parts[0], "", parts[1]
    fields = parts[0].split()
    return (fields[0], fields[1], parts[1]) if len(fields) == 2 and fields[1].isdecimal() else None
