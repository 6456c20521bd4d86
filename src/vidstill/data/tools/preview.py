"""Single videos of a dataset: the facts of one, and some of its frames; each is fetched and opened once."""

from dataclasses import dataclass
from pathlib import Path

from vidstill.data.decode.reader import Frames, VideoReader
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.tools.stats import VideoStats


@dataclass(frozen=True, kw_only=True)
class VideoPreview:
    """Some frames of a video, and their indices from 0."""

    frames: Frames
    frame_indices: list[int]
    num_frames: int
    frame_rate: float | None


def add_video_stats(row: VideoRow, stats: VideoStats) -> None:
    """Add the facts of a video whose first and last frame decode.

    Raises:
        BrokenVideo: They do not.
        StorageUnreachable: A URL does not answer.
    """
    with VideoReader(row.source) as video:
        height, width = video.read_frames([0, video.num_frames - 1]).shape[1:3]
        size = len(video.file) if isinstance(video.file, bytes) else None
        if isinstance(video.file, Path) and video.file.is_file():
            size = video.file.stat().st_size
        stats.add(video.num_frames, video.frame_rate, (width, height), video.metadata.codec, size)


def read_preview(row: VideoRow, max_frames: int) -> VideoPreview:
    """Read the middle frames of `max_frames` equal parts, or all frames of a shorter video.

    Raises:
        BrokenVideo: They do not decode, or a scan has found the video broken.
        StorageUnreachable: A URL does not answer.
    """
    if row.error:
        raise BrokenVideo(row.source, row.error)
    with VideoReader(row.source, num_frames=row.frames) as video:
        num_parts = min(max_frames, video.num_frames)
        indices = [(2 * part + 1) * video.num_frames // (2 * num_parts) for part in range(num_parts)]
        frames, frame_rate = video.read_frames(indices), row.frame_rate or video.frame_rate
        return VideoPreview(frames=frames, frame_indices=indices, num_frames=video.num_frames, frame_rate=frame_rate)
