"""Decodes chosen frames of a video file, of a picture, or of a folder of pictures, by their number.

Frames are as they are stored, but for three things: they are turned upright by the right angles that the file states
(mirrored ones stay mirrored), they come in 8-bit RGB by the file's own colour matrix and range, and what is transparent
is shown as it is coloured. Pixels that are not square stay so (as in the papers' decoders), and fields stay interlaced.
"""

import io
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.video.reformatter
import numpy as np
from jaxtyping import UInt8

from vidstill.data.packets import PacketTable, packet_table
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


@dataclass(frozen=True, kw_only=True)
class StreamFacts:
    """What a file's header states, true or not: None, or nothing, where it is silent."""

    codec: str
    pixels: str
    frames: int | None
    rate: float | None
    seconds: float | None


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
    here, name = fetched(source), name_of(source)
    if (pictures := pictures_of(here)) is not None:
        if max(wanted) >= len(pictures):
            raise _too_short(name, len(pictures), max(wanted))
        frames, decoded = {n: read_picture(pictures[n]) for n in wanted}, len(wanted)
    else:
        frames, decoded = _read_needed(here, name, wanted) or _read_all(here, name, wanted)
    height, width = frames[indices[0]].shape[:2]
    for n, picture in frames.items():
        if picture.shape[:2] != (height, width):
            raise BrokenVideo(f"{name} changes its size to {picture.shape[1]}x{picture.shape[0]} at frame {n}")
    return np.stack([frames[n] for n in indices]), decoded


def decoded(source: Source) -> Iterator[Picture]:
    """Every frame, upright, in RGB, in the order of presentation.

    Raises:
        BrokenVideo: after the last frame that decodes, if something is wrong behind it.
    """
    here, name = fetched(source), name_of(source)
    if (pictures := pictures_of(here)) is not None:
        yield from map(read_picture, pictures)
        return
    upright = _Upright()
    for frame in _decoded(here, name):
        yield upright(frame)


def count_frames(source: Source) -> int:
    """How many frames decode: by the packets where each shows one and the header does not say otherwise.

    Elsewhere the frames are decoded and counted, to the end or to the first error.

    Raises:
        BrokenVideo: not one frame can be decoded.
    """
    here, name = fetched(source), name_of(source)
    if (pictures := pictures_of(here)) is not None:
        return len(pictures)
    with _opened(here, name) as (container, stream):
        stated = stream.frames
        table = packet_table(container, stream)
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


class _Upright:
    """Frames as arrays; one for all of a file's frames: it keeps the tables of the conversion."""

    def __init__(self) -> None:
        self._convert = av.video.reformatter.VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Picture:
        rgb = self._convert.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)  # not copied: they are, into the clip
        picture = rows[: rgb.height, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
        return np.rot90(picture, round(frame.rotation / 90))  # both count counter-clockwise


def _read_needed(here: Path | bytes, name: str, wanted: set[int]) -> tuple[dict[int, Picture], int] | None:
    """The wanted frames from as few packets as give them; None where a full decode alone is certain to be right."""
    with _opened(here, name) as (container, stream):
        table = packet_table(container, stream, max(wanted))
        if table is None or max(wanted) >= len(table.looks):
            return None
        runs = table.runs(wanted)
        if table.kept is None:
            packets = _again(here, name, {place for run in runs for place in run})
        else:
            packets = ((place, table.kept[place]) for run in runs for place in run)
        frames: dict[int, Picture] = {}
        upright = _Upright()
        try:
            shown = _shown(stream.codec_context, table, runs, packets, wanted)
            for count, (number, frame) in enumerate(shown, 1):
                if number in wanted:
                    frames[number] = upright(frame)
                    if len(frames) == len(wanted):
                        return frames, count
        except (av.FFmpegError, _Unexpected):
            pass
    return None


class _Unexpected(Exception):
    """A decoder gave another frame than the packets said."""


def _shown(
    decoder: Any, table: PacketTable, runs: list[list[int]], packets: Iterator[tuple[int, Any]], wanted: set[int]
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
                packet = next(packets)[1]
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


def _again(here: Path | bytes, name: str, places: Collection[int]) -> Iterator[tuple[int, Any]]:
    """The packets at these places, from a second reading."""
    with _opened(here, name) as (container, stream):
        for place, packet in enumerate(container.demux(stream)):
            if place in places:
                yield place, packet
            if place >= max(places):
                return


def _read_all(here: Path | bytes, name: str, wanted: Collection[int]) -> tuple[dict[int, Picture], int]:
    """The wanted frames of a decode from the beginning."""
    frames, upright, n, last = {}, _Upright(), -1, max(wanted)
    for n, frame in enumerate(_decoded(here, name)):
        if n in wanted:
            frames[n] = upright(frame)
        if n == last:
            return frames, n + 1
    raise _too_short(name, n + 1, last)


def _count_decoded(here: Path | bytes, name: str) -> int:
    n = 0
    try:
        for _ in _decoded(here, name):
            n += 1
    except BrokenVideo:
        if n == 0:
            raise
    if n == 0:
        raise BrokenVideo(f"{name} holds no frame that decodes")
    return n


def _too_short(name: str, frames: int, asked: int) -> BrokenVideo:
    return BrokenVideo(f"{name} ends early: {frames} frames decode and frame {asked} (from 0) was asked for")


@contextmanager
def _opened(here: Path | bytes, name: str) -> Iterator[tuple[Any, Any]]:
    """The container and its best video stream, closed at the end; FFmpeg's errors become ours."""
    try:
        # with "file:" no name is taken for an address, such as concat:… or http:…
        with av.open(io.BytesIO(here) if isinstance(here, bytes) else f"file:{here}") as container:
            stream = container.streams.best("video")
            if stream is None:
                raise BrokenVideo(f"{name} has no video stream")
            stream.codec_context.thread_count = 1  # the workers are what runs side by side
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise BrokenVideo(f"{name} does not decode: {reason(error)}") from error


def _decoded(here: Path | bytes, name: str) -> Iterator[av.VideoFrame]:
    """Every frame in the order of presentation."""
    n = 0
    with _opened(here, name) as (container, stream):
        try:
            for frame in container.decode(stream):
                yield frame
                n += 1
        except av.FFmpegError as error:
            raise BrokenVideo(f"{name} breaks after {n} frames: {reason(error)}") from error
