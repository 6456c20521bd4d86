"""Stream."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import av.video.reformatter
import numpy as np

from vidstill.data.decode.images import ImageArray, list_frame_images, read_image
from vidstill.data.storage.fetch import BrokenVideo, VideoSource, fetch_source, format_error, source_name

VIDEO_EXTENSIONS = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"}
    | {".webm", ".wmv"}
)


DEFAULT_FRAME_RATE = 25.0


_MAX_PIXELS = 2**25  # of a frame: those of 8K; damaged headers state more, which would fill the memory


_DECODER_OPTIONS = {"max_pixels": str(_MAX_PIXELS)}


@dataclass(frozen=True)
class TimedFrame:
    """A frame as it comes: its picture, upright, in RGB, is made when it is asked for.

    Args:
        pts_seconds: from the video's first frame to this one.
        duration_seconds: seconds that a frame is shown for, as the header states the rate.
    """

    pts_seconds: float
    duration_seconds: float
    to_image: Callable[[], ImageArray]


def iter_frames(source: VideoSource) -> Iterator[ImageArray]:
    """Every frame, upright, in RGB, in the order of presentation.

    Raises:
        BrokenVideo: after the last frame that decodes, if something is wrong behind it.
    """
    for shown in iter_timed_frames(source):
        yield shown.to_image()


def iter_timed_frames(source: VideoSource, *, default_frame_rate: float | None = None) -> Iterator[TimedFrame]:
    """Every frame in the order of presentation, with the time at which it is shown.

    A frame without a time stamp, or with one that does not follow the last one's, comes when the last one ends.

    Args:
        default_frame_rate: frames per second, where the file states none; None: those of `DEFAULT_FRAME_RATE`.

    Raises:
        BrokenVideo: after the last frame that decodes, if something is wrong behind it.
    """
    here, name = fetch_source(source), source_name(source)
    if (pictures := list_frame_images(here)) is not None:
        lasts = 1 / (default_frame_rate or DEFAULT_FRAME_RATE)
        for n, picture in enumerate(pictures):
            yield TimedFrame(n * lasts, lasts, partial(read_image, picture))
        return
    with _open_video(here, name) as (container, stream), closing(container.demux(stream)) as packets:
        upright, lasts = (
            _FrameConverter(),
            1 / (float(stream.average_rate or 0) or default_frame_rate or DEFAULT_FRAME_RATE),
        )
        first, latest = None, -lasts
        for frame in _decode_packets(name, packets):
            following = latest + lasts
            if first is None and frame.time is not None:
                first = frame.time - following
            since = following if frame.time is None or first is None else frame.time - first
            latest = since if since > latest else following
            yield TimedFrame(latest, lasts, partial(_copy_image, upright, frame))


class _FrameConverter:
    """Frames as arrays, which live until the next one; one for all of a file's: it keeps the conversion's tables."""

    def __init__(self) -> None:
        self._reformatter = av.video.reformatter.VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> ImageArray:
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        picture = rows[: rgb.height, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
        return np.rot90(picture, round(frame.rotation / 90))  # both count counter-clockwise


def _copy_image(converter: _FrameConverter, frame: av.VideoFrame) -> ImageArray:
    return converter(frame).copy()


@contextmanager
def _open_video(path_or_bytes: Path | bytes, name: str) -> Iterator[tuple[Any, Any]]:
    """The container and its best video stream, closed at the end; FFmpeg's errors become ours."""
    try:
        # with "file:" no name is taken for an address, such as concat:… or http:…
        file = io.BytesIO(path_or_bytes) if isinstance(path_or_bytes, bytes) else f"file:{path_or_bytes}"
        # titles are often in other letters than UTF-8's
        with av.open(file, options=_DECODER_OPTIONS, metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            if stream is None:
                raise BrokenVideo(f"{name} has no video stream")
            if stream.codec_context is None:
                raise BrokenVideo(f"{name} is coded in a way that FFmpeg does not know")
            codec: Any = stream.codec_context
            if codec.width * codec.height > _MAX_PIXELS:
                raise BrokenVideo(
                    f"{name} states frames of {codec.width}x{codec.height}: more than {_MAX_PIXELS} pixels"
                )
            codec.options = _DECODER_OPTIONS  # nor may they grow to that
            if codec.codec.name == "libdav1d":
                codec.extradata = None  # opens by the largest size that it allows, and takes nothing else from there
            codec.thread_count = 1  # the workers are what runs side by side
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise BrokenVideo(f"{name} does not decode: {format_error(error)}") from error
    except IndexError as error:  # PyAV's, for a packet of a stream that the file's head does not have
        raise BrokenVideo(f"{name} does not decode: it has packets of no stream") from error


def _iter_all_frames(path_or_bytes: Path | bytes, name: str) -> Iterator[av.VideoFrame]:
    """Every frame in the order of presentation."""
    with _open_video(path_or_bytes, name) as (container, stream), closing(container.demux(stream)) as packets:
        yield from _decode_packets(name, packets)


def _decode_packets(name: str, packets: Iterable[Any]) -> Iterator[av.VideoFrame]:
    """Every frame that a stream's packets show, in the order of presentation."""
    n = 0
    try:
        for packet in packets:
            for frame in packet.decode():
                yield frame
                n += 1
    except av.FFmpegError as error:
        raise BrokenVideo(f"{name} breaks after {n} frames: {format_error(error)}") from error
