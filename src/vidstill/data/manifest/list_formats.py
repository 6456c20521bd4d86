"""The forms of a list of videos: JSON lines, a CSV table with a header, and plain lines of a path and a label."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NoReturn

from vidstill.data.decode.images import IMAGE_EXTENSIONS
from vidstill.data.decode.reader import VIDEO_EXTENSIONS
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.manifest.parsed import ListEntry, ParsedList
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_directory, is_file, parent_path, read_lines
from vidstill.utils.text import pluralize, shorten
from vidstill.utils.types import InputError

_LABELS = r"(?P<label>-?\d+(,-?\d+)*)"  # several labels of a clip are separated by commas
_LINE_PATTERNS = {  # the narrowest first; a path with spaces needs a label behind it
    "path frames label": re.compile(rf"(?P<path>\S+)\s+(?P<frames>\d+)\s+{_LABELS}"),
    "path label": re.compile(rf"(?P<path>.+?)\s+{_LABELS}"),
    "path": re.compile(r"(?P<path>.+)"),
}
_LABEL_COLUMNS = ("labels", "classes", "label", "class")  # the first of these columns states a clip's labels
_NAME_COLUMNS = {"labels": "classes", "label": "class"}  # the column of names beside a column of numbers
_INTEGER_PATTERN = re.compile(r"-?\d+")


def read_list_file(path: PathOrUrl, root: PathOrUrl | None = None) -> ParsedList:
    """Read JSON lines, a CSV table whose header has a `path`, `path,label` lines, or lines of one of the plain forms.

    The first line decides which it is; every other line must agree.

    Args:
        root: The directory that paths are relative to, if not the list's own.

    Raises:
        InputError: A line cannot be read; the message has its number.
    """
    lines = read_lines(path)
    number, first_line = next(lines, (0, ""))
    all_lines = chain([(number, first_line)], lines) if number else iter(())
    if _is_json_lines(path, first_line):
        return ParsedList(path, "JSON lines", ((number, _parse_json(path, number, line)) for number, line in all_lines))
    header = parse_csv_header(first_line)
    if "path" in header:
        return _read_csv_table(path, header, lines)
    if set(header).intersection(_LABEL_COLUMNS) and not _exists(join_path(root or parent_path(path), first_line)):
        raise InputError(f"line 1 of {path} names {', '.join(header)}; call the column of the videos or images `path`")
    matches = {form: match for form, pattern in _LINE_PATTERNS.items() if (match := pattern.fullmatch(first_line))}
    form, match = next(iter(matches.items()), ("path", None))  # none in an empty list
    if match and _is_csv_line(first_line) and not _exists(join_path(root or parent_path(path), match["path"])):
        return _read_csv_table(path, _choose_columns(path, first_line), all_lines)
    return ParsedList(path, f"a list of `{form}` lines", _parse_plain_lines(path, form, all_lines))


def _is_csv_line(line: str) -> bool:
    """Return whether a line is a media file, a comma, and more."""
    name, comma, _ = line[1:].partition('",') if line[0] == '"' else line.partition(",")
    return bool(comma) and has_suffix(name.strip(), VIDEO_EXTENSIONS | IMAGE_EXTENSIONS)


def _exists(path: PathOrUrl) -> bool:
    return is_file(path) or is_directory(path)


def _choose_columns(path: PathOrUrl, first_line: str) -> list[str]:
    """Return the columns of a table without a header.

    Raises:
        InputError: Its first line is neither `path,label` nor `path,frames,label`.
    """
    match split_csv_line(path, 1, first_line):
        case [_, _]:
            return ["path", "label"]
        case [_, frames, _] if frames.isdecimal():
            return ["path", "frames", "label"]
    raise InputError(
        f"line 1 of {path} reads {shorten(first_line)}, a table without a header; add a first line that names its "
        "columns, such as `path,label,split`"
    )


def _parse_plain_lines(path: PathOrUrl, form: str, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, ListEntry]]:
    narrower = () if form != "path" else [pattern for other, pattern in _LINE_PATTERNS.items() if other != form]
    for number, line in lines:
        match = _LINE_PATTERNS[form].fullmatch(line)
        if match is None or any(pattern.fullmatch(line) for pattern in narrower):
            raise InputError(
                f"line {number} of {path} reads {shorten(line)}, which is not `{form}` as on its first line"
            )
        fields: dict[str, Any] = match.groupdict()
        if form != "path":
            fields["label"] = [int(label) for label in fields["label"].split(",")]
        if "frames" in fields:
            fields["frames"] = int(fields["frames"])
        yield number, fields


def _is_json_lines(path: PathOrUrl, first_line: str) -> bool:
    """Return whether a list is in JSON lines, by its suffix or its first line; other JSON is an InputError."""
    suffix = str(path).rpartition(".")[2].lower()
    if suffix == "json" and (first_line.startswith("[") or first_line == "{"):
        raise InputError(
            f"{path} is one piece of JSON; give JSON lines, an object for each video on a line of its own, "
            "or, of an official dataset, its directory"
        )
    return suffix == "jsonl" or (first_line.startswith("{") and first_line.endswith("}") and '"path"' in first_line)


def _parse_json(path: PathOrUrl, number: int, line: str) -> ListEntry:
    """Read an object; only `path` is required, and unknown keys are ignored.

    A clip with several labels has lists of them: `"label": [0, 3]`, `"class": ["fall", "run"]`, or both.
    """
    try:
        values, end = _DECODER.raw_decode(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"line {number} of {path} is no JSON ({error}): {shorten(line)}") from None
    if type(values) is not dict or not values.get("path") or end < len(line) or "\\u0000" in line:
        raise InputError(f"line {number} of {path} reads {shorten(line)}, which is no object with a `path`")
    return values


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)


def labels_to_dict(row: VideoRow, classes: Sequence[str]) -> dict[str, Any]:
    """Return what a JSON line states of a row's labels: a number and a name, or lists of them, or nothing."""
    if len(row.labels) > 1:
        return {"label": list(row.labels), "class": [classes[label] for label in row.labels]}
    return {} if row.label is None else {"label": row.label, "class": classes[row.label]}


