"""Looks at single videos of a data set: what one is, and some of its frames; its bytes are fetched once."""

from dataclasses import dataclass
from pathlib import Path

from vidstill.data.decode.reader import Frames, VideoReader
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo
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
    with VideoReader(row.source) as video:
        size = len(video.file) if isinstance(video.file, bytes) else None
        if isinstance(video.file, Path) and video.file.is_file():
            size = video.file.stat().st_size
        height, width = video.read_frames([0, video.num_frames - 1]).shape[1:3]
        stats.add(video.num_frames, video.frame_rate, (width, height), video.metadata.codec, size)


def read_preview(row: VideoRow, max_frames: int) -> VideoPreview:
    """The frames in the middle of so many equal parts, or all of them where the video has fewer.

    Raises:
        BrokenVideo: they do not decode, or the video did not when it was scanned.
        Unreachable: its place does not answer.
    """
    if row.error:
        raise BrokenVideo(row.source, row.error)
    with VideoReader(row.source, num_frames=row.frames) as video:
        total = video.num_frames
        parts = min(max_frames, total)
        places = [(2 * part + 1) * total // (2 * parts) for part in range(parts)]
        return VideoPreview(
            frames=video.read_frames(places),
            frame_indices=places,
            num_frames=total,
            frame_rate=row.frame_rate or video.frame_rate,
        )
