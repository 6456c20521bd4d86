"""Boxes of persons as columns: a row for each box and action, or for each box with a score for every action."""

import csv
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from sys import intern
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64

from vidstill.data.manifest.parsed import shorten
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, format_error
from vidstill.data.storage.filesystem import base_name, read_lines
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

NO_ACTION = -1
"""The action of a box whose action is not stated."""

_ROWS_PER_CHUNK = 2**14  # rows that are read or written at a time
_INT32_MAX = 2**31 - 1
_SUFFIXES_WITHOUT_LINES = (".json", ".npz", ".pickle", ".pkl")  # the boxes of these files are numbered instead


@dataclass(frozen=True)
class BoxTable:
    """One row for each box and action, in the order of the file."""

    source: PathOrUrl
    video_names: tuple[str, ...]  # distinct, in the order of their first row
    video_index: Int32[np.ndarray, "n"]  # in `video_names`
    second: Int32[np.ndarray, "n"]  # a key frame is known by its video and whole second
    box: Float64[np.ndarray, "n 4"]  # x1, y1, x2, y2 as fractions of the frame's width and height
    action_id: Int32[np.ndarray, "n"]  # or NO_ACTION
    score: Float64[np.ndarray, "n"]  # confidence of a detected box; 1 where none is stated
    line_number: Int32[np.ndarray, "n"]  # or number of the box, in a file without lines; counted from 1

    @classmethod
    def from_rows(
        cls, source: PathOrUrl, names: Sequence[str], numbers: Any, line_numbers: Sequence[int]
    ) -> "BoxTable":
        """Build a table from the video of each row, its second, x1, y1, x2, y2, action and score, and its line."""
        indices: dict[str, int] = {}
        video_index = np.array([indices.setdefault(name, len(indices)) for name in names], np.int32)
        columns = np.asarray(numbers, np.float64).reshape(-1, 7)
        second, action_id = (columns[:, column].astype(np.int32) for column in (0, 5))
        box, score, lines = columns[:, 1:5].copy(), columns[:, 6].copy(), np.array(line_numbers, np.int32)
        return cls(source, tuple(indices), video_index, second, box, action_id, score, lines)

    def __len__(self) -> int:
        return len(self.video_index)

    @property
    def keyframe_id(self) -> Int64[np.ndarray, "n"]:
        """One number for each video and second, ascending in this order."""
        return encode_keyframe_id(self.video_index.astype(np.int64), self.second)

    def select(self, rows: Bool[np.ndarray, "n"] | Int64[np.ndarray, "k"]) -> "BoxTable":
        """Return some of the rows."""
        columns = (self.video_index, self.second, self.box, self.action_id, self.score, self.line_number)
        return BoxTable(self.source, self.video_names, *(column[rows] for column in columns))

    def select_videos(self, video_names: Collection[str]) -> "BoxTable":
        """Return the rows of these videos."""
        return self.select(np.array([name in video_names for name in self.video_names], bool)[self.video_index])

    def describe_row(self, row: int) -> str:
        """Return `line 3 of train.csv`, as messages name a row."""
        noun = "box" if base_name(self.source).endswith(_SUFFIXES_WITHOUT_LINES) else "line"
        return f"{noun} {self.line_number[row]} of {self.source}"

    def describe_rows(self, rows: Bool[np.ndarray, "n"], reason: str) -> str:
        """Return `train.csv has 3 rows without …; the first is line 7 of train.csv`, or "" if `rows` has none."""
        if not rows.any():
            return ""
        count, first = pluralize(int(rows.sum()), "row"), self.describe_row(int(rows.argmax()))
        return f"{self.source} has {count} {reason}; the first is {first}"


@dataclass(frozen=True)
class BoxScores:
    """The output of a detector: one row for each box, as in `BoxTable`, with a score for every action."""

    video_names: tuple[str, ...]
    video_index: Int32[np.ndarray, "n"]
    second: Int32[np.ndarray, "n"]
    box: Float[np.ndarray, "n 4"]
    action_ids: Sequence[int]  # in the order of the columns of `scores`
    scores: Float32[np.ndarray, "n a"]  # probabilities

    def __len__(self) -> int:
        return len(self.video_index)


def encode_keyframe_id(video_index: Any, second: Any) -> Any:
    """Return one integer for a video and a second, of numbers or of int64 arrays."""
    return video_index << 32 | second