def _read_csv_table(path: PathOrUrl, header: list[str], lines: Iterator[tuple[int, str]]) -> ParsedList:
    """Read a table of `path`, `label` (a number or a name), `class` (a name), `frames`, `split`, `group`, and others.

    In a column `labels` or `classes`, a clip may have several, separated by semicolons: `fall;run`. In `label` and
    `class` a semicolon is part of the name; a name that has one can be among several in JSON lines.
    """
    column = next((name for name in _LABEL_COLUMNS if name in header), "")
    parsed = ParsedList(path, f"a table of {', '.join(header)}", _parse_csv_rows(path, header, column, lines))
    for name in parsed.class_to_idx if column in ("label", "class") else ():
        parts = _split_labels(name)
        if len(parts) > 1 and all(part in parsed.class_to_idx or _INTEGER_PATTERN.fullmatch(part) for part in parts):
            raise InputError(
                f"{path} has the {column} {shorten(name)}, which reads as {len(parts)} labels; where a clip may have "
                "several, name the column `labels`"
            )
    return parsed


def _parse_csv_rows(
    path: PathOrUrl, header: list[str], column: str, lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, ListEntry]]:
    split_cell = _split_labels if column in ("labels", "classes") else lambda text: [text]
    are_numbers: bool | None = None
    for number, line in lines:
        fields = dict(zip(header, split_csv_line(path, number, line, len(header)), strict=True))
        frames = fields.get("frames", "")
        if not fields["path"] or not (frames.isdecimal() or not frames):
            raise InputError(f"line {number} of {path} reads {shorten(line)}, which lacks a path or a number of frames")
        labels: Any = None
        names: Any = None
        if column:
            names = split_cell(fields[column])
            if are_numbers is None:
                are_numbers = _INTEGER_PATTERN.fullmatch(names[0]) is not None
            for text in names:
                if not text or (are_numbers and not _INTEGER_PATTERN.fullmatch(text)):
                    hint = "the first has a number" if text else "state one"
                    if ";" in text:
                        hint = f"name the column `{column}s` or `labels`, where a clip has several"
                    raise InputError(f"line {number} of {path} has the {column} {text!r}; {hint}")
            if are_numbers:
                text = fields.get(_NAME_COLUMNS.get(column, ""), "")
                labels, names = list(map(int, names)), split_cell(text) if text else None
        values = {"path": fields["path"], "label": labels, "class": names, "frames": int(frames) if frames else None}
        yield number, {**values, **{key: fields.get(key) for key in ("split", "group")}}


def _split_labels(text: str) -> list[str]:
    return [part.strip() for part in text.split(";")]


def parse_csv_header(line: str) -> list[str]:
    """Return the names of the columns in lower case."""
    return [name.strip(' "').lower() for name in line.split(",")]


def split_csv_line(path: PathOrUrl, line_number: int, line: str, num_columns: int | None = None) -> list[str]:
    """Return the fields of a line.

    Args:
        path, line_number: For messages.
        num_columns: How many fields the line must have; None: any number.
    """
    try:
        fields = next(csv.reader([line])) if '"' in line or "\r" in line else line.split(",")
    except csv.Error as error:
        raise InputError(f"line {line_number} of {path} is no row of a table ({error})") from None
    if num_columns is not None and len(fields) != num_columns:
        count = pluralize(len(fields), "field")
        raise InputError(f"line {line_number} of {path} has {count}, its first line {num_columns}")
    return [field.strip() for field in fields]
