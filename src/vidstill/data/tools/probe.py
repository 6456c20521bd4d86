"""Decodes one video whole: what it is, how many frames it really has, what it looks like, and what is wrong with it."""

import hashlib
import stat
from pathlib import Path
from typing import Any

from vidstill.data.decode.images import list_frame_images
from vidstill.data.decode.reader import iter_frames, read_stream_metadata
from vidstill.data.storage.fetch import BrokenVideo, ShardMember, VideoSource, fetch_source, format_error, source_name
from vidstill.data.tools.near_duplicates import VideoSignature
from vidstill.parallel.heartbeat import send_heartbeat

_BLOCK_BYTES = 2**20  # bytes that are read at a time

ScanRecord = dict[str, Any]
"""What a list in JSON lines states of a video, but for its place and its class; what is not known is left out.

`frames` (that decode), `rate` (per second), `bytes`, `width` and `height` (upright), `codec`, `gather_pixels` (their format),
`sum_step_seconds`, `stated` (frames in the header, where these are others), `modified` (the file's time, in nanoseconds),
`sha256` (of the bytes), `looks` (a `VideoSignature`), `wrong`.
"""

SCAN_FIELDS = (
    *("frames", "rate", "bytes", "width", "height", "codec", "pixels", "seconds", "stated", "modified"),
    *("sha256", "looks", "wrong"),
)
"""In this order."""


def scan_video(source: VideoSource) -> ScanRecord:
    """What there is of a video; where it is broken, of its good frames.

    Raises:
        Unreachable: its place does not answer.
    """
    found = init_scan_record(source)
    try:
        here = fetch_source(source)
        found["sha256"], found["bytes"] = _hash_source(here)
        _decode_frames(here, found)
    except BrokenVideo as error:
        found["wrong"] = error.reason
    except OSError as error:
        found["wrong"] = f"cannot be read: {format_error(error)}"
    return found


def init_scan_record(source: VideoSource) -> ScanRecord:
    """What there is of a video that was not decoded."""
    size, modified = stat_source(source) or (source.size if isinstance(source, ShardMember) else 0, None)
    return {"frames": 0, "bytes": size} | ({} if modified is None else {"modified": modified})


def stat_source(source: VideoSource) -> tuple[int, int | None] | None:
    """A file's size in bytes and its time, by which it is known again; a folder's size is not looked up.

    No time for what is not there, None for what lies behind an address.
    """
    place = source.shard if isinstance(source, ShardMember) else source
    if not isinstance(place, Path):
        return None
    try:
        of = place.stat()
    except OSError:
        return 0, None
    size = source.size if isinstance(source, ShardMember) else 0 if stat.S_ISDIR(of.st_mode) else of.st_size
    return size, of.st_mtime_ns


def _hash_source(here: Path | bytes) -> tuple[str, int]:
    """The SHA-256 of a video's bytes, and how many there are; of a folder's pictures, one after the other."""
    if isinstance(here, bytes):
        return hashlib.sha256(here).hexdigest(), len(here)
    files = list_frame_images(here) if here.is_dir() else [here]
    digest, size = hashlib.sha256(), 0
    for path in files or []:
        assert isinstance(path, Path)
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                send_heartbeat()
    return digest.hexdigest(), size


def _decode_frames(here: Path | bytes, found: ScanRecord) -> None:
    """Adds what the header states and what the frames show, up to the last good one.

    Raises:
        BrokenVideo: something is wrong behind it.
    """
    header = read_stream_metadata(here)
    _update_record(
        found, codec=header.codec, pixels=header.pixel_format, rate=header.frame_rate, seconds=header.duration_seconds
    )
    sketch, name = VideoSignature(), source_name(here)
    try:
        for picture in iter_frames(here):
            height, width = picture.shape[:2]
            if (width, height) != (found.setdefault("width", width), found.setdefault("height", height)):
                raise BrokenVideo(name, f"changes its size to {width}x{height} at frame {found['frames']}")
            sketch.update(picture)
            found["frames"] += 1
            send_heartbeat()
    except (BrokenVideo, OSError):
        raise
    except Exception as error:  # whatever else a library does with a damaged file is that file's fault
        raise BrokenVideo(name, f"breaks after {found['frames']} frames: {format_error(error)}") from error
    finally:
        _update_record(found, looks=sketch.digest())
        if header.num_frames not in (None, found["frames"]):
            found["stated"] = header.num_frames
        if header.frame_rate and ("stated" in found or not header.duration_seconds):
            found["seconds"] = found["frames"] / header.frame_rate
    if not found["frames"]:
        raise BrokenVideo(name, "holds no frame that decodes")


def _update_record(found: ScanRecord, **facts: str | float | None) -> None:
    found |= {key: value for key, value in facts.items() if value}
