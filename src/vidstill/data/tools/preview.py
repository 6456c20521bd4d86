"""Looks at single videos of a data set: what one is, and some of its frames; its bytes are fetched once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vidstill.data.decode.reader import count_frames, read_frame_rate, read_stream_metadata, read_video_metadata
from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, fetch_source, source_name
from vidstill.data.tools.stats import VideoStats


@dataclass(frozen=True, kw_only=True)
class VideoPreview:
    """Some frames of a video: their numbers from 0, of how many, at how many a second."""

    frames: Frames
    frame_indices: list[int]
    num_frames: int
    frame_rate: float | None


def add_video_stats(row: VideoRow, stats: VideoStats) -> None:
    """Adds what a video is, if its first and its last frame decode.

    Raises:
        BrokenVideo: they do not.
        Unreachable: its place does not answer.
    """
    with _fetch_video(row) as here:
        seen = read_video_metadata(here)
        size = len(here) if isinstance(here, bytes) else here.stat().st_size if here.is_file() else None
        stats.add(seen.num_frames, seen.frame_rate, (seen.width, seen.height), read_stream_metadata(here).codec, size)


def read_preview(row: VideoRow, max_frames: int) -> VideoPreview:
    """The frames in the middle of so many equal parts, or all of them where the video has fewer.

    Raises:
        BrokenVideo: they do not decode, or the video did not when it was scanned.
        Unreachable: its place does not answer.
    """
    if row.error:
        raise BrokenVideo(f"{source_name(row.source)} {row.error}")
    with _fetch_video(row) as here:
        total = row.frames or count_frames(here)
        parts = min(max_frames, total)
        places = [(2 * part + 1) * total // (2 * parts) for part in range(parts)]
        return VideoPreview(
            frames=read_frames(here, places),
            frame_indices=places,
            num_frames=total,
            frame_rate=row.frame_rate or read_frame_rate(here),
        )


@contextmanager
def _fetch_video(row: VideoRow) -> Iterator[Path | bytes]:
    """The video as a file, or its bytes; what is found wrong with them is said by the video's own name."""
    here = fetch_source(row.source)
    try:
        yield here
    except BrokenVideo as error:
        raise BrokenVideo(str(error).replace(source_name(here), source_name(row.source))) from error
