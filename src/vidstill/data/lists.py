"""Reads the files that list videos, whichever form they have; this module has the plain one, `path label`.

Where a clip has several labels, a plain line states them as numbers with commas, `path 0,3`; a table in a column
`labels` or `classes`, with semicolons; JSON lines as lists. So no name of a class is ever cut.
"""

import re
from collections.abc import Iterator

from vidstill.data.json_lines import is_json_lines, read_json_lines
from vidstill.data.places import above, lines_of
from vidstill.data.rows import Rows
from vidstill.data.sources import Place
from vidstill.data.tables import read_table
from vidstill.data.video_list import VideoList, short
from vidstill.types import InputError

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
