"""Which packets of a stream have to be decoded for some of its frames, worked out without decoding."""

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from vidstill.data.decode.codecs import REORDERING_CODECS, find_keyframe_reader, may_skip_unreferenced
from vidstill.data.storage.fetch import BrokenVideo

_PTS_CONTAINERS = {"mov", "matroska"}  # containers whose packets state when each frame is shown
_DTS_CONTAINERS = {"avi"}  # packets state decoding times only: enough for codecs without B-frames
MAX_REPEATS = 16
"""How often an edit list may show a file's bytes, on average; beyond it, the file is broken."""

_MAX_BUFFER_BYTES = 2**26  # of packets that are kept for decoding; those of a larger stream are read again


@dataclass(frozen=True)
class PacketTable:
    """A stream's packets in decoding order."""

    # for each packet, whether decoding may begin there: all frames shown from it on come out as in a full decode
    keyframes: list[bool]
    frame_indices: list[int]  # for each packet, the number of the frame that it shows, from 0 in presentation order
    # whether the decoder may leave out frames that it calls unreferenced; if not, every packet has to show its frame
    may_skip_unreferenced: bool

    def find_decode_runs(self, indices: Collection[int]) -> list[range]:
        """Return runs of packets that show the wanted frames; each run starts at a keyframe."""
        last_by_start: dict[int, int] = {}
        starts: list[int] = []
        for position, frame_index in enumerate(self.frame_indices):
            if self.keyframes[position]:
                starts.append(position)
            if frame_index in indices:
                start = next(s for s in reversed(starts) if self.frame_indices[s] <= frame_index)
                last_by_start[start] = position
        runs: list[range] = []
        for start, last in sorted(last_by_start.items()):
            if runs and start <= runs[-1].stop:
                runs[-1] = range(runs[-1].start, max(last + 1, runs[-1].stop))
            else:
                runs.append(range(start, last + 1))
        return runs

    def is_open_gop(self, run: range) -> bool:
        """Return whether frames are decoded after the run's keyframe and shown before it."""
        return any(self.frame_indices[position] < self.frame_indices[run.start] for position in run)


class PacketBuffer:
    """A stream's packets from the first; those already read are kept, up to 64 MB, and come again in each iteration.

    Nothing has been read from the start of the open container.
    """

    def __init__(self, container: Any, stream: Any, name: str):
        self._name = name
        self.packets: list[Any] | None = []  # None: too many to keep
        self._container, self._demuxer = container, container.demux(stream)
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
    has_pts = bool(containers & _PTS_CONTAINERS)
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
            is_unsure = packet.is_discard or packet.is_corrupt or packet.has_sidedata("new_extradata")
            if is_keyframe is None or time is None or is_unsure:
                return None
            if next_group is not None and time > next_group:
                break  # all packets that are shown before the keyframe behind `last_index` have been read
            is_keyframe = is_keyframe and time > latest
            if last_index is not None and is_keyframe and len(times) > last_index:
                next_group = time
            keyframes.append(is_keyframe)
            times.append(time)
            latest = max(latest, time)
            has_decode_times |= "mov" in containers and packet.pts != packet.dts  # Matroska states only one of them
    except av.FFmpegError:
        return None
    order = np.argsort(times)
    if not times or order[0] != 0 or not keyframes[0] or len(set(times)) < len(times):
        return None
    if num_frames is not None and num_frames != (len(times) if is_whole else stream.frames or num_frames):
        return None
    frame_indices = np.argsort(order)
    # how many frames a decoder holds back at most: those decoded, less those shown before the first that is not decoded
    first_missing = np.minimum.accumulate(frame_indices[::-1])[::-1][1:]
    depth = (np.arange(1, len(times)) - first_missing).max(initial=0)
    stated_depth = stream.codec_context.reorder_depth
    if depth > stated_depth or (depth == 0 < stated_depth and not has_decode_times):
        return None  # the decoder shows frames in another order: the time stamps may be those of decoding
    return PacketTable(keyframes, frame_indices.tolist(), may_skip_unreferenced(codec, extradata))
