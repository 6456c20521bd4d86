"""Which packets of a stream have to be decoded for some of its frames: found without decoding any."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import av

from vidstill.data.bitstreams.codecs import looker
from vidstill.data.bitstreams.look import Look

_REORDERED = {"mov", "matroska"}  # containers whose packets say when each is shown
_IN_ORDER = {"avi"}  # they say only when each is decoded: enough where no picture is shown later than a following one

_KEPT_BYTES = 2**26  # of packets that are held between looking and decoding; those of a larger stream are read again


@dataclass(frozen=True)
class PacketTable:
    """The packets of a stream in the order of decoding.

    Args:
        looks: what each is to the others.
        numbers: of the frame that each shows, from 0 in the order of presentation.
        kept: the packets themselves; None where they are too many to hold.
    """

    looks: list[Look]
    numbers: list[int]
    kept: list[Any] | None

    def runs(self, wanted: Collection[int]) -> list[list[int]]:
        """Places of the packets to decode for the wanted frames; each run begins where decoding may begin.

        What lies in a run and is neither wanted nor needed by another picture is left out.
        """
        top: dict[int, int] = {}  # by where decoding has to begin, the last packet that is wanted from there
        start, starts = 0, []
        for place, look in enumerate(self.looks):
            if look.starts:
                starts.append(place)
            if self.numbers[place] in wanted:
                start = next(s for s in reversed(starts) if self.numbers[s] <= self.numbers[place])
                top[start] = place
        spans: list[list[int]] = []
        for start, last in sorted(top.items()):
            if spans and start <= spans[-1][1] + 1:
                spans[-1][1] = max(last, spans[-1][1])
            else:
                spans.append([start, last])
        layer = max(look.layer for look in self.looks)
        return [
            [
                place
                for place in range(first, last + 1)
                if self.numbers[place] in wanted or not self.looks[place].spare or self.looks[place].layer < layer
            ]
            for first, last in spans
        ]


def packet_table(container: Any, stream: Any, last: int | None = None) -> PacketTable | None:
    """The table of a stream, whole, or up to where it is certain which packet shows the frame `last`.

    Returns:
        None where only a full decode tells which frame is which: a packet may show none or two, the order is not
        stated, or the first packet is none at which decoding may begin.
    """
    codec = stream.codec_context
    containers = set(container.format.name.split(","))
    look_at = looker(codec.codec.canonical_name, codec.extradata or b"")
    in_order = bool(containers & _IN_ORDER)
    if look_at is None or not (in_order or containers & _REORDERED):
        return None
    looks: list[Look] = []
    times: list[int] = []
    kept: list[Any] | None = []
    size, latest, edge = 0, -(2**63), None
    try:
        for packet in container.demux(stream):
            if not packet.size:  # the last one, which is empty; others would end the decoding
                if packet.pts is None and packet.dts is None:
                    break
                return None
            time = len(looks) if in_order else packet.pts
            look = look_at(memoryview(packet))
            unsure = packet.is_discard or packet.is_corrupt or packet.has_sidedata("new_extradata")
            if look is None or time is None or unsure or (in_order and look.spare and not look.starts):
                return None
            if edge is not None and time > edge:
                break  # all that is shown before the edge has been met
            after_all = time > latest
            if last is not None and look.starts and after_all and len(looks) > last:
                edge = time
            looks.append(look if after_all or not look.starts else look._replace(starts=False))
            times.append(time)
            latest, size = max(latest, time), size + packet.size
            kept = kept if size <= _KEPT_BYTES else None
            if kept is not None:
                kept.append(packet)
    except av.FFmpegError:
        return None
    order = sorted(range(len(times)), key=times.__getitem__)
    if not order or order[0] != 0 or not looks[0].starts or len(set(times)) < len(times):
        return None
    stated = [look.shown for place in order if (look := looks[place]).shown is not None]
    if stated != sorted(stated) or (codec.codec.canonical_name == "hevc" and _has_gaps(stated)):
        return None
    if not stated and order == sorted(order) and any(look.spare and not look.starts for look in looks):
        return None  # pictures that are shown before others, and time stamps that are those of decoding
    numbers = [0] * len(order)
    for number, place in enumerate(order):
        numbers[place] = number
    return PacketTable(looks, numbers, kept)


def _has_gaps(orders: list[tuple[int, int]]) -> bool:
    """HEVC numbers no pictures as H.264 does, but encoders count one for each that is shown."""
    return any(one[0] == other[0] and other[1] - one[1] != 1 for one, other in pairwise(orders))
