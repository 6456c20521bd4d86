"""Probe."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import av.video.reformatter

from vidstill.data.decode.images import list_frame_images
from vidstill.data.decode.packets import build_packet_table
from vidstill.data.decode.reader import read_frames
from vidstill.data.decode.stream import _decode_packets, _iter_all_frames, _open_video
from vidstill.data.storage.fetch import BrokenVideo, VideoSource, fetch_source, source_name


@dataclass(frozen=True, kw_only=True)
class VideoMetadata:
    """What a file holds: its frames by count, its upright size in pixels, its mean frames per second if it has any."""

    num_frames: int
    height: int
    width: int
    frame_rate: float | None


@dataclass(frozen=True, kw_only=True)
class StreamMetadata:
    """What a file's header states, true or not: None, or nothing, where it is silent."""

    codec: str
    pixel_format: str
    num_frames: int | None
    frame_rate: float | None
    duration_seconds: float | None


def count_frames(source: VideoSource) -> int:
    """How many frames decode: by the packets where each shows one and the header does not say otherwise.

    Elsewhere the frames are decoded and counted, to the end or to the first error.

    Raises:
        BrokenVideo: not one frame can be decoded.
    """
    here, name = fetch_source(source), source_name(source)
    if (pictures := list_frame_images(here)) is not None:
        return len(pictures)
    with _open_video(here, name) as (container, stream), closing(container.demux(stream)) as packets:
        stated = stream.frames
        table = build_packet_table(container, stream, packets)
    if table is not None and stated in (0, len(table.packets)):
        return len(table.packets)
    return _count_decoded_frames(here, name)


def read_video_metadata(source: VideoSource) -> VideoMetadata:
    """What a file holds, if its first and its last frame decode.

    Raises:
        BrokenVideo: they do not.
    """
    frames = count_frames(source)
    height, width = read_frames(source, [0, frames - 1]).shape[1:3]
    return VideoMetadata(num_frames=frames, height=height, width=width, frame_rate=read_frame_rate(source))


def read_stream_metadata(source: VideoSource) -> StreamMetadata:
    """What the header states of the stream that is decoded.

    Raises:
        BrokenVideo: the file does not open.
    """
    here, name = fetch_source(source), source_name(source)
    if list_frame_images(here) is not None:
        suffix = "" if isinstance(here, bytes) else here.suffix[1:].lower()
        return StreamMetadata(
            codec=suffix or "pictures", pixel_format="", num_frames=None, frame_rate=None, duration_seconds=None
        )
    with _open_video(here, name) as (container, stream):
        codec = stream.codec_context
        length = container.duration
        return StreamMetadata(
            codec=codec.codec.canonical_name,
            pixel_format=codec.pix_fmt or "",
            num_frames=stream.frames or None,
            frame_rate=float(stream.average_rate) if stream.average_rate else None,
            duration_seconds=length / av.time_base if length else None,
        )


def read_frame_rate(source: VideoSource) -> float | None:
    """Mean frames per second as the header states them; None where it states none, and for pictures.

    Raises:
        BrokenVideo: the file does not open.
    """
    return read_stream_metadata(source).frame_rate


def read_pixel_aspect_ratio(source: VideoSource) -> float:
    """How many times as wide as high a pixel of the upright frames is to be shown; 1 where nothing is stated.

    Raises:
        BrokenVideo: the first frame does not decode.
    """
    here, name = fetch_source(source), source_name(source)
    if list_frame_images(here) is not None:
        return 1.0
    with _open_video(here, name) as (container, stream), closing(container.demux(stream)) as packets:
        stated = float(stream.codec_context.sample_aspect_ratio or stream.sample_aspect_ratio or 1)
        first = next(_decode_packets(name, packets), None)
    if first is None:
        raise BrokenVideo(f"{name} holds no frame that decodes")
    return 1 / stated if round(first.rotation / 90) % 2 else stated


def _count_decoded_frames(path_or_bytes: Path | bytes, name: str) -> int:
    n = 0
    try:
        for _ in _iter_all_frames(path_or_bytes, name):
            n += 1
    except BrokenVideo:
        if n == 0:
            raise
    if n == 0:
        raise BrokenVideo(f"{name} holds no frame that decodes")
    return n
