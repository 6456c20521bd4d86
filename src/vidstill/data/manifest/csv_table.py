"""Reads a CSV table of videos, by the names in its header."""

import csv
import re
from collections.abc import Iterator
from sys import intern

from vidstill.data.manifest.parsed import ParsedList, shorten
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.storage.filesystem import parent_path
from vidstill.utils.types import InputError

_INTEGER_PATTERN = re.compile(r"-?\d+")
_LABEL_COLUMNS = ("labels", "classes", "label", "class")  # the first of these columns says what a clip's labels are


def read_csv_table(path: PathOrUrl, header: list[str], lines: Iterator[tuple[int, str]]) -> ParsedList:
    """A table of `path`, `label` (a number or a name), `class` (a name), `frames`, `split`; others are passed by.

    In a column `labels` or `classes` in their place, a clip may have several, with semicolons between them: `fall;run`.
    In `label` and `class`, a semicolon is a letter like others; a name that has one can be among several in JSON lines.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    found = ParsedList(path, f"a table of {', '.join(header)}", VideoTable(parent_path(path)))
    place = {name: column for column, name in enumerate(header)}
    named = next((name for name in _LABEL_COLUMNS if name in place), "")
    called = {"labels": "classes", "label": "class"}.get(named, "")  # names beside numbers
    numbered: bool | None = None
    for number, line in lines:
        fields = split_csv_line(path, number, line, len(header))
        name, frames = fields[place["path"]], fields[place["frames"]] if "frames" in place else ""
        if not name or not (frames.isdecimal() or not frames):
            raise InputError(f"line {number} of {path} reads {shorten(line)}, which lacks a path or a number of frames")
        if named:
            texts = _split_labels(named, fields[place[named]])
            numbered = _is_number(texts[0]) if numbered is None else numbered
            for text in texts:
                if not text or (numbered and not _is_number(text)):
                    raise InputError(
                        f"line {number} of {path} has the {named} {text!r}; {_format_label_hint(named, text)}"
                    )
            labels = [found.check_label(number, int(text)) if numbered else found.add_class(text) for text in texts]
            if numbered and called in place and fields[place[called]]:
                names = _split_labels(called, fields[place[called]])
                if len(names) != len(labels):
                    raise InputError(f"line {number} of {path} has {len(labels)} {named} and {len(names)} {called}")
                for label, each in zip(labels, names, strict=True):
                    found.name_class(number, label, each)
            label, *more = found.check_unique_labels(number, labels)
            found.rows.append(name, label, found.parse_num_frames(number, frames), extra_labels=more)
        else:
            found.rows.append(name, None, found.parse_num_frames(number, frames))
        found.line_numbers.append(number)
        if "split" in place:
            found.splits.append(intern(fields[place["split"]]))
    if named in ("label", "class"):
        _reject_multi_label(found, named)
    return found


def _split_labels(column: str, text: str) -> list[str]:
    """The labels that a cell states: several in a column whose name says so."""
    return [part.strip() for part in text.split(";")] if column in ("labels", "classes") else [text]


def _format_label_hint(column: str, text: str) -> str:
    if ";" in text:
        return f"name the column `{column}s` or `labels`, where a clip has several"
    return "the first has a number" if text else "state one"


def _reject_multi_label(found: ParsedList, column: str) -> None:
    """Raises an InputError where a cell's name is made of others, or of numbers: those are several labels."""
    for word in found.class_to_idx:
        parts = [part.strip() for part in word.split(";")]
        if len(parts) > 1 and all(part in found.class_to_idx or _is_number(part) for part in parts):
            raise InputError(
                f"{found.path} has the {column} {shorten(word)}, which reads as {len(parts)} labels; "
                "where a clip may have several, name the column `labels`"
            )


def split_csv_line(path: PathOrUrl, line_number: int, line: str, num_columns: int) -> list[str]:
    """A line's fields, as many as there are columns."""
    try:
        fields = next(csv.reader([line])) if '"' in line or "\r" in line else line.split(",")
    except csv.Error as error:
        raise InputError(f"line {line_number} of {path} is no row of a table ({error})") from None
    if len(fields) != num_columns:
        raise InputError(f"line {line_number} of {path} has {len(fields)} fields and the header names {num_columns}")
    return [field.strip() for field in fields]


def _is_number(text: str) -> bool:
    return text.isdecimal() or _INTEGER_PATTERN.fullmatch(text) is not None
