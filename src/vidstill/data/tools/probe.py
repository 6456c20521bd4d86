"""Facts of videos: of one decoded to its end, of one that is opened, counts of many; and some frames of one."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vidstill.data.decode.images import list_frame_images
from vidstill.data.decode.reader import Frames, VideoReader
from vidstill.data.manifest.table import VideoRow, VideoTable
from vidstill.data.storage.fetch import (
    BrokenVideo,
    ShardMember,
    VideoSource,
    check_file_type,
    fetch_source,
    format_error,
)
from vidstill.data.storage.filesystem import stat_source
from vidstill.data.tools.near_duplicates import VideoSignature
from vidstill.parallel.process import send_heartbeat
from vidstill.utils.text import list_first

_BLOCK_BYTES = 2**20
_MAX_VALUES = 5

ScanRecord = dict[str, Any]
"""The entries of a JSON line that a scan finds out; an unknown one is left out."""

SCAN_FIELDS = (
    *("frames", "rate", "bytes"),  # frames that decode; frames per second
    *("width", "height", "codec", "pixels", "seconds"),  # upright; `pixels` is their format
    *("header_frames", "modified"),  # where the header states another number; of the file, in nanoseconds
    *("sha256", "signature", "error"),  # of the bytes; see `VideoSignature`
)
"""Their order."""


def scan_video(source: VideoSource) -> ScanRecord:
    """Decode a video to its end, or to its first error.

    Raises:
        StorageUnreachable: A URL does not answer.
    """
    record = init_scan_record(source)
    try:
        file = fetch_source(source)
        record["sha256"], record["bytes"] = hash_source(file)
        with VideoReader(file) as video:
            _decode_frames(video, record)
    except BrokenVideo as error:
        record["error"] = error.reason
    except OSError as error:
        record["error"] = f"cannot be read: {format_error(error)}"
    return record


def init_scan_record(source: VideoSource) -> ScanRecord:
    """Return the record of a video that is not decoded."""
    size, modified = stat_source(source) or (source.size if isinstance(source, ShardMember) else 0, None)
    return {"frames": 0, "bytes": size} | ({} if modified is None else {"modified": modified})


def hash_source(file: Path | bytes) -> tuple[str, int]:
    """Return the SHA-256 and the number of a video's bytes; of a directory, of its images one after the other."""
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest(), len(file)
    digest, size = hashlib.sha256(), 0
    for path in (list_frame_images(file) or []) if file.is_dir() else [file]:
        assert isinstance(path, Path)
        check_file_type(path)
        with path.open("rb") as opened:
            while block := opened.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                send_heartbeat()
    return digest.hexdigest(), size


def _decode_frames(video: VideoReader, record: ScanRecord) -> None:
    """Add the facts of the header and the frames to the record, up to a frame that does not decode (BrokenVideo)."""
    header, signature = video.metadata, VideoSignature()
    facts: ScanRecord = {"codec": header.codec, "pixels": header.pixel_format}
    facts |= {"rate": header.frame_rate, "seconds": header.duration_seconds}
    record |= {name: value for name, value in facts.items() if value}
    try:
        for frame in video.iter_timed_frames():
            image = frame.to_image()
            height, width = image.shape[:2]
            if (width, height) != (record.setdefault("width", width), record.setdefault("height", height)):
                raise BrokenVideo(video.name, f"changes its size to {width}x{height} at frame {record['frames']}")
            signature.update(image)
            record["frames"] += 1
            send_heartbeat()
    except (BrokenVideo, OSError):
        raise
    except Exception as error:  # a library may raise anything on a damaged file
        raise BrokenVideo(video.name, f"breaks after {record['frames']} frames: {format_error(error)}") from error
    finally:
        if text := signature.digest():
            record["signature"] = text
        if header.num_frames not in (None, record["frames"]):
            record["header_frames"] = header.num_frames
        if header.frame_rate and ("header_frames" in record or not header.duration_seconds):
            record["seconds"] = record["frames"] / header.frame_rate
    if not record["frames"]:
        raise BrokenVideo(video.name, "holds no frame that decodes")


