"""Which packets of a stream have to be decoded for some of its frames, worked out without decoding."""

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from jaxtyping import Bool, Int64

from vidstill.data.decode.codecs import REORDERING_CODECS, find_keyframe_reader, may_skip_unreferenced
from vidstill.data.storage.fetch import BrokenVideo

_PTS_CONTAINERS = {"mov", "matroska"}  # containers whose packets state when each frame is shown
_DTS_CONTAINERS = {"avi"}  # packets state decoding times only: enough for codecs without B-frames
MAX_REPEATS = 16
"""How often an edit list may show a file's bytes, on average; beyond it, the file is broken."""

_MAX_BUFFER_BYTES = 2**26  # of packets that are kept for decoding; those of a larger stream are read again


@dataclass(frozen=True, eq=False)
class PacketTable:
    """A stream's packets in decoding order."""

    # for each packet, whether decoding may begin there: all frames shown from it on come out as in a full decode
    keyframes: Bool[np.ndarray, "packets"]
    frame_indices: Int64[np.ndarray, "packets"]  # the number of the frame that it shows, from 0 in presentation order
    positions: Int64[np.ndarray, "packets"]  # the inverse: for each frame the packet that shows it
    # whether the decoder may leave out frames that it calls unreferenced; if not, every packet has to show its frame
    may_skip_unreferenced: bool
    # of each packet, in ticks of its stream, all different, so that one can be sought; None: they are read in turn
    pts: Int64[np.ndarray, "packets"] | None = None

    def __len__(self) -> int:
        return len(self.frame_indices)

    @property
    def num_bytes(self) -> int:
        """The memory that it takes."""
        arrays = (self.keyframes, self.frame_indices, self.positions, self.pts)
        return sum(array.nbytes for array in arrays if array is not None)

    def find_decode_runs(self, indices: Collection[int]) -> list[range]:
        """Return runs of packets that show the wanted frames; each run starts at a keyframe."""
        wanted = np.array([index for index in indices if index < len(self)])
        positions = self.positions[wanted]
        keyframes = np.flatnonzero(self.keyframes)  # in both orders, that of decoding and that of presentation
        groups = np.minimum(
            np.searchsorted(keyframes, positions, "right"),
            np.searchsorted(self.frame_indices[keyframes], wanted, "right"),
        )
        runs: list[range] = []
        for start, last in sorted(zip(keyframes[groups - 1].tolist(), positions.tolist(), strict=True)):
            if runs and start <= runs[-1].stop:
                runs[-1] = range(runs[-1].start, max(last + 1, runs[-1].stop))
            else:
                runs.append(range(start, last + 1))
        return runs

    def is_open_gop(self, run: range) -> bool:
        """Return whether frames are decoded after the run's keyframe and shown before it."""
        return bool((self.frame_indices[run.start : run.stop] < self.frame_indices[run.start]).any())


class PacketBuffer:
    """A stream's packets from the first; those already read are kept, up to 64 MB, and come again in each iteration.

    Nothing has been read from the start of the open container.
    """

    def __init__(self, container: Any, stream: Any, name: str):
        self._name = name
        self.packets: list[Any] | None = []  # None: too many to keep
        self._container, self._stream, self._demuxer = container, stream, container.demux(stream)
        self._num_bytes = 0

    def _demux(self) -> Iterator[Any]:
        # a Matroska may hold compressed packets, which are longer than the file
        max_bytes = MAX_REPEATS * self._container.size if "mov" in self._container.format.name else math.inf
        for packet in self._demuxer:
            self._num_bytes += packet.size
            if self._num_bytes > max_bytes:
                raise BrokenVideo(self._name, f"has an edit list that shows its frames more than {MAX_REPEATS} times")
            yield packet

    def __iter__(self) -> Iterator[Any]:
        yield from tuple(self.packets or ())
        for packet in self._demux():
            if self._num_bytes > _MAX_BUFFER_BYTES:
                self.packets = None
            if self.packets is not None:
                self.packets.append(packet)
            yield packet

    def drain(self) -> Iterator[Any]:
        """Yield the packets without keeping any: memory does not grow with the video."""
        packets, self.packets = deque(self.packets or ()), None
        while packets:
            yield packets.popleft()
        yield from self._demux()

    def seek(self, pts: int) -> Iterator[Any]:
        """Yield the packets from the last keyframe that the container can find before a time; none are kept."""
        self.close()
        self.packets, self._num_bytes = None, 0
        self._container.seek(pts, stream=self._stream)
        self._demuxer = self._container.demux(self._stream)
        yield from self._demux()

    def close(self) -> None:
        self._demuxer.close()  # PyAV leaks memory where the garbage collector closes it


