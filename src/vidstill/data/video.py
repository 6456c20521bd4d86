"""Decodes chosen frames of a video file, of a picture, or of a folder of pictures, by their number.

Frames are as they are stored, but for three things: they are turned upright by the right angles that the file states
(mirrored ones stay mirrored), they come in 8-bit RGB by the file's own colour matrix and range, and what is transparent
is shown as it is coloured. Pixels that are not square stay so (as in the papers' decoders), and fields stay interlaced.
"""

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import av.video.reformatter
import numpy as np
from jaxtyping import UInt8

from vidstill.data.packets import Held, PacketTable, packet_table
from vidstill.data.pictures import Picture, pictures_of, read_picture
from vidstill.data.sources import BrokenVideo, Source, fetched, name_of, reason
from vidstill.types import InputError

VIDEOS = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts"}
    | {".webm", ".wmv"}
)
"""Suffixes by which a folder's videos are found; a list may name any file that FFmpeg reads."""

USUAL_RATE = 25.0
"""Frames per second of what states none: folders of pictures, and files whose header is silent."""

_MOST_PIXELS = 2**25  # of a frame: those of 8K; damaged headers state more, which would fill the memory

_LIMITS = {"max_pixels": str(_MOST_PIXELS)}

_STRICT = {"err_detect": "explode"}  # a damaged picture is an error, and not filled with what the decoder holds

Frames = UInt8[np.ndarray, "t h w 3"]


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """What a file holds: its frames by count, its upright size in pixels, its mean frames per second if it has any."""

    frames: int
    height: int
    width: int
    rate: float | None


@dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """What a file's header states, true or not: None, or nothing, where it is silent."""

    codec: str
    pixels: str
    frames: int | None
    rate: float | None
    seconds: float | None


@dataclass(frozen=True)
class Shown:
    """A frame as it comes: its picture, upright, in RGB, is made when it is asked for.

    Args:
        seconds: from the video's first frame to this one.
        lasts: seconds that a frame is shown for, as the header states the rate.
    """

    seconds: float
    lasts: float
    picture: Callable[[], Picture]


def read_frames(source: Source, indices: Sequence[int]) -> Frames:
    """The frames with these numbers, upright, in RGB; numbers count from 0 in the order of presentation.

    Numbers may repeat and come in any order. Decoding begins at the last place before them from which their pixels are
    those of a full decode, leaves out what no wanted frame depends on, and stops after the last; where a file does not
    show beforehand which packet is which frame, all is decoded up to the last.

    Raises:
        BrokenVideo: the file does not decode up to the last wanted frame.
    """
    return read_counted(source, indices)[0]


def read_counted(source: Source, indices: Sequence[int]) -> tuple[Frames, int]:
    """As `read_frames`, with the number of frames that were decoded for it."""
    wanted = set(indices)
    if not wanted or min(wanted) < 0:
        raise InputError(f"frames are numbered from 0 and at least one is to be read, not {sorted(wanted)[:3]}")
    here, clip = fetched(source), _Clip(name_of(source), indices)
    if (pictures := pictures_of(here)) is None:
        return _read(here, clip)
    if max(wanted) >= len(pictures):
        raise clip.too_short(len(pictures))
    for n in wanted:
        clip.put(n, read_picture(pictures[n]))
    return clip.frames, len(wanted)


def decoded(source: Source) -> Iterator[Picture]:
    """Every frame, upright, in RGB, in the order of presentation.

    Raises:
        BrokenVideo: after the last frame that decodes, if something is wrong behind it.
    """
    for shown in timed(source):
        yield shown.picture()


def timed(source: Source, *, rate: float | None = None) -> Iterator[Shown]:
    """Every frame in the order of presentation, with the time at which it is shown.

    A frame without a time stamp, or with one that does not follow the last one's, comes when the last one ends.

    Args:
        rate: frames per second, where the file states none; None: those of `USUAL_RATE`.

    Raises:
        BrokenVideo: after the last frame that decodes, if something is wrong behind it.
    """
    here, name = fetched(source), name_of(source)
    if (pictures := pictures_of(here)) is not None:
        lasts = 1 / (rate or USUAL_RATE)
        for n, picture in enumerate(pictures):
            yield Shown(n * lasts, lasts, partial(read_picture, picture))
        return
    with _opened(here, name) as (container, stream), closing(container.demux(stream)) as packets:
        upright, lasts = _Upright(), 1 / (float(stream.average_rate or 0) or rate or USUAL_RATE)
        first, latest = None, -lasts
        for frame in _decoded(name, packets):
            following = latest + lasts
            if first is None and frame.time is not None:
                first = frame.time - following
            since = following if frame.time is None or first is None else frame.time - first
            latest = since if since > latest else following
            yield Shown(latest, lasts, partial(_copied, upright, frame))


