"""Probe."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import av.video.reformatter

from vidstill.data.decode.images import pictures_of
from vidstill.data.decode.packets import packet_table
from vidstill.data.decode.reader import read_frames
from vidstill.data.decode.stream import _all, _decoded, _opened
from vidstill.data.storage.fetch import BrokenVideo, Source, fetched, name_of


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
