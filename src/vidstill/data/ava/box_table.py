"""Rows of AVA's files, `video,second,x1,y1,x2,y2,action,…`, as columns: annotations, and what was detected."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32

from vidstill.data.ava.csv_reader import NO_ACTION, Columns, columns_of, rows_of, second_of
from vidstill.data.storage.fetch import Place
from vidstill.utils.files import write_file
from vidstill.utils.types import InputError

_AT_ONCE = 2**14  # rows that are put into words before they are written


@dataclass(frozen=True)
class BoxRows:
    """One row for each box and action, in the order of the file.

    Args:
        videos: their names, in the order in which they are first met.
        video: a row's place among these.
        second: of the video; a key frame is known by its video and second.
        box: x1, y1, x2, y2 as fractions of the frame's width and height.
        action: its number, or NO_ACTION.
        score: 1 where none is stated.
        line: of the file, from 1.
    """

    source: Place
    videos: tuple[str, ...]
    video: Int32[np.ndarray, "n"]
    second: Int32[np.ndarray, "n"]
    box: Float64[np.ndarray, "n 4"]
    action: Int32[np.ndarray, "n"]
    score: Float64[np.ndarray, "n"]
    line: Int32[np.ndarray, "n"]

    def __len__(self) -> int:
        return len(self.video)

    def of(self, videos: Collection[str]) -> "BoxRows":
        """Those of these videos."""
        kept = np.array([name in videos for name in self.videos], bool)[self.video]
        columns = (self.video, self.second, self.box, self.action, self.score, self.line)
        return BoxRows(self.source, self.videos, *(column[kept] for column in columns))


@dataclass(frozen=True)
class BoxScores:
    """What a detector gives: each box with a score for every action; a row for each box, not for each score.

    Args:
        videos: their names.
        video: a box's place among these.
        second: of the video.
        box: x1, y1, x2, y2 as fractions of the frame's width and height.
        numbers: the actions of the columns.
    """

    videos: tuple[str, ...]
    video: Int32[np.ndarray, "n"]
    second: Int32[np.ndarray, "n"]
    box: Float[np.ndarray, "n 4"]
    numbers: Sequence[int]
    scores: Float32[np.ndarray, "n a"]

    def __len__(self) -> int:
        return len(self.video)


def read_rows(path: Place, *, scored: bool) -> BoxRows:
    """A file of seven or eight columns without a header; of a file without rows, none.

    Args:
        scored: the eighth column is a score, as of what was detected; otherwise a person's number, which is passed by.

    Raises:
        InputError: a row cannot be read; it is named by its line.
    """
    names: dict[str, int] = {}
    blocks = list(columns_of(path, names, scored=scored)) or [_NOTHING]
    found = Columns(*(np.concatenate(each) for each in zip(*blocks, strict=True)))
    return BoxRows(path, tuple(names), *found)


_NOTHING = Columns(
    *(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 4))),
    *(np.zeros(0, np.int32), np.zeros(0), np.zeros(0, np.int32)),
)


def read_moments(path: Place) -> set[tuple[str, int]]:
    """The key frames that a file of `video,second` lines names, as those do that are left out of a score.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    found = set()
    for number, fields in rows_of(path):
        if len(fields) != 2 or not fields[0]:
            raise InputError(f"line {number} of {path} is no key frame; a line reads video,second")
        found.add((fields[0], second_of(path, number, fields[1])))
    return found


def read_seconds(path: Place) -> tuple[int, ...]:
    """The seconds that a file names, one on each line, as those do that have key frames; each once, ascending.

    Raises:
        InputError: a line cannot be read; it is named by its number.
    """
    found = set()
    for number, fields in rows_of(path):
        if len(fields) != 1:
            raise InputError(f"line {number} of {path} has {len(fields)} fields; a line is one second")
        found.add(second_of(path, number, fields[0]))
    return tuple(sorted(found))


def lines_of(
    found: BoxRows | BoxScores,
    *,
    numbers: Collection[int] | None = None,
    decimals: tuple[int, int] | None = None,
) -> Iterator[bytes]:
    """What `read_rows` reads: a line for each box and action.

    Args:
        numbers: of the actions that are written; None: all.
        decimals: of coordinates and of scores; None: as many as it takes to read the same numbers back.
    """
    wanted = None if numbers is None else set(numbers)
    if isinstance(found, BoxRows):
        return _lines_of_rows(found, wanted, decimals)
    return _lines_of_scores(found, wanted, decimals)


def write_rows(
    path: Path,
    found: BoxRows | BoxScores,
    *,
    numbers: Collection[int] | None = None,
    decimals: tuple[int, int] | None = None,
) -> None:
    """Writes `lines_of`, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    write_file(path, lines_of(found, numbers=numbers, decimals=decimals))


def _lines_of_rows(found: BoxRows, numbers: set[int] | None, decimals: tuple[int, int] | None) -> Iterator[bytes]:
    names = _quoted(found.videos)
    for begin in range(0, len(found), _AT_ONCE):
        some = slice(begin, begin + _AT_ONCE)
        heads = _heads(found, some, names, decimals)
        actions, scores = found.action[some].tolist(), found.score[some].tolist()
        yield _bytes(
            f"{head}{'' if action == NO_ACTION else action},{_score(score, decimals)}\n"
            for head, action, score in zip(heads, actions, scores, strict=True)
            if numbers is None or action in numbers
        )


def _lines_of_scores(found: BoxScores, numbers: set[int] | None, decimals: tuple[int, int] | None) -> Iterator[bytes]:
    columns = [place for place, number in enumerate(found.numbers) if numbers is None or number in numbers]
    form = "%.9g" if decimals is None else f"%.{decimals[1]}f"  # nine digits tell every float32 from the next
    tail = "".join(f"\0{found.numbers[place]},{form}\n" for place in columns)
    at_once = max(1, _AT_ONCE // max(1, len(columns)))
    names = _quoted(found.videos)
    for begin in range(0, len(found), at_once):
        some = slice(begin, begin + at_once)
        scores = found.scores[some][:, columns].tolist()
        heads = _heads(found, some, names, decimals)
        yield _bytes((tail % tuple(own)).replace("\0", head) for head, own in zip(heads, scores, strict=True))


def _heads(
    found: BoxRows | BoxScores, some: slice, names: Sequence[str], decimals: tuple[int, int] | None
) -> Iterator[str]:
    """`video,second,x1,y1,x2,y2,` of some boxes."""
    form = "%r" if decimals is None else f"%.{decimals[0]}f"
    whole = f"%s,%04d,{form},{form},{form},{form},"
    boxes = found.box[some].astype(np.float64).tolist()
    for video, second, box in zip(found.video[some].tolist(), found.second[some].tolist(), boxes, strict=True):
        yield whole % (names[video], second, *box)


def _score(score: float, decimals: tuple[int, int] | None) -> str:
    return repr(score) if decimals is None else f"{score:.{decimals[1]}f}"


def _quoted(names: Sequence[str]) -> list[str]:
    """As fields of a row."""
    return ['"' + name.replace('"', '""') + '"' if '"' in name or "," in name else name for name in names]


def _bytes(lines: Iterator[str]) -> bytes:
    return "".join(lines).encode("utf-8", "backslashreplace")