def count_frames(source: Source) -> int:
    """How many frames decode: by the packets where each shows one and the header does not say otherwise.

    Elsewhere the frames are decoded and counted, to the end or to the first error.

    Raises:
        BrokenVideo: not one frame can be decoded.
    """
    here, name = fetched(source), name_of(source)
    if (pictures := pictures_of(here)) is not None:
        return len(pictures)
    with _opened(here, name) as (container, stream), closing(container.demux(stream)) as packets:
        stated = stream.frames
        table = packet_table(container, stream, packets)
    if table is not None and stated in (0, len(table.looks)):
        return len(table.looks)
    return _count_decoded(here, name)


def describe(source: Source) -> VideoFacts:
    """What a file holds, if its first and its last frame decode.

    Raises:
        BrokenVideo: they do not.
    """
    frames = count_frames(source)
    height, width = read_frames(source, [0, frames - 1]).shape[1:3]
    return VideoFacts(frames=frames, height=height, width=width, rate=frame_rate(source))


def facts(source: Source) -> StreamFacts:
    """What the header states of the stream that is decoded.

    Raises:
        BrokenVideo: the file does not open.
    """
    here, name = fetched(source), name_of(source)
    if pictures_of(here) is not None:
        suffix = "" if isinstance(here, bytes) else here.suffix[1:].lower()
        return StreamFacts(codec=suffix or "pictures", pixels="", frames=None, rate=None, seconds=None)
    with _opened(here, name) as (container, stream):
        codec = stream.codec_context
        length = container.duration
        return StreamFacts(
            codec=codec.codec.canonical_name,
            pixels=codec.pix_fmt or "",
            frames=stream.frames or None,
            rate=float(stream.average_rate) if stream.average_rate else None,
            seconds=length / av.time_base if length else None,
        )


def frame_rate(source: Source) -> float | None:
    """Mean frames per second as the header states them; None where it states none, and for pictures.

    Raises:
        BrokenVideo: the file does not open.
    """
    return facts(source).rate


def pixel_aspect(source: Source) -> float:
    """How many times as wide as high a pixel of the upright frames is to be shown; 1 where nothing is stated.

    Raises:
        BrokenVideo: the first frame does not decode.
    """
    here, name = fetched(source), name_of(source)
    if pictures_of(here) is not None:
        return 1.0
    with _opened(here, name) as (container, stream), closing(container.demux(stream)) as packets:
        stated = float(stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio or 1)
        first = next(_decoded(name, packets), None)
    if first is None:
        raise BrokenVideo(f"{name} holds no frame that decodes")
    return 1 / stated if round(first.rotation / 90) % 2 else stated


