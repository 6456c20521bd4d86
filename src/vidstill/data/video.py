"""Decodes chosen frames of a video file, of a picture, or of a folder of pictures, by their number."""

import io
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import av
import av.video.reformatter
import numpy as np
from jaxtyping import UInt8

from vidstill.data.pictures import Picture, pictures_of, read_picture
from vidstill.data.sources import BrokenVideo, Source, fetched, name_of, reason
from vidstill.types import InputError

VIDEOS = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"}
    | {".webm", ".wmv"}
)
"""Suffixes by which a folder's videos are found; a list may name any file that FFmpeg reads."""

Frames = UInt8[np.ndarray, "t h w 3"]


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What a file holds: its frames by count, its upright size in pixels, its mean frames per second if it has any."""

    frames: int
    height: int
    width: int
    rate: float | None


def read_frames(source: Source, indices: Sequence[int]) -> Frames:
    """The frames with these numbers, upright, in RGB; numbers count from 0 in the order of presentation.

    Numbers may repeat and come in any order. Decoding begins at the first frame and stops after the last that is
    wanted, so that what comes out is what a full decode gives, whatever the key frames and time stamps are.

    Raises:
        BrokenVideo: the file does not decode up to the last wanted frame.
    """
    wanted = set(indices)
    if not wanted or min(wanted) < 0:
        raise InputError(f"frames are numbered from 0 and at least one is to be read, not {sorted(wanted)[:3]}")
    frames: dict[int, Picture] = {}
    here = fetched(source)
    if (pictures := pictures_of(here)) is not None:
        if max(wanted) >= len(pictures):
            raise _too_short(source, len(pictures), max(wanted))
        frames = {n: read_picture(pictures[n]) for n in wanted}
    else:
        convert = av.video.reformatter.VideoReformatter()  # one for all frames: it keeps its tables
        n, last = -1, max(wanted)
        with closing(_decoded(source)) as decoded:
            for n, frame in enumerate(decoded):
                if n in wanted:
                    rgb = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
                    frames[n] = np.rot90(rgb, round(frame.rotation / 90))  # both count counter-clockwise
                if n == last:
                    break
        if n < last:
            raise _too_short(source, n + 1, last)
    height, width = frames[indices[0]].shape[:2]
    for n, picture in frames.items():
        if picture.shape[:2] != (height, width):
            raise BrokenVideo(
                f"{name_of(source)} changes its size to {picture.shape[1]}x{picture.shape[0]} at frame {n}"
            )
    return np.stack([frames[n] for n in indices])


def count_frames(source: Source) -> int:
    """How many frames decode, counted by the packets that hold one; headers are only asked whether they agree.

    Where the header states another number than there are packets, the frames are decoded and counted, to the end or to
    the first error.

    Raises:
        BrokenVideo: not one frame can be decoded.
    """
    here = fetched(source)
    if (pictures := pictures_of(here)) is not None:
        return len(pictures)
    with _opened(source) as (container, stream):
        packets = sum(bool(p.size) and not p.is_discard for p in container.demux(stream))  # the last one is empty
        stated = stream.frames
    if not packets or (stated and stated != packets):
        return _count_decoded(source)
    return packets


def describe(source: Source) -> VideoFacts:
    """What a file holds, if it decodes from its first frame to its last.

    Raises:
        BrokenVideo: it does not.
    """
    frames = count_frames(source)
    height, width = read_frames(source, [0, frames - 1]).shape[1:3]
    return VideoFacts(frames=frames, height=height, width=width, rate=frame_rate(source))


def frame_rate(source: Source) -> float | None:
    """Mean frames per second as the header states them; None where it states none, and for pictures.

    Raises:
        BrokenVideo: the file does not open.
    """
    here = fetched(source)
    if pictures_of(here) is not None:
        return None
    with _opened(source) as (_, stream):
        return float(stream.average_rate) if stream.average_rate else None


def _count_decoded(source: Source) -> int:
    n = 0
    try:
        for _ in _decoded(source):
            n += 1
    except BrokenVideo:
        if n == 0:
            raise
    if n == 0:
        raise BrokenVideo(f"{name_of(source)} holds no frame that decodes")
    return n


def _too_short(source: Source, frames: int, asked: int) -> BrokenVideo:
    return BrokenVideo(f"{name_of(source)} ends early: {frames} frames decode and frame {asked} (from 0) was asked for")


@contextmanager
def _opened(source: Source) -> Iterator[tuple[Any, Any]]:
    """The container and its best video stream, closed at the end; FFmpeg's errors become ours."""
    here = fetched(source)
    try:
        # with "file:" no name is taken for an address, such as concat:… or http:…
        with av.open(io.BytesIO(here) if isinstance(here, bytes) else f"file:{here}") as container:
            stream = container.streams.best("video")
            if stream is None:
                raise BrokenVideo(f"{name_of(source)} has no video stream")
            stream.codec_context.thread_count = 1  # the workers are what runs side by side
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise BrokenVideo(f"{name_of(source)} does not decode: {reason(error)}") from error


def _decoded(source: Source) -> Generator[av.VideoFrame, None, None]:
    """Every frame in the order of presentation."""
    n = 0
    with _opened(source) as (container, stream):
        try:
            for frame in container.decode(stream):
                yield frame
                n += 1
        except av.FFmpegError as error:
            raise BrokenVideo(f"{name_of(source)} breaks after {n} frames: {reason(error)}") from error