def build_packet_table(
    container: Any, stream: Any, packets: Iterable[Any], *, last_index: int | None = None, num_frames: int | None = None
) -> PacketTable | None:
    """Build the table of a stream, whole, or up to where the packet that shows `last_index` is certain.

    Args:
        packets: The stream's packets from the first.
        last_index: The last frame that is wanted; None for all.
        num_frames: The number of frames that a full decode gave, if known; the packets have to agree.

    Returns:
        None where only a full decode tells which frame is which: a packet may show no frame or two, the order is not
        stated, or the first packet is no keyframe.
    """
    codec = stream.codec_context.codec.canonical_name
    containers = set(container.format.name.split(","))
    extradata = bytes(stream.codec_context.extradata or b"")
    read_keyframe, may_reorder = find_keyframe_reader(codec, extradata), codec in REORDERING_CODECS
    has_pts = states_pts(container)
    if read_keyframe is None or not (has_pts or containers & _DTS_CONTAINERS):
        return None
    if codec == "mpeg4" and num_frames is None:
        return None  # a packet may hold two frames, or none (DivX, Xvid)
    if may_reorder and codec != "mpeg4" and not has_pts:
        return None
    if may_reorder and num_frames is not None and (codec == "mpeg4" or not stream.frames):
        last_index = None  # all packets have to be counted to compare them
    keyframes: list[bool] = []
    times: list[int] = []
    stamps: list[int | None] = []
    latest, next_group, is_whole, has_decode_times = -(2**63), None, False, False
    try:
        for packet in packets:
            if not packet.size:  # PyAV's last packet is empty; any other empty one would end the decoding
                if packet.pts is not None or packet.dts is not None:
                    return None
                is_whole = True
                break
            time = packet.pts if may_reorder and has_pts else len(times)
            is_keyframe = read_keyframe(packet)
            if is_keyframe is None or time is None or is_doubtful(packet):
                return None
            if next_group is not None and time > next_group:
                break  # all packets that are shown before the keyframe behind `last_index` have been read
            is_keyframe = is_keyframe and time > latest
            if last_index is not None and is_keyframe and len(times) > last_index:
                next_group = time
            keyframes.append(is_keyframe)
            times.append(time)
            stamps.append(packet.pts)
            latest = max(latest, time)
            has_decode_times |= "mov" in containers and packet.pts != packet.dts  # Matroska states only one of them
    except av.FFmpegError:
        return None
    if num_frames is not None and num_frames != (len(times) if is_whole else stream.frames or num_frames):
        return None
    may_seek = is_whole and has_pts and None not in stamps
    return number_frames(
        stream,
        np.array(keyframes, bool),
        np.array(times, np.int64),
        pts=np.array(stamps, np.int64) if may_seek else None,
        has_decode_times=has_decode_times,
    )


def states_pts(container: Any) -> bool:
    """Return whether a container's packets state when each frame is shown."""
    return bool(_PTS_CONTAINERS & set(container.format.name.split(",")))


def is_doubtful(packet: Any) -> bool:
    """Return whether it is unsure that a packet shows its frame."""
    return bool(packet.is_discard or packet.is_corrupt or packet.has_sidedata("new_extradata"))


def number_frames(
    stream: Any,
    keyframes: Bool[np.ndarray, "packets"],
    times: Int64[np.ndarray, "packets"],
    *,
    pts: Int64[np.ndarray, "packets"] | None,
    has_decode_times: bool,
) -> PacketTable | None:
    """Return the table of packets in decoding order; None if their times leave a doubt which shows which frame.

    Args:
        keyframes: Whether decoding may begin there, and all packets before it are shown before it.
        times: When the packets' frames are shown, in any unit.
        pts: The packets' own, if one may be sought by them.
        has_decode_times: Whether some packet is stated to be decoded at another time than it is shown.
    """
    order = np.argsort(times, kind="stable")
    if not len(times) or order[0] != 0 or not keyframes[0] or not np.diff(times[order]).all():
        return None
    frame_indices = np.empty_like(order)
    frame_indices[order] = np.arange(len(order))
    # how many frames a decoder holds back at most: those decoded, less those shown before the first that is not decoded
    first_missing = np.minimum.accumulate(frame_indices[::-1])[::-1][1:]
    depth = (np.arange(1, len(times)) - first_missing).max(initial=0)
    stated_depth = stream.codec_context.reorder_depth
    if depth > stated_depth or (depth == 0 < stated_depth and not has_decode_times):
        return None  # the decoder shows frames in another order: the time stamps may be those of decoding
    may_seek = pts is not None and len(np.unique(pts)) == len(pts)
    extradata = bytes(stream.codec_context.extradata or b"")
    may_skip = may_skip_unreferenced(stream.codec_context.codec.canonical_name, extradata)
    return PacketTable(keyframes, frame_indices, order, may_skip, pts if may_seek else None)
