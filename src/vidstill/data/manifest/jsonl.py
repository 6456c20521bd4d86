"""Lists of videos in JSON lines: the form that scans and packs write, and that states most."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from vidstill.data.manifest.parsed import ListEntry, ParsedList
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.utils.text import shorten
from vidstill.utils.types import InputError

_KEYS = tuple(name.rstrip("_") for name in ListEntry._fields)


def is_json_lines(path: PathOrUrl, first_line: str) -> bool:
    """Return whether a list is in JSON lines, by its suffix or its first line.

    Raises:
        InputError: It is JSON, but not one object per line.
    """
    suffix = str(path).rpartition(".")[2].lower()
    if suffix == "json" and (first_line.startswith("[") or first_line == "{"):
        raise InputError(
            f"{path} is one piece of JSON; give JSON lines, an object for each video on a line of its own, "
            "or, of an official dataset, its directory"
        )
    return suffix == "jsonl" or (first_line.startswith("{") and first_line.endswith("}") and '"path"' in first_line)


def read_json_lines(path: PathOrUrl, lines: Iterator[tuple[int, str]]) -> ParsedList:
    """Read one object per line; only `path` is required, and keys that `ListEntry` has not are ignored.

    A clip with several labels has lists of them: `"label": [0, 3]`, `"class": ["fall", "run"]`, or both.

    Raises:
        InputError: A line cannot be read; the message has its number.
    """
    return ParsedList(path, "JSON lines", ((number, _parse_line(path, number, line)) for number, line in lines))


def _parse_line(path: PathOrUrl, number: int, line: str) -> ListEntry:
    try:
        values, end = _DECODER.raw_decode(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"line {number} of {path} is no JSON ({error}): {shorten(line)}") from None
    if type(values) is not dict or not values.get("path") or end < len(line) or "\\u0000" in line:
        raise InputError(f"line {number} of {path} reads {shorten(line)}, which is no object with a `path`")
    return ListEntry._make(map(values.get, _KEYS))


def labels_to_dict(row: VideoRow, classes: Sequence[str]) -> dict[str, Any]:
    """Return what a line states of a row's labels: a number and a name, or lists of them, or nothing."""
    if len(row.labels) > 1:
        return {"label": list(row.labels), "class": [classes[label] for label in row.labels]}
    return {} if row.label is None else {"label": row.label, "class": classes[row.label]}


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)