def read_video_facts(row: VideoRow) -> ScanRecord:
    """Return the facts of a video whose first and last frame decode, without decoding the others.

    Raises:
        BrokenVideo: They do not decode.
        StorageUnreachable: A URL does not answer.
    """
    with VideoReader(row.source) as video:
        height, width = video.read_frames([0, video.num_frames - 1]).shape[1:3]
        facts: ScanRecord = {"frames": video.num_frames, "rate": video.frame_rate, "codec": video.metadata.codec}
        facts |= {"width": width, "height": height}
        if isinstance(video.file, bytes):
            facts["bytes"] = len(video.file)
        elif video.file.is_file():
            facts["bytes"] = video.file.stat().st_size
        return facts


@dataclass(frozen=True, kw_only=True)
class VideoPreview:
    """Some frames of a video, and their indices from 0."""

    frames: Frames
    frame_indices: list[int]
    num_frames: int
    frame_rate: float | None


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


@dataclass(frozen=True)
class VideoCounts:
    """How many videos there are of each kind."""

    frame_rate_counts: dict[str, int]  # by mean frames per second
    resolution_counts: dict[str, int]  # by `width x height`, upright
    codec_counts: dict[str, int]  # by codec, as FFmpeg calls it


class VideoStats:
    """Facts about videos; unknown facts are left out."""

    def __init__(self) -> None:
        self.frames, self.file_sizes, self._frame_rates = list[int](), list[int](), list[float]()
        self._resolutions: Counter[str] = Counter()
        self._codecs: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add a video by the entries of its `ScanRecord`; all but `frames` may be absent."""
        self.frames.append(facts["frames"])
        self._frame_rates.append(facts.get("rate") or 0)
        if "bytes" in facts:
            self.file_sizes.append(facts["bytes"])
        if facts.get("width") and facts.get("height"):
            self._resolutions[f"{facts['width']}x{facts['height']}"] += 1
        if facts.get("codec"):
            self._codecs[facts["codec"]] += 1

    @property
    def seconds(self) -> Float[np.ndarray, "n"]:
        """The duration of each video that has a frame rate."""
        frames, frame_rates = np.array(self.frames, float), np.array(self._frame_rates)
        return frames[frame_rates > 0] / frame_rates[frame_rates > 0]

    def count(self) -> VideoCounts:
        """Count the videos of each kind, the most frequent first; frame rates are rounded to three digits."""
        rates = Counter(f"{rate:.3f}".rstrip("0").rstrip(".") for rate in sorted(self._frame_rates) if rate)
        return VideoCounts(*(dict(counter.most_common()) for counter in (rates, self._resolutions, self._codecs)))


def read_manifest_stats(tables: Iterable[VideoTable]) -> VideoStats:
    """Return what lists state of all their videos that decode; nothing if the length or size of one is not stated."""
    stats = VideoStats()
    names = {"frames": "frames", "bytes": "file_size", "rate": "frame_rate", "width": "width", "height": "height"}
    for table in tables:
        decodes = np.ones(len(table), bool)
        decodes[list(table.errors)] = False
        columns = [table.column(name)[decodes].tolist() for name in names.values()]
        for *values, codec in zip(*columns, table.column("codec")[decodes].tolist(), strict=True):
            if values[0] <= 0 or values[1] <= 0:
                return VideoStats()
            stats.add(dict(zip(names, values, strict=True)) | ({"codec": table.codecs[codec]} if codec >= 0 else {}))
    return stats


def format_counts(counts: VideoCounts) -> dict[str, str]:
    """Format counts as `25 (30), 29.97 (2)`, by what they count; of many, the first."""
    names = {
        "frames per second": counts.frame_rate_counts,
        "width x height": counts.resolution_counts,
        "codec": counts.codec_counts,
    }
    return {
        name: ", ".join(list_first([f"{value} ({count:,})" for value, count in each.items()], _MAX_VALUES))
        for name, each in names.items()
    }


def format_bullets(sentences: Iterable[str], limit: int) -> list[str]:
    """Return a line for each sentence; of many, the first."""
    lines = [f"- {line}" for line in list_first(list(sentences), limit)]
    return [*lines[:limit], *(f"{line} (--json shows all)" for line in lines[limit:])]
