"""Reads a CSV table of videos, by the names in its header."""

import csv
import re
from collections.abc import Iterator
from sys import intern

from vidstill.data.places import above
from vidstill.data.rows import Rows
from vidstill.data.sources import Place
from vidstill.data.video_list import VideoList, short
from vidstill.types import InputError

_NUMBER = re.compile(r"-?\d+")


def read_table(path: Place, header: list[str], lines: Iterator[tuple[int, str]]) -> VideoList:
    """A table of `path`, `label` (a number or a name), `class` (a name), `frames`, `split`; others are passed by.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    found = VideoList(path, f"a table of {', '.join(header)}", Rows(above(path)))
    place = {name: column for column, name in enumerate(header)}
    named = "label" if "label" in place else "class" if "class" in place else ""
    numbered: bool | None = None
    for number, line in lines:
        fields = fields_of(path, number, line, len(header))
        name, frames = fields[place["path"]], fields[place["frames"]] if "frames" in place else ""
        if not name or not (frames.isdecimal() or not frames):
            raise InputError(f"line {number} of {path} reads {short(line)}, which lacks a path or a number of frames")
        label = None
        if named:
            text = fields[place[named]]
            numbered = _is_number(text) if numbered is None else numbered
            if not text or (numbered and not _is_number(text)):
                raise InputError(f"line {number} of {path} has the {named} {text!r}; the first has a number")
            label = found.number(number, int(text)) if numbered else found.word(text)
            if numbered and named == "label" and "class" in place and (called := fields[place["class"]]):
                found.call(number, label, called)
        found.rows.add(name, label, found.frames(number, frames))
        found.lines.append(number)
        if "split" in place:
            found.splits.append(intern(fields[place["split"]]))
    return found


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
