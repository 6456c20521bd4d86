"""Reads a list of videos in JSON lines: the form that scans and packs write, and that states most."""

import json
from collections.abc import Iterator, Sequence
from sys import intern
from typing import Any, NoReturn

from vidstill.data.manifest.parsed import MOST_CLASSES, MOST_FRAMES, VideoList, short
from vidstill.data.manifest.table import Row, Rows
from vidstill.data.storage.fetch import Place
from vidstill.data.storage.filesystem import above
from vidstill.utils.types import InputError

_FIELDS: dict[str, tuple[tuple[type, ...], float, str]] = {  # what is known, up to what, and how it is said
    "path": ((str,), 0, "a path"),
    "label": ((int,), MOST_CLASSES - 1, "a number counted from 0, or a list of them (names belong in `class`)"),
    "class": ((str,), 0, "a name, or a list of names"),
    "split": ((str,), 0, "a name"),
    "frames": ((int,), MOST_FRAMES, "how many there are"),
    "rate": ((int, float), 1e9, "frames per second"),
    "bytes": ((int,), 2**62, "how many there are"),
    "wrong": ((str,), 0, "what is wrong"),
    "shard": ((str,), 0, "a path"),
    "offset": ((int,), 2**62, "a number of bytes"),
}


def is_json_lines(path: Place, first: str) -> bool:
    """Whether a list is written so, by its name or by its first line.

    Raises:
        InputError: it is JSON, but not one object a line.
    """
    suffix = str(path).rpartition(".")[2].lower()
    if suffix == "json" and (first.startswith("[") or first == "{"):
        raise InputError(
            f"{path} is one piece of JSON; give JSON lines, an object for each video on a line of its own, "
            "or, of an official data set, its folder"
        )
    return suffix == "jsonl" or (first.startswith("{") and first.endswith("}") and '"path"' in first)


def read_json_lines(path: Place, first: tuple[int, str], lines: Iterator[tuple[int, str]]) -> VideoList:
    """One object a line; only `path` has to be there, and what is not in `_FIELDS` is passed by.

    A clip with several labels has lists of them: `"label": [0, 3]`, `"class": ["fall", "run"]`, or both.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    found = VideoList(path, "JSON lines", Rows(above(path)))
    checked: set[tuple[type, ...]] = set()  # types that a line's values may have: nearly all lines have the same
    labelled: str | None = None
    add, note, belong = found.rows.add, found.lines.append, found.splits.append
    number, line = first
    while number:
        values = _values(path, number, line)
        name, label, called, split, frames, rate, size, wrong, shard, offset = values
        more: list[int] = []
        if type(label) is list or type(called) is list:
            label, called, more = _several(found, number, values)
            values = (name, label, called, *values[3:])
        kinds = tuple(map(type, values))
        numbers = label or 0, frames or 0, rate or 0, size or 0, offset or 0
        if kinds not in checked or min(numbers) < 0 or max(numbers) > MOST_FRAMES or numbers[0] >= MOST_CLASSES:
            _check(path, number, values)
            checked.add(kinds)
        has = "a number for a label" if label is not None else "no label" if called is None else "a class"
        labelled = labelled or has
        if has != labelled:
            raise InputError(f"line {number} of {path} has {has}; the first has {labelled}")
        if label is None and called is not None:
            label = found.word(called)
        elif called is not None and found.names.get(label) != called:
            found.call(number, label, called)
        try:
            piece = None if shard is None else (shard, offset, size)
            add(name, label, frames, rate and float(rate), piece, wrong or "", size, more)
        except UnicodeEncodeError:
            raise InputError(f"line {number} of {path} has a path that no file can have: {short(line)}") from None
        note(number)
        belong(intern(split or ""))
        number, line = next(lines, (0, ""))
    return found


def stated_labels(row: Row, classes: Sequence[str]) -> dict[str, Any]:
    """What a line states of a row's labels: a number and a name, or lists of them, or nothing."""
    if len(row.labels) > 1:
        return {"label": list(row.labels), "class": [classes[label] for label in row.labels]}
    return {} if row.label is None else {"label": row.label, "class": classes[row.label]}


def _values(path: Place, number: int, line: str) -> tuple[Any, ...]:
    """What a line states for each of the fields; None where it states nothing."""
    try:
        entry, end = _DECODER.raw_decode(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"line {number} of {path} is no JSON ({error}): {short(line)}") from None
    if type(entry) is not dict or not entry.get("path") or end < len(line) or "\\u0000" in line:
        raise InputError(f"line {number} of {path} reads {short(line)}, which is no object with a `path`")
    return tuple(map(entry.get, _FIELDS))


def _several(found: VideoList, number: int, values: tuple[Any, ...]) -> tuple[int | None, str | None, list[int]]:
    """The first label and the first class of a line that states lists of them, and the further labels, all checked."""
    label, called = values[1], values[2]
    labels, names = label if type(label) is list else [label], called if type(called) is list else [called]
    if label is not None and called is not None and (type(label) is not type(called) or len(labels) != len(names)):
        raise InputError(f"line {number} of {found.path} has {len(labels)} labels and {len(names)} classes; name each")
    stated = labels if label is not None else names
    if not stated:
        raise InputError(f"line {number} of {found.path} has an empty list of labels; state one or more")
    for each in labels if label is not None else ():
        _check(found.path, number, (values[0], each if type(each) is int else repr(each), *[None] * (len(_FIELDS) - 2)))
    for each in names if called is not None else ():
        if type(each) is not str or not each:
            raise InputError(f"line {number} of {found.path} has the class {short(str(each))}; state a name")
    if label is None:
        labels = [found.word(name) for name in names]  # in their order: the reader meets the first again
    elif called is not None:
        for one, name in zip(labels, names, strict=True):
            found.call(number, one, name)
    first, *more = found.once(number, labels)
    return (None, names[0], more) if label is None else (first, None if called is None else names[0], more)


def _check(path: Place, number: int, values: tuple[Any, ...]) -> None:
    stated = {key: value for key, value in zip(_FIELDS, values, strict=True) if value is not None}
    for key, value in stated.items():
        kinds, most, said = _FIELDS[key]
        if type(value) not in kinds or (most and not 0 <= value <= most):
            raise InputError(f"line {number} of {path} has the {key} {short(str(value))}; state {said}")
    if "shard" in stated and not {"offset", "bytes"} <= stated.keys():
        raise InputError(f"line {number} of {path} names a shard without `offset` and `bytes` in it")


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_constant=_no_number)
