"""Text in the form of AVA's rows → columns: by NumPy's reader, or row by row where that one meets something."""

import csv
import io
import math
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt8

from vidstill.data.manifest.parsed import shorten
from vidstill.data.storage.fetch import PathOrUrl, fetch_source, format_error
from vidstill.utils.types import InputError

NO_ACTION = -1
"""In place of an action's number: a box of which none is stated."""

_BLOCK_BYTES = 2**20  # bytes that are read at a time
_INT32_MAX = 2**31 - 1
_COORDINATES = ("x1", "y1", "x2", "y2")


class CsvColumns(NamedTuple):
    """Of some rows; `video` is a place among names that were met so far."""

    video_index: Int32[np.ndarray, "n"]
    second: Int32[np.ndarray, "n"]
    box: Float64[np.ndarray, "n 4"]
    action_id: Int32[np.ndarray, "n"]
    score: Float64[np.ndarray, "n"]
    line_number: Int32[np.ndarray, "n"]


def read_csv_columns(path: PathOrUrl, video_indices: dict[str, int], *, has_scores: bool) -> Iterator[CsvColumns]:
    """A file's rows, some thousands at a time.

    Args:
        video_indices: of videos; those that are met are added.
        has_scores: the eighth column is a score.

    Raises:
        InputError: a row cannot be read, or the file; a row is named by its line.
    """
    for number, block in _read_blocks(path):
        text = _decode_utf8(path, number, block)
        found = _parse_block_fast(number, block, text, video_indices, has_scores)
        yield found if found is not None else _parse_block_slow(path, number, text, video_indices, has_scores)


def read_csv_rows(path: PathOrUrl) -> Iterator[tuple[int, list[str]]]:
    """The fields of every line that holds something, and its number from 1."""
    for number, block in _read_blocks(path):
        yield from _split_fields(path, number, _decode_utf8(path, number, block))


def parse_second(path: PathOrUrl, line_number: int, text: str) -> int:
    """
    Raises:
        InputError: it is no whole number, or below 0.
    """
    value = _parse_number(path, line_number, "the second", text)
    if not 0 <= value <= _INT32_MAX or value != int(value):
        raise InputError(
            f"line {line_number} of {path} has the second {text!r}; a key frame's second is a whole number, 0 or more"
        )
    return int(value)


def _read_blocks(place: PathOrUrl) -> Iterator[tuple[int, bytes]]:
    """A file's bytes in pieces of whole lines, without the last one's end, and the number of the first line of each."""
    number, rest = 1, b""
    try:
        here = fetch_source(place)
        with here.open("rb") if isinstance(here, Path) else io.BytesIO(here) as file:
            rest = file.read(len(BOM_UTF8)).removeprefix(BOM_UTF8)
            while more := file.read(_BLOCK_BYTES):
                whole, end, rest = (rest + more).rpartition(b"\n")
                if end:
                    yield number, whole
                    number += whole.count(b"\n") + 1
    except FileNotFoundError:
        raise InputError(f"{place} does not exist; give a file of rows that is there") from None
    except OSError as error:
        raise InputError(f"{place} cannot be read ({format_error(error)}); give a file of rows") from error
    if rest:
        yield number, rest


def _decode_utf8(place: PathOrUrl, number: int, block: bytes) -> str:
    try:
        return str(block, "utf-8")
    except UnicodeDecodeError as error:
        line = number + block.count(b"\n", 0, error.start)
        raise InputError(
            f"line {line} of {place} is no text in UTF-8; fetch the file again, or save it as such"
        ) from None


def _parse_block_fast(number: int, block: bytes, text: str, names: dict[str, int], scored: bool) -> CsvColumns | None:
    """A block's columns, or None where a row is wrong, empty, quoted, or shorter than others."""
    letters = np.frombuffer(block, np.uint8)
    ends = np.append(np.flatnonzero(letters == ord("\n")), len(letters))
    commas = np.flatnonzero(letters == ord(","))
    first = np.searchsorted(commas, np.append(0, ends))  # comma after the beginning of each line
    fields = 1 + np.diff(first)
    if b'"' in block or fields[0] not in (7, 8) or (fields != fields[0]).any():
        return None
    videos = _parse_video_names(block, letters, np.append(0, ends[:-1] + 1), commas[first[:-1]])
    unstated: dict[int | str, Callable[[str], float]] | None = None
    if b",," in block:
        unstated = {6: lambda text: float(text.strip() or NO_ACTION)}
    used = range(1, 8 if scored and fields[0] == 8 else 7)
    try:
        values = np.loadtxt(io.StringIO(text), delimiter=",", comments=None, ndmin=2, usecols=used, converters=unstated)
    except ValueError:
        return None
    if videos is None or len(values) != len(ends) or not np.isfinite(values).all():
        return None
    second, box, action, score = values[:, 0], values[:, 1:5], values[:, 5], values[:, 6:]
    if not (_are_whole_numbers(second, 0) & _are_whole_numbers(action, NO_ACTION)).all():
        return None
    known = [names.setdefault(name, len(names)) for name in videos[0]]
    return CsvColumns(
        np.array(known, np.int32)[videos[1]],
        second.astype(np.int32),
        box.copy(),
        action.astype(np.int32),
        score[:, 0].copy() if score.size else np.ones(len(ends)),
        np.arange(number, number + len(ends), dtype=np.int32),
    )