def sort_equal_rows(columns: Sequence[np.ndarray]) -> tuple[Int64[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Return a stable order in which equal rows are neighbours, and which rows in it differ from the one before."""
    order = np.lexsort(columns[::-1])
    is_first = np.zeros(len(order), bool)
    is_first[:1] = True
    for column in columns:
        ordered = column[order]
        is_first[1:] |= ordered[1:] != ordered[:-1]
    return order, is_first


def read_box_csv(path: PathOrUrl, *, has_scores: bool) -> BoxTable:
    """Read AVA's CSV format: `video,second,x1,y1,x2,y2,action` and an eighth column, without a header.

    That column is a score if `has_scores` (detections); otherwise it numbers a person and is not read.

    Raises:
        InputError: The file or one of its rows cannot be read; the row is named by its line.
    """
    names: list[str] = []
    numbers: list[Float64[np.ndarray, "_ 7"]] = [np.zeros((0, 7))]
    line_numbers: list[int] = []
    file_lines = _read_lines(path)
    while chunk := list(islice(file_lines, _ROWS_PER_CHUNK)):
        lines = [line for _, line in chunk]
        values = _parse_lines(lines, has_scores)
        if values is None:
            rows = [_parse_row(path, *numbered, has_scores) for numbered in chunk]
            names += [name for name, _ in rows]
            values = np.array([row for _, row in rows])
        else:
            names += [intern(line.partition(",")[0].strip()) for line in lines]
        numbers.append(values)
        line_numbers += [number for number, _ in chunk]
    return BoxTable.from_rows(path, names, np.concatenate(numbers), line_numbers)


def read_excluded_timestamps(path: PathOrUrl) -> set[tuple[str, int]]:
    """Read a file of `video,second` lines: the key frames that a score leaves out."""
    keyframes = set()
    for row, fields in _read_fields(path):
        if len(fields) != 2 or not fields[0]:
            raise InputError(f"{row} is not a key frame; write video,second")
        keyframes.add((fields[0], _parse_second(row, fields[1])))
    return keyframes


def read_included_timestamps(path: PathOrUrl) -> tuple[int, ...]:
    """Read a file of one second per line: the seconds that have key frames, each once and ascending."""
    seconds = set()
    for row, fields in _read_fields(path):
        if len(fields) != 1:
            raise InputError(f"{row} has {len(fields)} fields; write one second")
        seconds.add(_parse_second(row, fields[0]))
    return tuple(sorted(seconds))


@contextmanager
def convert_read_errors(path: PathOrUrl, kind: str) -> Iterator[None]:
    """Raise an InputError if the file cannot be read; `kind` says what to give: "a CSV file"."""
    try:
        yield
    except (FileNotFoundError, BrokenVideo):
        raise InputError(f"{path} does not exist; give the path of {kind}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({format_error(error)}); give the path of {kind}") from error


def _read_lines(path: PathOrUrl) -> Iterator[tuple[int, str]]:
    with convert_read_errors(path, "a CSV file"):
        yield from read_lines(path)


def _read_fields(path: PathOrUrl) -> Iterator[tuple[str, list[str]]]:
    for number, line in _read_lines(path):
        row = f"line {number} of {path}"
        yield row, _split_fields(row, line)


def _parse_lines(lines: Sequence[str], has_scores: bool) -> Float64[np.ndarray, "n 7"] | None:
    """Return the numbers of lines; None where a line is wrong, quoted, or of another length than the others."""
    commas = {line.count(",") for line in lines}
    if commas not in ({6}, {7}) or any(line[0] == "," or '"' in line for line in lines):
        return None
    converters: Mapping[int | str, Callable[[str], float]] | None = None
    if any(",," in line for line in lines):
        converters = {6: lambda text: float(text.strip().replace("_", " ") or NO_ACTION)}  # float reads "1_0"
    columns = range(1, 8 if has_scores and commas == {7} else 7)
    try:
        values = np.loadtxt(lines, delimiter=",", comments=None, ndmin=2, usecols=columns, converters=converters)
    except ValueError:
        return None
    if len(columns) == 6:
        values = np.column_stack([values, np.ones(len(values))])
    whole = values[:, [0, 5]]
    in_range = (whole >= [0, NO_ACTION]) & (whole <= _INT32_MAX) & (whole == np.floor(whole))
    return values if np.isfinite(values).all() and in_range.all() else None


def _parse_row(path: PathOrUrl, line_number: int, line: str, has_scores: bool) -> tuple[str, list[float]]:
    """Return the video and the numbers of one line, or raise an InputError that says what is wrong with it."""
    row = f"line {line_number} of {path}"
    fields = _split_fields(row, line)
    columns = "video,second,x1,y1,x2,y2,action," + ("score" if has_scores else "person")
    if len(fields) not in (7, 8):
        raise InputError(f"{row} has {len(fields)} fields, not 7 or 8: write {columns}")
    if line_number == 1 and not any(map(_is_number, fields[1:])):
        raise InputError(f"{row} reads {shorten(line)}, a header; delete it")
    if not fields[0]:
        raise InputError(f"{row} names no video; write {columns}")
    second = _parse_second(row, fields[1])
    box = [_parse_number(row, *each) for each in zip(("x1", "y1", "x2", "y2"), fields[2:6], strict=True)]
    action = _parse_number(row, "the action", fields[6] or str(NO_ACTION))
    if not NO_ACTION <= action <= _INT32_MAX or action != int(action):
        raise InputError(f"{row} has the action {fields[6]!r}; write its number or leave it empty")
    score = _parse_number(row, "the score", fields[7]) if has_scores and len(fields) == 8 else 1.0
    return fields[0], [float(second), *box, action, score]


def _split_fields(row: str, line: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line]))]
    except csv.Error as error:
        raise InputError(f"{row} is not a CSV row ({error}); correct its quotes") from None


def _parse_second(row: str, text: str) -> int:
    value = _parse_number(row, "the second", text)
    if not 0 <= value <= _INT32_MAX or value != int(value):
        raise InputError(f"{row} has the second {text!r}; write a whole number, 0 or more")
    return int(value)


def _parse_number(row: str, column: str, text: str) -> float:
    if not _is_number(text):
        raise InputError(f"{row} has {text!r} for {column}; write a number")
    if not math.isfinite(value := float(text)):
        raise InputError(f"{row} has {text} for {column}; write a finite number")
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def format_box_csv(
    table: BoxTable | BoxScores, *, action_ids: Collection[int] | None = None, decimals: tuple[int, int] | None = None
) -> Iterator[bytes]:
    """Return the lines that `read_box_csv` reads, one for each box and action, in blocks of bytes.

    Args:
        action_ids: Actions to write; None: all.
        decimals: Decimals of coordinates and of scores; None: as many as reading back the same numbers needs.
    """
    names = ['"' + name.replace('"', '""') + '"' if {'"', ","} & set(name) else name for name in table.video_names]
    coordinate = "%r" if decimals is None else f"%.{decimals[0]}f"
    row_format = f"%s,%04d,{','.join([coordinate] * 4)},"
    score_format = f"%.{decimals[1]}f" if decimals else "%r" if isinstance(table, BoxTable) else "%.9g"
    columns, rows_per_chunk, tail = [], _ROWS_PER_CHUNK, ""
    if isinstance(table, BoxScores):  # nine digits tell every float32 from the next
        columns = [i for i, action in enumerate(table.action_ids) if action_ids is None or action in action_ids]
        rows_per_chunk = max(1, _ROWS_PER_CHUNK // max(1, len(columns)))
        tail = "".join(f"\0{table.action_ids[i]},{score_format}\n" for i in columns)
    for start in range(0, len(table), rows_per_chunk):
        rows = slice(start, start + rows_per_chunk)
        boxes = table.box[rows].astype(np.float64).tolist()
        keyframes = zip(table.video_index[rows].tolist(), table.second[rows].tolist(), boxes, strict=True)
        heads = [row_format % (names[video], second, *box) for video, second, box in keyframes]
        if isinstance(table, BoxScores):
            scores = table.scores[rows][:, columns].tolist()
            lines = [(tail % tuple(own)).replace("\0", head) for head, own in zip(heads, scores, strict=True)]
        else:
            actions, scores = table.action_id[rows].tolist(), table.score[rows].tolist()
            lines = [
                f"{head}{'' if action == NO_ACTION else action},{score_format % score}\n"
                for head, action, score in zip(heads, actions, scores, strict=True)
                if action_ids is None or action in action_ids
            ]
        yield "".join(lines).encode("utf-8", "backslashreplace")
