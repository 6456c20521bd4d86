"""A data set that is stated in lists: which rows belong to a split, and how its classes are numbered and called."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vidstill.data.manifest.csv_table import read_table
from vidstill.data.manifest.jsonl import is_json_lines, read_json_lines
from vidstill.data.manifest.manifest import SPLIT_NAMES, Listing, Split, chosen, make_listing, splits_among
from vidstill.data.manifest.parsed import VideoList, short
from vidstill.data.manifest.table import Rows
from vidstill.data.storage.fetch import Place, below
from vidstill.data.storage.filesystem import above, is_file, last_name, lines_of
from vidstill.utils.types import InputError

_SPLIT_WORDS = frozenset(name for names in SPLIT_NAMES.values() for name in names)


@dataclass(frozen=True)
class OneList:
    """A list that was named itself: whole, but for a column `split`.

    Args:
        root: where its paths start, if not in its own folder.
    """

    path: Place
    root: Place | None
    packed: bool = False

    @cached_property
    def _table(self) -> VideoList:
        return read_list(self.path)

    def splits(self) -> tuple[Split, ...]:
        return splits_among(set(self._table.splits))

    def listing(self, split: Split | None) -> Listing:
        return _listing(self._table, [self._table], split or "train", self.root, packed=self.packed)


@dataclass(frozen=True)
class ListOfEachSplit:
    """A folder with a list for each split.

    Args:
        lists: by the split's name.
        root: where their paths start, if not in their own folder.
    """

    folder: Place
    lists: dict[str, Place]
    root: Place | None

    def splits(self) -> tuple[Split, ...]:
        return splits_among(self.lists)

    def listing(self, split: Split | None) -> Listing:
        path = chosen(self.folder, self.lists, split)
        tables = {each: read_list(each) for each in self.lists.values()}
        return _listing(tables[path], list(tables.values()), split or "train", self.root)


def _listing(
    table: VideoList, tables: list[VideoList], split: Split, root: Place | None, *, packed: bool = False
) -> Listing:
    """One list of a data set; the others help to number its classes, so that they are the same in every split."""
    path = table.path
    classes = _classes(path, tables)
    order = {name: label for label, name in enumerate(classes)}
    if stray := sorted(set(table.words) - set(order)):
        raise InputError(
            f"{path} has the class {stray[0]!r}, which is not in {below(above(path), 'classes.txt')}; add it there"
        )
    names = SPLIT_NAMES[split]
    whole = not _SPLIT_WORDS.intersection(table.splits)
    if not whole and not set(table.splits).intersection(names):
        raise InputError(f"{path} has no row of the {split} split, only {', '.join(sorted(set(table.splits)))}")
    kept = np.ones(len(table.rows), bool) if whole else np.array([each in names for each in table.splits], bool)
    numbers = np.array([order[word] for word in table.words], np.int32) if table.words else None
    rows = table.rows.taken(kept, numbers)
    lines = np.array(table.lines)[kept]
    whose, labels = rows.pairs()
    if (beyond := labels >= len(classes)).any():
        first = int(np.argmax(beyond))
        raise InputError(
            f"line {lines[whose[first]]} of {path} has the label {labels[first]}, but "
            f"{below(above(path), 'classes.txt')} names only {len(classes)} classes (labels are counted from 0)"
        )
    rows.root = root or above(path)
    kind = f"packed videos by their {last_name(path)}" if packed else f"{last_name(path)}, {table.form}"
    several = any(each.rows.several for each in tables)
    kind += "" if whole else f", its {split} split"
    return make_listing(path, rows, classes, kind, lines=lines.tolist(), several=several)


def _classes(path: Place, tables: list[VideoList]) -> tuple[str, ...]:
    """The classes' names: from `classes.txt` beside the list, or from the lists themselves."""
    tables = [table for table in tables if len(table.rows) and table.rows[0].label is not None]
    if not tables:
        return ()
    named = below(above(path), "classes.txt")
    if is_file(named):
        return tuple(line for _, line in lines_of(named))
    if any(table.words for table in tables):
        return tuple(sorted({word for table in tables for word in table.words}))
    names = {label: name for table in tables for label, name in table.names.items()}
    return tuple(names.get(i, str(i)) for i in range(1 + max(int(table.rows.pairs()[1].max()) for table in tables)))


_NUMBERS = re.compile(r"-?\d+(,-?\d+)*")


_FORMS = ("path frames label", "path label", "path")  # from the narrowest


def read_list(path: Place) -> VideoList:
    """A list's rows: JSON lines, a CSV table whose header names a `path`, or lines of one of the plain forms.

    The first line decides which it is; every other line has to agree.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    lines = lines_of(path)
    number, line = next(lines, (0, ""))
    if is_json_lines(path, line):
        return read_json_lines(path, (number, line), lines)
    header = [name.strip(' "').lower() for name in line.split(",")]
    if "path" in header:
        return read_table(path, header, lines)
    return _read_plain(path, (number, line), lines)


def _read_plain(path: Place, first: tuple[int, str], lines: Iterator[tuple[int, str]]) -> VideoList:
    """`path`, `path label` or `path frames label` lines; a path with spaces has to be followed by a label.

    Several labels of a clip have commas between them.
    """
    number, line = first
    form = next(form for form in _FORMS if form == "path" or _parts(form, line))
    found = VideoList(path, f"a list of `{form}` lines", Rows(above(path)))
    add, note = found.rows.add, found.lines.append
    while number:
        parts = _parts(form, line)
        if parts is None or (form == "path" and (_parts("path label", line) or _parts("path frames label", line))):
            raise InputError(f"line {number} of {path} reads {short(line)}, which is not `{form}` as on its first line")
        name, frames, label = parts
        if "," in label:
            labels = found.once(number, [found.number(number, int(one)) for one in label.split(",")])
            add(name, labels[0], found.frames(number, frames), more=labels[1:])
        else:
            add(name, found.number(number, int(label)) if label else None, found.frames(number, frames))
        note(number)
        number, line = next(lines, (0, ""))
    return found


def _parts(form: str, line: str) -> tuple[str, str, str] | None:
    """A line's path, frames and labels ("": it has none), or None where it has another form."""
    if form == "path":
        return line, "", ""
    parts = line.rsplit(None, 1)
    if len(parts) != 2 or not (parts[1].isdecimal() or _NUMBERS.fullmatch(parts[1])):
        return None
    if form == "path label":
        return parts[0], "", parts[1]
    fields = parts[0].split()
    return (fields[0], fields[1], parts[1]) if len(fields) == 2 and fields[1].isdecimal() else None
