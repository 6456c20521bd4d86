"""Reads a list of videos in JSON lines: the form that scans and packs write, and that states most."""

import json
from collections.abc import Iterator, Sequence
from sys import intern
from typing import Any, NoReturn

from vidstill.data.manifest.parsed import MAX_CLASSES, MAX_FRAMES, ParsedList, shorten
from vidstill.data.manifest.table import VideoRow, VideoTable
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.data.storage.filesystem import parent_path
from vidstill.utils.types import InputError

_FIELDS: dict[str, tuple[tuple[type, ...], float, str]] = {  # what is known, up to what, and how it is said
    "path": ((str,), 0, "a path"),
    "label": ((int,), MAX_CLASSES - 1, "a number counted from 0, or a list of them (names belong in `class`)"),
    "class": ((str,), 0, "a name, or a list of names"),
    "split": ((str,), 0, "a name"),
    "frames": ((int,), MAX_FRAMES, "how many there are"),
    "rate": ((int, float), 1e9, "frames per second"),
    "bytes": ((int,), 2**62, "how many there are"),
    "wrong": ((str,), 0, "what is wrong"),
    "shard": ((str,), 0, "a path"),
    "offset": ((int,), 2**62, "a number of bytes"),
}


def is_json_lines(path: PathOrUrl, header: str) -> bool:
    """Whether a list is written so, by its name or by its first line.

    Raises:
        InputError: it is JSON, but not one object a line.
    """
    suffix = str(path).rpartition(".")[2].lower()
    if suffix == "json" and (header.startswith("[") or header == "{"):
        raise InputError(
            f"{path} is one piece of JSON; give JSON lines, an object for each video on a line of its own, "
            "or, of an official data set, its folder"
        )
    return suffix == "jsonl" or (header.startswith("{") and header.endswith("}") and '"path"' in header)


def read_json_lines(path: PathOrUrl, first_line: tuple[int, str], lines: Iterator[tuple[int, str]]) -> ParsedList:
    """One object a line; only `path` has to be there, and what is not in `_FIELDS` is passed by.

    A clip with several labels has lists of them: `"label": [0, 3]`, `"class": ["fall", "run"]`, or both.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    found = ParsedList(path, "JSON lines", VideoTable(parent_path(path)))
    checked: set[tuple[type, ...]] = set()  # types that a line's values may have: nearly all lines have the same
    labelled: str | None = None
    add, note, belong = found.rows.append, found.line_numbers.append, found.splits.append
    number, line = first_line
    while number:
        values = _parse_line(path, number, line)
        name, label, called, split, frames, rate, size, wrong, shard, offset = values
        more: list[int] = []
        if type(label) is list or type(called) is list:
            label, called, more = _parse_multi_label(found, number, values)
            values = (name, label, called, *values[3:])
        kinds = tuple(map(type, values))
        numbers = label or 0, frames or 0, rate or 0, size or 0, offset or 0
        if kinds not in checked or min(numbers) < 0 or max(numbers) > MAX_FRAMES or numbers[0] >= MAX_CLASSES:
            _check_values(path, number, values)
            checked.add(kinds)
        has = "a number for a label" if label is not None else "no label" if called is None else "a class"
        labelled = labelled or has
        if has != labelled:
            raise InputError(f"line {number} of {path} has {has}; the first has {labelled}")
        if label is None and called is not None:
            label = found.add_class(called)
        elif called is not None and found.idx_to_class.get(label) != called:
            found.name_class(number, label, called)
        try:
            piece = None if shard is None else (shard, offset, size)
            add(name, label, frames, rate and float(rate), piece, wrong or "", size, more)
        except UnicodeEncodeError:
            raise InputError(f"line {number} of {path} has a path that no file can have: {shorten(line)}") from None
        note(number)
        belong(intern(split or ""))
        number, line = next(lines, (0, ""))
    return found


def labels_to_dict(row: VideoRow, classes: Sequence[str]) -> dict[str, Any]:
    """What a line states of a row's labels: a number and a name, or lists of them, or nothing."""
    if len(row.labels) > 1:
        return {"label": list(row.labels), "class": [classes[label] for label in row.labels]}
    return {} if row.label is None else {"label": row.label, "class": classes[row.label]}


def _parse_line(path: PathOrUrl, number: int, line: str) -> tuple[Any, ...]:
    """What a line states for each of the fields; None where it states nothing."""
    try:
        entry, end = _DECODER.raw_decode(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"line {number} of {path} is no JSON ({error}): {shorten(line)}") from None
    if type(entry) is not dict or not entry.get("path") or end < len(line) or "\\u0000" in line:
        raise InputError(f"line {number} of {path} reads {shorten(line)}, which is no object with a `path`")
    return tuple(map(entry.get, _FIELDS))


def _parse_multi_label(
    found: ParsedList, number: int, values: tuple[Any, ...]
) -> tuple[int | None, str | None, list[int]]:
    """The first label and the first class of a line that states lists of them, and the further labels, all checked."""
    label, called = values[1], values[2]
    labels, names = label if type(label) is list else [label], called if type(called) is list else [called]
    if label is not None and called is not None and (type(label) is not type(called) or len(labels) != len(names)):
        raise InputError(f"line {number} of {found.path} has {len(labels)} labels and {len(names)} classes; name each")
    stated = labels if label is not None else names
    if not stated:
        raise InputError(f"line {number} of {found.path} has an empty list of labels; state one or more")
    for each in labels if label is not None else ():
        _check_values(
            found.path, number, (values[0], each if type(each) is int else repr(each), *[None] * (len(_FIELDS) - 2))
        )
    for each in names if called is not None else ():
        if type(each) is not str or not each:
            raise InputError(f"line {number} of {found.path} has the class {shorten(str(each))}; state a name")
    if label is None:
        labels = [found.add_class(name) for name in names]  # in their order: the reader meets the first again
    elif called is not None:
        for one, name in zip(labels, names, strict=True):
            found.name_class(number, one, name)
    first, *more = found.check_unique_labels(number, labels)
    return (None, names[0], more) if label is None else (first, None if called is None else names[0], more)


def _check_values(path: PathOrUrl, number: int, values: tuple[Any, ...]) -> None:
    stated = {key: value for key, value in zip(_FIELDS, values, strict=True) if value is not None}
    for key, value in stated.items():
        kinds, most, said = _FIELDS[key]
        if type(value) not in kinds or (most and not 0 <= value <= most):
            raise InputError(f"line {number} of {path} has the {key} {shorten(str(value))}; state {said}")
    if "shard" in stated and not {"offset", "bytes"} <= stated.keys():
        raise InputError(f"line {number} of {path} names a shard without `offset` and `bytes` in it")


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_constant=_reject_constant)
