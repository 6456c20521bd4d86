"""Lists of videos as CSV tables, read by the names in their header."""

import csv
import re
from collections.abc import Iterator
from typing import Any

from vidstill.data.manifest.parsed import ListEntry, ParsedList
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.utils.text import shorten
from vidstill.utils.types import InputError

_INTEGER_PATTERN = re.compile(r"-?\d+")
_LABEL_COLUMNS = ("labels", "classes", "label", "class")  # the first of these columns states a clip's labels
_NAME_COLUMNS = {"labels": "classes", "label": "class"}  # the column of names beside a column of numbers


def read_csv_table(path: PathOrUrl, header: list[str], lines: Iterator[tuple[int, str]]) -> ParsedList:
    """Read a table of `path`, `label` (a number or a name), `class` (a name), `frames`, `split`; ignore other columns.

    In a column `labels` or `classes`, a clip may have several, separated by semicolons: `fall;run`. In `label` and
    `class` a semicolon is part of the name; a name that has one can be among several in JSON lines.

    Args:
        header: The names of the columns.
        lines: The lines after the header, with their numbers.

    Raises:
        InputError: A line cannot be read; the message has its number.
    """
    label_column = next((name for name in _LABEL_COLUMNS if name in header), "")
    entries = _parse_rows(path, header, label_column, lines)
    parsed = ParsedList(path, f"a table of {', '.join(header)}", entries)
    if label_column in ("label", "class"):
        _reject_multi_label(parsed, label_column)
    return parsed


def _parse_rows(
    path: PathOrUrl, header: list[str], label_column: str, lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, ListEntry]]:
    index = {name: i for i, name in enumerate(header)}
    path_index, label_index, frames_index, split_index, name_index = (
        index.get(name) for name in ("path", label_column, "frames", "split", _NAME_COLUMNS.get(label_column, ""))
    )
    multi_label, are_numbers = label_column in ("labels", "classes"), None
    for number, line in lines:
        fields = split_csv_line(path, number, line, len(header))
        name, frames = fields[path_index or 0], "" if frames_index is None else fields[frames_index]
        if not name or not (frames.isdecimal() or not frames):
            raise InputError(f"line {number} of {path} reads {shorten(line)}, which lacks a path or a number of frames")
        label: Any = None
        class_name: Any = None
        if label_index is not None:
            texts = _split_labels(fields[label_index]) if multi_label else [fields[label_index]]
            are_numbers = _is_number(texts[0]) if are_numbers is None else are_numbers
            if not all(texts) or (are_numbers and not all(map(_is_number, texts))):
                text = next(text for text in texts if not text or (are_numbers and not _is_number(text)))
                hint = _format_label_hint(label_column, text)
                raise InputError(f"line {number} of {path} has the {label_column} {text!r}; {hint}")
            if are_numbers:
                label = [int(text) for text in texts] if len(texts) > 1 else int(texts[0])
                if name_index is not None and fields[name_index]:
                    names = _split_labels(fields[name_index]) if multi_label else [fields[name_index]]
                    class_name = names if len(names) > 1 else names[0]
            else:
                class_name = texts if len(texts) > 1 else texts[0]
        split = None if split_index is None else fields[split_index]
        yield number, ListEntry(name, label, class_name, split, int(frames) if frames else None)


def _split_labels(text: str) -> list[str]:
    return [part.strip() for part in text.split(";")]


def _format_label_hint(column: str, text: str) -> str:
    if ";" in text:
        return f"name the column `{column}s` or `labels`, where a clip has several"
    return "the first has a number" if text else "state one"


def _reject_multi_label(parsed: ParsedList, column: str) -> None:
    """Raise an InputError if a cell's name is made of other names or of numbers: those are several labels."""
    for name in parsed.class_to_idx:
        parts = _split_labels(name)
        if len(parts) > 1 and all(part in parsed.class_to_idx or _is_number(part) for part in parts):
            raise InputError(
                f"{parsed.path} has the {column} {shorten(name)}, which reads as {len(parts)} labels; "
                "where a clip may have several, name the column `labels`"
            )


def split_csv_line(path: PathOrUrl, line_number: int, line: str, num_columns: int) -> list[str]:
    """Return the fields of a line.

    Args:
        path, line_number: For messages.
        num_columns: How many fields the line must have.
    """
    try:
        fields = next(csv.reader([line])) if '"' in line or "\r" in line else line.split(",")
    except csv.Error as error:
        raise InputError(f"line {line_number} of {path} is no row of a table ({error})") from None
    if len(fields) != num_columns:
        raise InputError(f"line {line_number} of {path} has {len(fields)} fields and the header names {num_columns}")
    return [field.strip() for field in fields]


def _is_number(text: str) -> bool:
    return text.isdecimal() or _INTEGER_PATTERN.fullmatch(text) is not None
