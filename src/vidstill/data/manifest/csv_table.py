"""Reads a CSV table of videos, by the names in its header."""

import csv
import re
from collections.abc import Iterator
from sys import intern

from vidstill.data.manifest.parsed import VideoList, short
from vidstill.data.manifest.table import Rows
from vidstill.data.storage.fetch import Place
from vidstill.data.storage.filesystem import above
from vidstill.utils.types import InputError

_NUMBER = re.compile(r"-?\d+")
_LABELS = ("labels", "classes", "label", "class")  # the first of these columns says what a clip's labels are


def read_table(path: Place, header: list[str], lines: Iterator[tuple[int, str]]) -> VideoList:
    """A table of `path`, `label` (a number or a name), `class` (a name), `frames`, `split`; others are passed by.

    In a column `labels` or `classes` in their place, a clip may have several, with semicolons between them: `fall;run`.
    In `label` and `class`, a semicolon is a letter like others; a name that has one can be among several in JSON lines.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    found = VideoList(path, f"a table of {', '.join(header)}", Rows(above(path)))
    place = {name: column for column, name in enumerate(header)}
    named = next((name for name in _LABELS if name in place), "")
    called = {"labels": "classes", "label": "class"}.get(named, "")  # names beside numbers
    numbered: bool | None = None
    for number, line in lines:
        fields = fields_of(path, number, line, len(header))
        name, frames = fields[place["path"]], fields[place["frames"]] if "frames" in place else ""
        if not name or not (frames.isdecimal() or not frames):
            raise InputError(f"line {number} of {path} reads {short(line)}, which lacks a path or a number of frames")
        if named:
            texts = _parts(named, fields[place[named]])
            numbered = _is_number(texts[0]) if numbered is None else numbered
            for text in texts:
                if not text or (numbered and not _is_number(text)):
                    raise InputError(f"line {number} of {path} has the {named} {text!r}; {_wanted(named, text)}")
            labels = [found.number(number, int(text)) if numbered else found.word(text) for text in texts]
            if numbered and called in place and fields[place[called]]:
                names = _parts(called, fields[place[called]])
                if len(names) != len(labels):
                    raise InputError(f"line {number} of {path} has {len(labels)} {named} and {len(names)} {called}")
                for label, each in zip(labels, names, strict=True):
                    found.call(number, label, each)
            label, *more = found.once(number, labels)
            found.rows.add(name, label, found.frames(number, frames), more=more)
        else:
            found.rows.add(name, None, found.frames(number, frames))
        found.lines.append(number)
        if "split" in place:
            found.splits.append(intern(fields[place["split"]]))
    if named in ("label", "class"):
        _refuse_several(found, named)
    return found


def _parts(column: str, text: str) -> list[str]:
    """The labels that a cell states: several in a column whose name says so."""
    return [part.strip() for part in text.split(";")] if column in ("labels", "classes") else [text]


def _wanted(column: str, text: str) -> str:
    if ";" in text:
        return f"name the column `{column}s` or `labels`, where a clip has several"
    return "the first has a number" if text else "state one"


def _refuse_several(found: VideoList, column: str) -> None:
    """Raises an InputError where a cell's name is made of others, or of numbers: those are several labels."""
    for word in found.words:
        parts = [part.strip() for part in word.split(";")]
        if len(parts) > 1 and all(part in found.words or _is_number(part) for part in parts):
            raise InputError(
                f"{found.path} has the {column} {short(word)}, which reads as {len(parts)} labels; "
                "where a clip may have several, name the column `labels`"
            )


def fields_of(path: Place, number: int, line: str, columns: int) -> list[str]:
    """A line's fields, as many as there are columns."""
    try:
        fields = next(csv.reader([line])) if '"' in line or "\r" in line else line.split(",")
    except csv.Error as error:
        raise InputError(f"line {number} of {path} is no row of a table ({error})") from None
    if len(fields) != columns:
        raise InputError(f"line {number} of {path} has {len(fields)} fields and the header names {columns}")
    return [field.strip() for field in fields]


def _is_number(text: str) -> bool:
    return text.isdecimal() or _NUMBER.fullmatch(text) is not None