def _parse_video_names(
    block: bytes, letters: UInt8[np.ndarray, "m"], begin: Int64[np.ndarray, "n"], end: Int64[np.ndarray, "n"]
) -> tuple[list[str], Int64[np.ndarray, "n"]] | None:
    """What lines begin with, once for lines that follow one another, and each line's place among these.

    None: one is empty, or they are too long to be compared at once.
    """
    long = end - begin
    most = int(long.max())
    if not long.min() or most * len(long) > _BLOCK_BYTES:
        return None
    own = np.arange(most) < long[:, None]
    rows = np.where(own, letters[np.minimum(begin[:, None] + np.arange(most), len(letters) - 1)], 0)
    new = np.append(True, (rows[1:] != rows[:-1]).any(axis=1))
    names = [str(block[begin[row] : end[row]], "utf-8").strip() for row in np.flatnonzero(new).tolist()]
    return (names, np.cumsum(new) - 1) if all(names) else None


def _are_whole_numbers(values: Float64[np.ndarray, "n"], least: int) -> Bool[np.ndarray, "n"]:
    return (values >= least) & (values <= _INT32_MAX) & (values == np.floor(values))


def _parse_block_slow(place: PathOrUrl, first: int, text: str, names: dict[str, int], scored: bool) -> CsvColumns:
    """A block's columns, however long it takes; what is wrong is said."""
    form = "video,second,x1,y1,x2,y2,action," + ("score" if scored else "person")
    video, second, box, action, score, line = [], [], [], [], [], []
    for number, fields in _split_fields(place, first, text):
        if len(fields) not in (7, 8):
            raise InputError(f"line {number} of {place} has {len(fields)} fields where 7 or 8 are wanted: {form}")
        if number == 1 and not any(map(_is_number, fields[1:])):
            raise InputError(
                f"line 1 of {place} reads {shorten(','.join(fields))}, a header; files of such rows have none: delete it"
            )
        if not fields[0]:
            raise InputError(f"line {number} of {place} names no video; a row reads {form}")
        second.append(parse_second(place, number, fields[1]))
        box.append([_parse_number(place, number, *each) for each in zip(_COORDINATES, fields[2:6], strict=True)])
        action.append(_parse_action(place, number, fields[6]))
        stated = scored and len(fields) == 8
        score.append(_parse_number(place, number, "the score", fields[7]) if stated else 1.0)
        video.append(names.setdefault(fields[0], len(names)))
        line.append(number)
    return CsvColumns(
        np.array(video, np.int32),
        np.array(second, np.int32),
        np.array(box, np.float64).reshape(-1, 4),
        np.array(action, np.int32),
        np.array(score, np.float64),
        np.array(line, np.int32),
    )


def _split_fields(place: PathOrUrl, first: int, text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), first):
        if line.strip():
            try:
                yield number, [field.strip() for field in next(csv.reader([line]))]
            except csv.Error as error:
                raise InputError(f"line {number} of {place} is no row of a table ({error})") from None


def _parse_action(place: PathOrUrl, number: int, text: str) -> int:
    value = _parse_number(place, number, "the action", text) if text else NO_ACTION
    if not NO_ACTION <= value <= _INT32_MAX or value != int(value):
        raise InputError(f"line {number} of {place} has the action {text!r}; give its number, or leave it empty")
    return int(value)


def _parse_number(place: PathOrUrl, number: int, what: str, text: str) -> float:
    if not _is_number(text):
        raise InputError(f"line {number} of {place} has {text!r} for {what}, which is no number; give one")
    value = float(text)
    if not math.isfinite(value):
        raise InputError(f"line {number} of {place} has {text} for {what}; give a finite number, or delete the row")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
