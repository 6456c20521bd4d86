"""Rows of AVA's files, `video,second,x1,y1,x2,y2,action,…`, as columns: annotations, and what was detected."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32

from vidstill.data.ava.csv_reader import NO_ACTION, CsvColumns, parse_second, read_csv_columns, read_csv_rows
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.utils.files import write_bytes
from vidstill.utils.types import InputError

_ROWS_PER_CHUNK = 2**14  # rows that are put into words before they are written


@dataclass(frozen=True)
class BoxTable:
    """One row for each box and action, in the order of the file.

    Args:
        video_names: their names, in the order in which they are first met.
        video_index: a row's place among these.
        second: of the video; a key frame is known by its video and second.
        box: x1, y1, x2, y2 as fractions of the frame's width and height.
        action_id: its number, or NO_ACTION.
        score: 1 where none is stated.
        line_number: of the file, from 1.
    """

    source: PathOrUrl
    video_names: tuple[str, ...]
    video_index: Int32[np.ndarray, "n"]
    second: Int32[np.ndarray, "n"]
    box: Float64[np.ndarray, "n 4"]
    action_id: Int32[np.ndarray, "n"]
    score: Float64[np.ndarray, "n"]
    line_number: Int32[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.video_index)

    def select_videos(self, video_names: Collection[str]) -> "BoxTable":
        """Those of these videos."""
        kept = np.array([name in video_names for name in self.video_names], bool)[self.video_index]
        columns = (self.video_index, self.second, self.box, self.action_id, self.score, self.line_number)
        return BoxTable(self.source, self.video_names, *(column[kept] for column in columns))


@dataclass(frozen=True)
class BoxScores:
    """What a detector gives: each box with a score for every action; a row for each box, not for each score.

    Args:
        video_names: their names.
        video_index: a box's place among these.
        second: of the video.
        box: x1, y1, x2, y2 as fractions of the frame's width and height.
        action_ids: the actions of the columns.
    """

    video_names: tuple[str, ...]
    video_index: Int32[np.ndarray, "n"]
    second: Int32[np.ndarray, "n"]
    box: Float[np.ndarray, "n 4"]
    action_ids: Sequence[int]
    scores: Float32[np.ndarray, "n a"]

    def __len__(self) -> int:
        return len(self.video_index)


def read_box_csv(path: PathOrUrl, *, has_scores: bool) -> BoxTable:
    """A file of seven or eight columns without a header; of a file without rows, none.

    Args:
        has_scores: the eighth column is a score, as of what was detected; otherwise a person's number, which is passed by.

    Raises:
        InputError: a row cannot be read; it is named by its line.
    """
    names: dict[str, int] = {}
    blocks = list(read_csv_columns(path, names, has_scores=has_scores)) or [_EMPTY_COLUMNS]
    found = CsvColumns(*(np.concatenate(each) for each in zip(*blocks, strict=True)))
    return BoxTable(path, tuple(names), *found)


_EMPTY_COLUMNS = CsvColumns(
    *(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 4))),
    *(np.zeros(0, np.int32), np.zeros(0), np.zeros(0, np.int32)),
)


def read_excluded_timestamps(path: PathOrUrl) -> set[tuple[str, int]]:
    """The key frames that a file of `video,second` lines names, as those do that are left out of a score.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    found = set()
    for number, fields in read_csv_rows(path):
        if len(fields) != 2 or not fields[0]:
            raise InputError(f"line {number} of {path} is no key frame; a line reads video,second")
        found.add((fields[0], parse_second(path, number, fields[1])))
    return found


def read_included_timestamps(path: PathOrUrl) -> tuple[int, ...]:
    """The seconds that a file names, one on each line, as those do that have key frames; each once, ascending.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    found = set()
    for number, fields in read_csv_rows(path):
        if len(fields) != 1:
            raise InputError(f"line {number} of {path} has {len(fields)} fields; a line is one second")
        found.add(parse_second(path, number, fields[0]))
    return tuple(sorted(found))


def format_box_csv(
    table: BoxTable | BoxScores,
    *,
    action_ids: Collection[int] | None = None,
    decimals: tuple[int, int] | None = None,
) -> Iterator[bytes]:
    """What `read_box_csv` reads: a line for each box and action.

    Args:
        action_ids: of the actions that are written; None: all.
        decimals: of coordinates and of scores; None: as many as it takes to read the same numbers back.
    """
    wanted = None if action_ids is None else set(action_ids)
    if isinstance(table, BoxTable):
        return _format_table(table, wanted, decimals)
    return _format_scores(table, wanted, decimals)


def write_box_csv(
    path: Path,
    table: BoxTable | BoxScores,
    *,
    action_ids: Collection[int] | None = None,
    decimals: tuple[int, int] | None = None,
) -> None:
    """Writes `format_box_csv`, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    write_bytes(path, format_box_csv(table, action_ids=action_ids, decimals=decimals))


def _format_table(found: BoxTable, numbers: set[int] | None, decimals: tuple[int, int] | None) -> Iterator[bytes]:
    names = _quote_names(found.video_names)
    for begin in range(0, len(found), _ROWS_PER_CHUNK):
        some = slice(begin, begin + _ROWS_PER_CHUNK)
        heads = _format_row_prefixes(found, some, names, decimals)
        actions, scores = found.action_id[some].tolist(), found.score[some].tolist()
        yield _encode_lines(
            f"{head}{'' if action == NO_ACTION else action},{_format_score(score, decimals)}\n"
            for head, action, score in zip(heads, actions, scores, strict=True)
            if numbers is None or action in numbers
        )


def _format_scores(found: BoxScores, numbers: set[int] | None, decimals: tuple[int, int] | None) -> Iterator[bytes]:
    columns = [place for place, number in enumerate(found.action_ids) if numbers is None or number in numbers]
    form = "%.9g" if decimals is None else f"%.{decimals[1]}f"  # nine digits tell every float32 from the next
    tail = "".join(f"\0{found.action_ids[place]},{form}\n" for place in columns)
    at_once = max(1, _ROWS_PER_CHUNK // max(1, len(columns)))
    names = _quote_names(found.video_names)
    for begin in range(0, len(found), at_once):
        some = slice(begin, begin + at_once)
        scores = found.scores[some][:, columns].tolist()
        heads = _format_row_prefixes(found, some, names, decimals)
        yield _encode_lines((tail % tuple(own)).replace("\0", head) for head, own in zip(heads, scores, strict=True))


def _format_row_prefixes(
    found: BoxTable | BoxScores, some: slice, names: Sequence[str], decimals: tuple[int, int] | None
) -> Iterator[str]:
    """`video,second,x1,y1,x2,y2,` of some boxes."""
    form = "%r" if decimals is None else f"%.{decimals[0]}f"
    whole = f"%s,%04d,{form},{form},{form},{form},"
    boxes = found.box[some].astype(np.float64).tolist()
    for video, second, box in zip(found.video_index[some].tolist(), found.second[some].tolist(), boxes, strict=True):
        yield whole % (names[video], second, *box)


def _format_score(score: float, decimals: tuple[int, int] | None) -> str:
    return repr(score) if decimals is None else f"{score:.{decimals[1]}f}"


def _quote_names(names: Sequence[str]) -> list[str]:
    """As fields of a row."""
    return ['"' + name.replace('"', '""') + '"' if '"' in name or "," in name else name for name in names]


def _encode_lines(lines: Iterator[str]) -> bytes:
    return "".join(lines).encode("utf-8", "backslashreplace")
