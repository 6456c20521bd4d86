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

from vidstill.data.decode.images import Picture, pictures_of, read_picture
from vidstill.data.decode.packets import Held, PacketTable, packet_table
from vidstill.data.decode.stream import _LIMITS, _all, _decoded, _opened, _Upright
from vidstill.data.storage.fetch import BrokenVideo, Source, fetched, name_of
from vidstill.utils.types import InputError

"""Suffixes by which a folder's videos are found; a list may name any file that FFmpeg reads."""

"""Frames per second of what states none: folders of pictures, and files whose header is silent."""


_STRICT = {"err_detect": "explode"}  # a damaged picture is an error, and not filled with what the decoder holds

Frames = UInt8[np.ndarray, "t h w 3"]


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
