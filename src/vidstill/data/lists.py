"""Reads the files that list videos: `path label` lines as the Kinetics lists have, and CSV tables with a header."""

import csv
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vidstill.data.rows import Rows
from vidstill.types import InputError

_NUMBER = re.compile(r"-?\d+")
_MOST_CLASSES = 100_000  # a larger number is a time stamp or an identifier, not a label


@dataclass
class VideoList:
    """What a file lists, before anything is looked up.

    Args:
        form: in words, how it is written.
        rows: where labels are words, a row's label is the word's place in `words`.
        lines: each row's line in the file, from 1.
        words: the labels that are words, in the order in which they are met.
        names: the name of a numbered class, where the table states both.
        splits: each row's split, where the table has such a column.
    """

    path: Path
    form: str
    rows: Rows
    lines: array = field(default_factory=lambda: array("q"))
    words: dict[str, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    splits: list[str] = field(default_factory=list)


def read_list(path: Path) -> VideoList:
    """A list's rows: `path`, `path label` or `path frames label` lines, or a CSV table whose header names a `path`.

    The first line decides which it is; every other line has to agree.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    lines = _lines(path)
    number, line = next(lines, (0, ""))
    header = [name.strip(' "').lower() for name in line.split(",")]
    if "path" in header:
        return _table(path, header, lines)
    form = _form(line)
    found = VideoList(path, f"a list of `{form}` lines", Rows(path.parent))
    while number:
        fields = re.fullmatch(_FORMS[form], line)
        if fields is None or (form == "path" and _form(line) != form):
            raise InputError(
                f"line {number} of {path} reads {_short(line)}, which is not `{form}` as on its first line"
            )
        parts = fields.groupdict()
        label = _label(path, number, parts["label"]) if "label" in parts else None
        found.rows.add(parts["path"], label, int(parts["frames"]) if "frames" in parts else None)
        found.lines.append(number)
        number, line = next(lines, (0, ""))
    return found


_FORMS = {
    "path": r"(?P<path>.+)",
    "path label": r"(?P<path>.+?)\s+(?P<label>-?\d+)",
    "path frames label": r"(?P<path>\S+)\s+(?P<frames>\d+)\s+(?P<label>-?\d+)",
}


def _form(line: str) -> str:
    """The narrowest form that a line has; a name that holds spaces has to be followed by a label."""
    return next(form for form in reversed(_FORMS) if re.fullmatch(_FORMS[form], line) or form == "path")


def _table(path: Path, header: list[str], lines: Iterator[tuple[int, str]]) -> VideoList:
    """A CSV table: `path`, `label` (a number or a name), `class` (a name), `frames`, `split`; others are passed by."""
    found = VideoList(path, f"a table of {', '.join(header)}", Rows(path.parent))
    column = "label" if "label" in header else "class" if "class" in header else None
    numbered: bool | None = None
    for number, line in lines:
        try:
            fields = next(csv.reader([line]))
        except csv.Error as error:
            raise InputError(f"line {number} of {path} is no row of a table ({error})") from None
        if len(fields) != len(header):
            raise InputError(f"line {number} of {path} has {len(fields)} fields and the header names {len(header)}")
        entry = dict(zip(header, (text.strip() for text in fields), strict=True))
        label = None
        if column is not None:
            text = entry[column]
            numbered = bool(_NUMBER.fullmatch(text)) if numbered is None else numbered
            if not text or (numbered and not _NUMBER.fullmatch(text)):
                raise InputError(f"line {number} of {path} has the {column} {text!r}; the first has a number")
            label = _label(path, number, text) if numbered else found.words.setdefault(text, len(found.words))
            if numbered and entry.get("class") and column == "label":
                name = found.names.setdefault(label, entry["class"])
                if name != entry["class"]:
                    raise InputError(f"line {number} of {path} calls class {label} {entry['class']!r}, before {name!r}")
        frames = entry.get("frames", "")
        if not entry["path"] or not re.fullmatch(r"\d*", frames):
            raise InputError(f"line {number} of {path} reads {_short(line)}, which lacks a path or a number of frames")
        found.rows.add(entry["path"], label, int(frames or 0))
        found.lines.append(number)
        if "split" in entry:
            found.splits.append(entry["split"])
    return found


def _label(path: Path, number: int, text: str) -> int:
    label = int(text)
    if not 0 <= label < _MOST_CLASSES:
        raise InputError(
            f"line {number} of {path} has the label {label}; labels are counted from 0, one for each class"
        )
    return label


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that hold something, numbered from 1."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise InputError(f"line {number} of {path} is no text in UTF-8; give a list of videos") from None
            if "\0" in line:
                raise InputError(f"line {number} of {path} holds a zero byte; give a list of videos in UTF-8")
            if line:
                yield number, line


def _short(line: str) -> str:
    return repr(line if len(line) <= 80 else line[:80] + "…")