class _Upright:
    """Frames as arrays, which live until the next one; one for all of a file's: it keeps the conversion's tables."""

    def __init__(self) -> None:
        self._convert = av.video.reformatter.VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Picture:
        rgb = self._convert.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        picture = rows[: rgb.height, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
        return np.rot90(picture, round(frame.rotation / 90))  # both count counter-clockwise


def _copied(upright: _Upright, frame: av.VideoFrame) -> Picture:
    return upright(frame).copy()


class _Clip:
    """The frames that were asked for, filled as they come."""

    def __init__(self, name: str, indices: Sequence[int]):
        self.name, self.indices = name, indices
        self.missing = set(indices)
        self._frames: Frames | None = None

    @property
    def frames(self) -> Frames:
        assert self._frames is not None
        return self._frames

    def put(self, number: int, picture: Picture) -> None:
        """
        Raises:
            BrokenVideo: it has another size than those before.
        """
        if self._frames is None:
            self._frames = np.empty((len(self.indices), *picture.shape), np.uint8)
        if self._frames.shape[1:] != picture.shape:
            height, width, _ = picture.shape
            raise BrokenVideo(f"{self.name} changes its size to {width}x{height} at frame {number} or before")
        for place, index in enumerate(self.indices):
            if index == number:
                self._frames[place] = picture
        self.missing.discard(number)

    def too_short(self, frames: int) -> BrokenVideo:
        asked = max(self.indices)
        return BrokenVideo(f"{self.name} ends early: {frames} frames decode and frame {asked} (from 0) was asked for")


def _read(here: Path | bytes, clip: _Clip) -> tuple[Frames, int]:
    """The clip's frames from as few packets as give them, or, where that is not certain to be right, from all."""
    wanted = set(clip.indices)
    with _opened(here, clip.name) as (container, stream), Held(container, stream) as held:
        table = packet_table(container, stream, held, max(wanted))
        if table is not None and max(wanted) < len(table.looks):
            runs = table.runs(wanted)
            if held.packets is None:
                packets = _again(here, clip.name, {place for run in runs for place in run})
            else:
                packets = (held.packets[place] for run in runs for place in run)
            found = _Clip(clip.name, clip.indices)
            if not any(table.looks[run[0]].amid for run in runs):
                stream.codec_context.options = _LIMITS | _STRICT
            try:
                return _filled(found, _shown(stream.codec_context, table, runs, packets, wanted))
            except (av.FFmpegError, _Unexpected):
                pass
        elif held.packets is not None:
            return _filled(clip, enumerate(_decoded(clip.name, held.again())))
    return _filled(clip, enumerate(_all(here, clip.name)))


def _filled(clip: _Clip, numbered: Iterable[tuple[int, av.VideoFrame]]) -> tuple[Frames, int]:
    """The clip's frames, out of numbered ones, and how many of these it took."""
    upright, count = _Upright(), 0
    for count, (number, frame) in enumerate(numbered, 1):
        if number in clip.missing:
            clip.put(number, upright(frame))
            if not clip.missing:
                return clip.frames, count
    raise clip.too_short(count)


class _Unexpected(Exception):
    """A decoder gave another frame than the packets said."""


def _shown(
    decoder: Any, table: PacketTable, runs: list[list[int]], packets: Iterator[Any], wanted: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames that the runs' packets show, each with its number, which passes the decoder as a time stamp.

    Raises:
        _Unexpected: what comes out is not what the packets are said to show.
    """
    for run in runs:
        first, latest = table.numbers[run[0]], -1
        missing = {table.numbers[place] for place in run} & wanted
        for place in [*run, None]:
            if place is not None:
                packet = next(packets)
                packet.pts = table.numbers[place]
            elif missing:
                packet = None  # the decoder gives what it holds back
            else:
                break
            try:
                frames = decoder.decode(packet)
            except av.FFmpegError:
                if place is not None and table.numbers[place] < first:
                    continue  # shown before decoding could begin: what it is predicted from is missing
                raise
            for frame in frames:
                if frame.pts is None or frame.pts <= latest or (frame.is_corrupt and frame.pts >= first):
                    raise _Unexpected
                latest = frame.pts
                missing.discard(latest)
                yield latest, frame
        else:
            decoder.flush_buffers()  # it has ended, and begins anew
        if missing:
            raise _Unexpected


def _again(here: Path | bytes, name: str, places: Collection[int]) -> Iterator[Any]:
    """The packets at these places, from a second reading."""
    with _opened(here, name) as (container, stream), closing(container.demux(stream)) as packets:
        for place, packet in enumerate(packets):
            if place in places:
                yield packet
            if place >= max(places):
                return


def _count_decoded(here: Path | bytes, name: str) -> int:
    n = 0
    try:
        for _ in _all(here, name):
            n += 1
    except BrokenVideo:
        if n == 0:
            raise
    if n == 0:
        raise BrokenVideo(f"{name} holds no frame that decodes")
    return n


@contextmanager
def _opened(here: Path | bytes, name: str) -> Iterator[tuple[Any, Any]]:
    """The container and its best video stream, closed at the end; FFmpeg's errors become ours."""
    try:
        # with "file:" no name is taken for an address, such as concat:… or http:…
        file = io.BytesIO(here) if isinstance(here, bytes) else f"file:{here}"
        # titles are often in other letters than UTF-8's
        with av.open(file, options=_LIMITS, metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            if stream is None:
                raise BrokenVideo(f"{name} has no video stream")
            if stream.codec_context is None:
                raise BrokenVideo(f"{name} is coded in a way that FFmpeg does not know")
            codec: Any = stream.codec_context
            if codec.width * codec.height > _MOST_PIXELS:
                raise BrokenVideo(
                    f"{name} states frames of {codec.width}x{codec.height}: more than {_MOST_PIXELS} pixels"
                )
            codec.options = _LIMITS  # nor may they grow to that
            if codec.codec.name == "libdav1d":
                codec.extradata = None  # opens by the largest size that it allows, and takes nothing else from there
            codec.thread_count = 1  # the workers are what runs side by side
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise BrokenVideo(f"{name} does not decode: {reason(error)}") from error
    except IndexError as error:  # PyAV's, for a packet of a stream that the file's head does not have
        raise BrokenVideo(f"{name} does not decode: it has packets of no stream") from error


def _all(here: Path | bytes, name: str) -> Iterator[av.VideoFrame]:
    """Every frame in the order of presentation."""
    with _opened(here, name) as (container, stream), closing(container.demux(stream)) as packets:
        yield from _decoded(name, packets)


def _decoded(name: str, packets: Iterable[Any]) -> Iterator[av.VideoFrame]:
    """Every frame that a stream's packets show, in the order of presentation."""
    n = 0
    try:
        for packet in packets:
            for frame in packet.decode():
                yield frame
                n += 1
    except av.FFmpegError as error:
        raise BrokenVideo(f"{name} breaks after {n} frames: {reason(error)}") from error
