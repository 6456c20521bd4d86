"""Decodes chosen frames of a video file, of a picture, or of a folder of pictures, by their number.

Frames are as they are stored, but for three things: they are turned upright by the right angles that the file states
(mirrored ones stay mirrored), they come in 8-bit RGB by the file's own colour matrix and range, and what is transparent
is shown as it is coloured. Pixels that are not square stay so (as in the papers' decoders), and fields stay interlaced.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import av.video.reformatter
import numpy as np
from jaxtyping import UInt8

from vidstill.data.decode.images import ImageArray, list_frame_images, read_image
from vidstill.data.decode.packets import PacketBuffer, PacketTable, build_packet_table
from vidstill.data.decode.stream import (
    _DECODER_OPTIONS,
    _decode_packets,
    _FrameConverter,
    _iter_all_frames,
    _open_video,
)
from vidstill.data.storage.fetch import BrokenVideo, VideoSource, fetch_source, source_name
from vidstill.utils.types import InputError

"""Suffixes by which a folder's videos are found; a list may name any file that FFmpeg reads."""

"""Frames per second of what states none: folders of pictures, and files whose header is silent."""


_STRICT_OPTIONS = {"err_detect": "explode"}  # a damaged picture is an error, and not filled with what the decoder holds

Frames = UInt8[np.ndarray, "t h w 3"]


def read_frames(source: VideoSource, indices: Sequence[int]) -> Frames:
    """The frames with these numbers, upright, in RGB; numbers count from 0 in the order of presentation.

    Numbers may repeat and come in any order. Decoding begins at the last place before them from which their pixels are
    those of a full decode, leaves out what no wanted frame depends on, and stops after the last; where a file does not
    show beforehand which packet is which frame, all is decoded up to the last.

    Raises:
        BrokenVideo: the file does not decode up to the last wanted frame.
    """
    return read_frames_with_count(source, indices)[0]


def read_frames_with_count(source: VideoSource, indices: Sequence[int]) -> tuple[Frames, int]:
    """As `read_frames`, with the number of frames that were decoded for it."""
    wanted = set(indices)
    if not wanted or min(wanted) < 0:
        raise InputError(f"frames are numbered from 0 and at least one is to be read, not {sorted(wanted)[:3]}")
    here, clip = fetch_source(source), _FrameBuffer(source_name(source), indices)
    if (pictures := list_frame_images(here)) is None:
        return _decode_selected_packets(here, clip)
    if max(wanted) >= len(pictures):
        raise clip.make_too_short_error(len(pictures))
    for n in wanted:
        clip.write_frame(n, read_image(pictures[n]))
    return clip.frames, len(wanted)


class _FrameBuffer:
    """The frames that were asked for, filled as they come."""

    def __init__(self, name: str, indices: Sequence[int]):
        self.name, self.indices = name, indices
        self.pending_indices = set(indices)
        self._frames: Frames | None = None

    @property
    def frames(self) -> Frames:
        assert self._frames is not None
        return self._frames

    def write_frame(self, frame_index: int, image: ImageArray) -> None:
        """
        Raises:
            BrokenVideo: it has another size than those before.
        """
        if self._frames is None:
            self._frames = np.empty((len(self.indices), *image.shape), np.uint8)
        if self._frames.shape[1:] != image.shape:
            height, width, _ = image.shape
            raise BrokenVideo(f"{self.name} changes its size to {width}x{height} at frame {frame_index} or before")
        for place, index in enumerate(self.indices):
            if index == frame_index:
                self._frames[place] = image
        self.pending_indices.discard(frame_index)

    def make_too_short_error(self, num_frames: int) -> BrokenVideo:
        asked = max(self.indices)
        return BrokenVideo(
            f"{self.name} ends early: {num_frames} frames decode and frame {asked} (from 0) was asked for"
        )


def _decode_selected_packets(path_or_bytes: Path | bytes, buffer: _FrameBuffer) -> tuple[Frames, int]:
    """The clip's frames from as few packets as give them, or, where that is not certain to be right, from all."""
    wanted = set(buffer.indices)
    with _open_video(path_or_bytes, buffer.name) as (container, stream), PacketBuffer(container, stream) as held:
        table = build_packet_table(container, stream, held, max(wanted))
        if table is not None and max(wanted) < len(table.packets):
            runs = table.find_decode_runs(wanted)
            if held.packets is None:
                packets = _reread_packets(path_or_bytes, buffer.name, {place for run in runs for place in run})
            else:
                packets = (held.packets[place] for run in runs for place in run)
            found = _FrameBuffer(buffer.name, buffer.indices)
            if not any(table.packets[run[0]].is_open_gop for run in runs):
                stream.codec_context.options = _DECODER_OPTIONS | _STRICT_OPTIONS
            try:
                return _fill_buffer(found, _decode_runs(stream.codec_context, table, runs, packets, wanted))
            except (av.FFmpegError, _UnexpectedFrame):
                pass
        elif held.packets is not None:
            return _fill_buffer(buffer, enumerate(_decode_packets(buffer.name, held.replay_packets())))
    return _fill_buffer(buffer, enumerate(_iter_all_frames(path_or_bytes, buffer.name)))


def _fill_buffer(buffer: _FrameBuffer, indexed_frames: Iterable[tuple[int, av.VideoFrame]]) -> tuple[Frames, int]:
    """The clip's frames, out of numbered ones, and how many of these it took."""
    upright, count = _FrameConverter(), 0
    for count, (number, frame) in enumerate(indexed_frames, 1):
        if number in buffer.pending_indices:
            buffer.write_frame(number, upright(frame))
            if not buffer.pending_indices:
                return buffer.frames, count
    raise buffer.make_too_short_error(count)


class _UnexpectedFrame(Exception):
    """A decoder gave another frame than the packets said."""


def _decode_runs(
    decoder: Any, table: PacketTable, runs: list[list[int]], packets: Iterator[Any], indices: set[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames that the runs' packets show, each with its number, which passes the decoder as a time stamp.

    Raises:
        _Unexpected: what comes out is not what the packets are said to show.
    """
    for run in runs:
        first, latest = table.frame_indices[run[0]], -1
        missing = {table.frame_indices[place] for place in run} & indices
        for place in [*run, None]:
            if place is not None:
                packet = next(packets)
                packet.pts = table.frame_indices[place]
            elif missing:
                packet = None  # the decoder gives what it holds back
            else:
                break
            try:
                frames = decoder.decode(packet)
            except av.FFmpegError:
                if place is not None and table.frame_indices[place] < first:
                    continue  # shown before decoding could begin: what it is predicted from is missing
                raise
            for frame in frames:
                if frame.pts is None or frame.pts <= latest or (frame.is_corrupt and frame.pts >= first):
                    raise _UnexpectedFrame
                latest = frame.pts
                missing.discard(latest)
                yield latest, frame
        else:
            decoder.flush_buffers()  # it has ended, and begins anew
        if missing:
            raise _UnexpectedFrame


def _reread_packets(path_or_bytes: Path | bytes, name: str, packet_indices: Collection[int]) -> Iterator[Any]:
    """The packets at these places, from a second reading."""
    with _open_video(path_or_bytes, name) as (container, stream), closing(container.demux(stream)) as packets:
        for place, packet in enumerate(packets):
            if place in packet_indices:
                yield packet
            if place >= max(packet_indices):
                return
