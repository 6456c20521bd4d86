"""Looks at single videos of a data set: what one is, and some of its frames; its bytes are fetched once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vidstill.data.decode.probe import count_frames, describe, facts, frame_rate
from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.manifest.table import Row
from vidstill.data.storage.fetch import BrokenVideo, fetched, name_of
from vidstill.data.tools.stats import Facts


@dataclass(frozen=True, kw_only=True)
class Glimpse:
    """Some frames of a video: their numbers from 0, of how many, at how many a second."""

    frames: Frames
    places: list[int]
    total: int
    rate: float | None


def look_at(row: Row, known: Facts) -> None:
    """Adds what a video is, if its first and its last frame decode.

    Raises:
        BrokenVideo: they do not.
        Unreachable: its place does not answer.
    """
    with _at_hand(row) as here:
        seen = describe(here)
        size = len(here) if isinstance(here, bytes) else here.stat().st_size if here.is_file() else None
        known.add(seen.frames, seen.rate, (seen.width, seen.height), facts(here).codec, size)


def glimpse(row: Row, most: int) -> Glimpse:
    """The frames in the middle of so many equal parts, or all of them where the video has fewer.

    Raises:
        BrokenVideo: they do not decode, or the video did not when it was scanned.
        Unreachable: its place does not answer.
    """
    if row.wrong:
        raise BrokenVideo(f"{name_of(row.source)} {row.wrong}")
    with _at_hand(row) as here:
        total = row.frames or count_frames(here)
        parts = min(most, total)
        places = [(2 * part + 1) * total // (2 * parts) for part in range(parts)]
        return Glimpse(frames=read_frames(here, places), places=places, total=total, rate=row.rate or frame_rate(here))


@contextmanager
def _at_hand(row: Row) -> Iterator[Path | bytes]:
    """The video as a file, or its bytes; what is found wrong with them is said by the video's own name."""
    here = fetched(row.source)
    try:
        yield here
    except BrokenVideo as error:
        raise BrokenVideo(str(error).replace(name_of(here), name_of(row.source))) from error
