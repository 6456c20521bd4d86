"""Which packets of a stream have to be decoded for some of its frames: found without decoding any."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import av

from vidstill.data.decode.bitstreams.codecs import build_packet_parser
from vidstill.data.decode.bitstreams.packet_info import PacketInfo

_PTS_CONTAINERS = {"mov", "matroska"}  # containers whose packets say when each is shown
_DTS_CONTAINERS = {
    "avi"
}  # they say only when each is decoded: enough where no picture is shown later than a following one
_B_FRAME_CODECS = {"h264", "hevc", "mpeg4"}  # codecs that may show pictures in another order than that of decoding

_MAX_BUFFER_BYTES = (
    2**26
)  # of packets that are held between looking and decoding; those of a larger stream are read again


@dataclass(frozen=True)
class PacketTable:
    """The packets of a stream in the order of decoding.

    Args:
        packets: what each is to the others.
        frame_indices: of the frame that each shows, from 0 in the order of presentation.
    """

    packets: list[PacketInfo]
    frame_indices: list[int]

    def find_decode_runs(self, indices: Collection[int]) -> list[list[int]]:
        """Places of the packets to decode for the wanted frames; each run begins where decoding may begin.

        What lies in a run and is neither wanted nor needed by another picture is left out.
        """
        top: dict[int, int] = {}  # by where decoding has to begin, the last packet that is wanted from there
        start, starts = 0, []
        for place, look in enumerate(self.packets):
            if look.is_keyframe:
                starts.append(place)
            if self.frame_indices[place] in indices:
                start = next(s for s in reversed(starts) if self.frame_indices[s] <= self.frame_indices[place])
                top[start] = place
        spans: list[list[int]] = []
        for start, last in sorted(top.items()):
            if spans and start <= spans[-1][1] + 1:
                spans[-1][1] = max(last, spans[-1][1])
            else:
                spans.append([start, last])
        layer = max(look.temporal_layer for look in self.packets)
        return [
            [
                place
                for place in range(first, last + 1)
                if self.frame_indices[place] in indices
                or not self.packets[place].is_disposable
                or self.packets[place].temporal_layer < layer
            ]
            for first, last in spans
        ]


class PacketBuffer:
    """A stream's packets in turn; what has been given is held, to be given again."""

    def __init__(self, container: Any, stream: Any):
        self.packets: list[Any] | None = []  # None: too many to hold
        self._demuxer = container.demux(stream)
        self._num_bytes = 0

    def __enter__(self) -> "PacketBuffer":
        return self

    def __exit__(self, *_: object) -> None:
        self._demuxer.close()  # PyAV leaves memory behind where this is left to chance

    def __iter__(self) -> Iterator[Any]:
        for packet in self._demuxer:
            self._num_bytes += packet.size
            if self._num_bytes > _MAX_BUFFER_BYTES:
                self.packets = None
            if self.packets is not None:
                self.packets.append(packet)
            yield packet

    def replay_packets(self) -> Iterator[Any]:
        """All of them, from the first."""
        return chain(self.packets or (), self._demuxer)


def build_packet_table(
    container: Any, stream: Any, packets: Iterable[Any], last_index: int | None = None
) -> PacketTable | None:
    """The table of a stream, whole, or up to where it is certain which packet shows the frame `last`.

    Returns:
        None where only a full decode tells which frame is which: a packet may show none or two, the order is not
        stated, or the first packet is none at which decoding may begin.
    """
    codec = stream.codec_context.codec.canonical_name
    containers = set(container.format.name.split(","))
    look_at = build_packet_parser(codec, stream.codec_context.extradata or b"")
    if look_at is None or not containers & (_PTS_CONTAINERS | _DTS_CONTAINERS):
        return None
    timed = codec in _B_FRAME_CODECS and bool(containers & _PTS_CONTAINERS)
    looks: list[PacketInfo] = []
    times: list[int] = []
    latest, edge = -(2**63), None
    try:
        for packet in packets:
            if not packet.size:  # the last one, which is empty; others would end the decoding
                if packet.pts is None and packet.dts is None:
                    break
                return None
            time = packet.pts if timed else len(looks)
            look = look_at(memoryview(packet))
            unsure = packet.is_discard or packet.is_corrupt or packet.has_sidedata("new_extradata")
            if look is None or time is None or unsure:
                return None
            if edge is not None and time > edge:
                break  # all that is shown before the edge has been met
            after_all = time > latest
            if last_index is not None and look.is_keyframe and after_all and len(looks) > last_index:
                edge = time
            looks.append(look if after_all or not look.is_keyframe else look._replace(is_keyframe=False))
            times.append(time)
            latest = max(latest, time)
    except av.FFmpegError:
        return None
    order = sorted(range(len(times)), key=times.__getitem__)
    if not order or order[0] != 0 or not looks[0].is_keyframe or len(set(times)) < len(times):
        return None
    stated = [look.display_order for place in order if (look := looks[place]).display_order is not None]
    if stated != sorted(stated) or (codec == "hevc" and _has_order_gaps(stated)):
        return None
    numbers = [0] * len(order)
    for number, place in enumerate(order):
        numbers[place] = number
    if _compute_reorder_depth(numbers) > stream.codec_context.reorder_depth:
        return None  # the decoder gives pictures before their turn
    return PacketTable(looks, numbers)


def _compute_reorder_depth(frame_indices: list[int]) -> int:
    """How many pictures a decoder holds back at most: decoded before another one, shown after it."""
    most, shown, out = 0, 0, set[int]()
    for decoded, number in enumerate(frame_indices, 1):
        out.add(number)
        while shown in out:
            out.remove(shown)
            shown += 1
        most = max(most, decoded - shown)
    return most


def _has_order_gaps(orders: list[tuple[int, int]]) -> bool:
    """HEVC numbers no pictures as H.264 does, but encoders count one for each that is shown."""
    return any(one[0] == other[0] and other[1] - one[1] != 1 for one, other in pairwise(orders))
