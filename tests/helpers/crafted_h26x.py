"""H.264 and HEVC streams that no encoder here writes, made by changing the bits of those that it does."""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from encoded_videos import Builder, base
from mp4_by_hand import entry, write_mp4
from remuxed_videos import Sample, edited, parameters_of, remux, samples_of


def units(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at + 4 < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def packed(parts: Sequence[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def each_unit(edit: Callable[[bytes], bytes | None]) -> Callable[[bytes], bytes]:
    """Edits every unit of a packet; None takes it away."""
    return lambda data: packed([new for part in units(data) if (new := edit(part)) is not None])


class Bits:
    """Reads an H.264 header bit by bit."""

    def __init__(self, unit: bytes):
        self.plain = unit.replace(b"\0\0\3", b"\0\0")
        self.at = 8

    def take(self, count: int = 1) -> int:
        value = 0
        for _ in range(count):
            value = value * 2 + (self.plain[self.at // 8] >> (7 - self.at % 8) & 1)
            self.at += 1
        return value

    def golomb(self) -> int:
        zeros = 0
        while not self.take():
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


class Head(NamedTuple):
    """A sequence parameter set, read up to the flag that says whether usability information follows."""

    bits: Bits
    size_at: int
    size_end: int


def sps_head(sps: bytes) -> Head:
    bits = Bits(sps)
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()
    if profile in (100, 110, 122, 244):
        assert bits.golomb() == 1, "4:2:0 alone is read"
        bits.golomb(), bits.golomb(), bits.take()
        assert not bits.take(), "no scaling lists"
    bits.golomb()
    assert bits.golomb() == 0, "order by its own field"
    bits.golomb(), bits.golomb(), bits.take()
    start = bits.at
    bits.golomb(), bits.golomb()
    end = bits.at
    if not bits.take():
        bits.take()
    bits.take()
    if bits.take():
        bits.golomb(), bits.golomb(), bits.golomb(), bits.golomb()
    return Head(bits, start, end)


def without_usability(sps: bytes) -> bytes:
    """The parameter set without the field that tells how far pictures are reordered."""
    bits = sps_head(sps).bits
    return from_bits(bits_of(sps)[: bits.at] + "01")


def parameter_sets(parameters: bytes) -> tuple[bytes, bytes]:
    """The first SPS and PPS of an avcC."""
    size = int.from_bytes(parameters[6:8], "big")
    at = 8 + size + 1
    length = int.from_bytes(parameters[at : at + 2], "big")
    return parameters[8 : 8 + size], parameters[at + 2 : at + 2 + length]


def with_sets(parameters: bytes, sps: bytes, pps: bytes) -> bytes:
    return parameters[:5] + b"\xe1" + struct.pack(">H", len(sps)) + sps + b"\1" + struct.pack(">H", len(pps)) + pps


def recoded(path: Path, name: str, edit: Callable[[bytes], bytes | None], places: Any = range(10000)) -> Path:
    return remux(base(path, name), path, edited(places, each_unit(edit)))


def by_hand(path: Path, name: str = "x264_b3.mp4", change: Callable = list, kind: str = "avc1", **tables: Any) -> Path:
    source = base(path, name)
    return write_mp4(path, list(change(samples_of(source))), [entry(kind, parameters_of(source))], **tables)


def no_usability(path: Path, name: str) -> Path:
    source = base(path, name)
    sps, pps = parameter_sets(parameters_of(source))
    samples = [replace(s, data=packed([u for u in units(s.data) if u[0] & 31 != 7])) for s in samples_of(source)]
    return write_mp4(path, samples, [entry("avc1", with_sets(parameters_of(source), without_usability(sps), pps))])


def halves(path: Path, name: str) -> Path:
    """Each picture's slices are spread over two packets."""

    def change(samples: list[Sample]) -> Iterator[Sample]:
        for s in samples:
            parts = units(s.data)
            first, second = parts[:-2], parts[-2:]
            yield replace(s, data=packed(first), duration=s.duration // 2)
            yield replace(s, data=packed(second), pts=s.pts + s.duration // 2, dts=s.dts + s.duration // 2, key=False)

    return remux(base(path, name), path, change)


def pairs(path: Path, name: str) -> Path:
    """Two pictures stand in each packet."""

    def change(samples: list[Sample]) -> Iterator[Sample]:
        for one, other in zip(samples[::2], samples[1::2], strict=False):
            yield replace(one, data=one.data + other.data)

    return remux(base(path, name), path, change)


def with_unit(unit: bytes, *, last: bool = False) -> Callable[[bytes], bytes]:
    return lambda data: data + packed([unit]) if last else packed([unit]) + data


def bits_of(unit: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in unit.replace(b"\0\0\3", b"\0\0"))


def from_bits(bits: str) -> bytes:
    """A parameter set of these bits: closed by a one, and with no start code in it."""
    bits = bits.rstrip("0")
    bits += "0" * (-len(bits) % 8)
    whole = bytes(int(bits[n : n + 8], 2) for n in range(0, len(bits), 8))
    return re.sub(b"\0\0([\0-\3])", lambda found: b"\0\0\3" + found[1], whole)


def never_reordered(sps: bytes) -> bytes:
    """H.264: the parameter set says that pictures are shown in the order of decoding, which is not so."""
    bits = sps_head(sps).bits
    assert bits.take(), "usability information is there"
    assert not bits.take() or bits.take(8) != 255, "no shape of pixels in full"
    bits.take(bits.take())
    if bits.take():
        bits.take(4)
        bits.take(24 * bits.take())
    if bits.take():
        bits.golomb(), bits.golomb()
    bits.take(65 * bits.take())
    assert not bits.take(2), "no hypothetical decoder"
    bits.take()
    assert bits.take(), "limits are there"
    bits.take(), bits.golomb(), bits.golomb(), bits.golomb(), bits.golomb()
    start = bits.at
    bits.golomb()
    plain = bits_of(sps)
    return from_bits(plain[:start] + "1" + plain[bits.at :])


def larger(parameters: bytes, size: int) -> bytes:
    """An avcC whose pictures are so many pixels wide and high."""
    sps, pps = parameter_sets(parameters)
    head = sps_head(sps)

    def golomb(number: int) -> str:
        return f"{number + 1:b}".zfill(2 * (number + 1).bit_length() - 1)

    plain = bits_of(sps)
    return with_sets(
        parameters, from_bits(plain[: head.size_at] + 2 * golomb(size // 16 - 1) + plain[head.size_end :]), pps
    )


def hevc_never_reordered(parameters: bytes) -> bytes:
    """H.265: the same, in the decoder's configuration record."""
    at = parameters.index(b"\x42\x01")
    size = int.from_bytes(parameters[at - 2 : at], "big")
    sps = parameters[at : at + size]
    bits = Bits(sps)
    bits.at = 16 + 4 + 3 + 1 + 96
    bits.golomb()
    assert bits.golomb() == 1, "4:2:0"
    bits.golomb(), bits.golomb()
    if bits.take():
        bits.golomb(), bits.golomb(), bits.golomb(), bits.golomb()
    bits.golomb(), bits.golomb(), bits.golomb(), bits.take(), bits.golomb()
    start = bits.at
    bits.golomb()
    plain = bits_of(sps)
    changed = from_bits(plain[:start] + "1" + plain[bits.at :])
    return parameters[: at - 2] + struct.pack(">H", len(changed)) + changed + parameters[at + size :]


def reordered_unsaid(path: Path, name: str) -> Path:
    source = base(path, name)
    sps, pps = parameter_sets(parameters_of(source))
    samples = [replace(s, data=packed([u for u in units(s.data) if u[0] & 31 != 7])) for s in samples_of(source)]
    return write_mp4(path, samples, [entry("avc1", with_sets(parameters_of(source), never_reordered(sps), pps))])


def two_entries(path: Path) -> Path:
    """The second half is coded otherwise, which only a second sample description tells."""
    one, other = base(path, "x264_b3.mp4"), base(path, "x264_cavlc.mp4")
    first, second = samples_of(one)[:20], samples_of(other)[20:]
    return write_mp4(
        path,
        [*first, *second],
        [entry("avc1", parameters_of(one)), entry("avc1", parameters_of(other))],
        entry_of=[1] * len(first) + [2] * len(second),
    )


def relabelled(unit: bytes) -> bytes:
    """H.265: every picture of the lowest layer that leads none says that none of its layer needs it."""
    return bytes([unit[0] & 0x81]) + unit[1:] if unit[0] >> 1 & 63 == 1 else unit


TICKS = 512  # of a frame at 25 a second, in x264_b3.mp4

H26X: dict[str, Builder] = {
    "by_hand.mp4": by_hand,
    "by_hand_no_b.mp4": partial(by_hand, name="x264_no_b.mp4"),
    "no_usability.mp4": partial(no_usability, name="x264_b3.mp4"),
    "no_usability_pyramid.mp4": partial(no_usability, name="x264_b8.mp4"),
    "no_usability_open_gop.mp4": partial(no_usability, name="x264_open_gop.mp4"),
    "reordered_unsaid.mp4": partial(reordered_unsaid, name="x264_b3.mp4"),
    "reordered_unsaid_pyramid.mp4": partial(reordered_unsaid, name="x264_b8.mp4"),
    "reordered_unsaid_open_gop.mp4": partial(reordered_unsaid, name="x264_open_gop.mp4"),
    "reordered_unsaid_hevc.mp4": lambda path: write_mp4(
        path,
        samples_of(base(path, "x265_closed.mp4")),
        [entry("hvc1", hevc_never_reordered(parameters_of(base(path, "x265_closed.mp4"))))],
    ),
    "halves.mkv": partial(halves, name="x264_slices.mp4"),
    "halves.mp4": partial(halves, name="x264_slices.mp4"),
    "pairs.mkv": partial(pairs, name="x264_no_b.mp4"),
    "pairs_b.mp4": partial(pairs, name="x264_b3.mp4"),
    "ends_of_sequence.mkv": lambda path: remux(
        base(path, "x264_b3.mp4"), path, edited((12, 25), with_unit(b"\x0a", last=True))
    ),
    "ends_of_stream.mp4": lambda path: remux(
        base(path, "x264_open_gop.mp4"), path, edited((9, 19), with_unit(b"\x0b", last=True))
    ),
    "slow_recovery_points.ts": lambda path: remux(
        base(path, "x264_no_b.mp4"), path, edited((5, 15, 25), with_unit(bytes([6, 6, 2, 0x16, 0x40, 0x80])))
    ),
    "two_entries.mp4": two_entries,
    "no_keys_in_index.mp4": partial(by_hand, keys=()),
    "late_keys_in_index.mp4": partial(by_hand, keys=(0, 13, 23, 33)),
    "edit_from_the_middle.mp4": partial(by_hand, edits=[(20 * TICKS, 15 * TICKS)]),
    "edit_from_a_b_frame.mp4": partial(by_hand, edits=[(20 * TICKS, 14 * TICKS)]),
    "edit_of_a_few.mp4": partial(by_hand, edits=[(3 * TICKS, 27 * TICKS)]),
    "edit_twice_the_same.mp4": partial(by_hand, edits=[(15 * TICKS, 12 * TICKS), (15 * TICKS, 12 * TICKS)]),
    "edit_backwards.mp4": partial(by_hand, edits=[(10 * TICKS, 22 * TICKS), (10 * TICKS, 12 * TICKS)]),
    "edit_with_a_pause.mp4": partial(
        by_hand, edits=[(9 * TICKS, -1), (10 * TICKS, 2 * TICKS), (9 * TICKS, -1), (10 * TICKS, 22 * TICKS)]
    ),
    "edit_at_keys.mp4": partial(by_hand, name="x264_no_b.mp4", edits=[(10 * TICKS, 20 * TICKS), (10 * TICKS, 0)]),
    "edit_past_the_end.mp4": partial(by_hand, edits=[(90 * TICKS, 30 * TICKS)]),
    "edit_of_nothing.mp4": partial(by_hand, edits=[(0, 2 * TICKS)]),
    "edit_hevc.mp4": partial(by_hand, name="x265_open_gop.mp4", kind="hvc1", edits=[(20 * TICKS, 16 * TICKS)]),
    "one_byte_sample.mp4": partial(
        by_hand,
        sizes=None,
        change=lambda all: [replace(s, data=b"\0" if n == 13 else s.data) for n, s in enumerate(all)],
    ),
    "empty_sample.mp4": partial(
        by_hand, change=lambda all: [replace(s, data=b"" if n == 13 else s.data) for n, s in enumerate(all)]
    ),
    "empty_last_sample.mp4": partial(by_hand, change=lambda all: [*all[:-1], replace(all[-1], data=b"")]),
    "empty_first_sample.mp4": partial(by_hand, change=lambda all: [replace(all[0], data=b""), *all[1:]]),
    "shared_sample.mp4": lambda path: by_hand(path, offsets=shared_offsets(base(path, "x264_b3.mp4"))),
    "samples_past_the_end.mp4": lambda path: by_hand(path, offsets=late_offsets(base(path, "x264_b3.mp4"))),
    "huge_sample.mp4": lambda path: by_hand(
        path, sizes=[2**31 - 1 if n == 30 else len(s.data) for n, s in enumerate(samples_of(base(path, "x264_b3.mp4")))]
    ),
    "one_time_for_all.mp4": partial(by_hand, change=lambda all: [replace(s, pts=0, dts=0) for s in all]),
    "one_time_for_all_no_b.mp4": partial(
        by_hand, name="x264_no_b.mp4", change=lambda all: [replace(s, pts=0, dts=0) for s in all]
    ),
    "neighbours_exchanged_in_time.mp4": partial(by_hand, change=lambda all: exchanged(all, 12)),
    "neighbours_exchanged_in_time_no_b.mp4": partial(
        by_hand, name="x264_no_b.mp4", change=lambda all: exchanged(all, 12)
    ),
    "far_ones_exchanged_in_time.mp4": partial(by_hand, change=lambda all: exchanged(all, 12, 25)),
    "pts_of_decoding.mp4": partial(by_hand, change=lambda all: [replace(s, pts=s.dts) for s in all]),
    "pts_of_decoding_pyramid.mp4": partial(
        by_hand, name="x264_b8.mp4", change=lambda all: [replace(s, pts=s.dts) for s in all]
    ),
    "pts_of_decoding_hevc.mp4": partial(
        by_hand, name="x265_closed.mp4", kind="hvc1", change=lambda all: [replace(s, pts=s.dts) for s in all]
    ),
    "relabelled_hevc.mp4": lambda path: remux(
        base(path, "x265_no_b.mp4"), path, edited(range(1000), each_unit(relabelled))
    ),
    "relabelled_some_hevc.mkv": lambda path: remux(
        base(path, "x265_no_b.mp4"), path, edited((3, 4, 13, 24), each_unit(relabelled))
    ),
    "broken_links_hevc.mkv": lambda path: remux(
        base(path, "x265_open_gop.mp4"),
        path,
        edited((10,), each_unit(lambda unit: bytes([16 << 1]) + unit[1:] if unit[0] >> 1 & 63 == 21 else unit)),
    ),
    "idr_named_cra_hevc.mkv": lambda path: remux(
        base(path, "x265_open_gop.mp4"),
        path,
        edited(
            (10, 20),
            each_unit(lambda unit: bytes([unit[0] & 0x81 | 19 << 1]) + unit[1:] if unit[0] >> 1 & 63 == 21 else unit),
        ),
    ),
    "ends_hevc.mkv": lambda path: remux(
        base(path, "x265_open_gop.mp4"), path, edited((9, 19), with_unit(b"\x48\x01", last=True))
    ),
    "last_slice_lost.mp4": lambda path: remux(
        base(path, "x264_slices.mp4"), path, edited((11, 13, 22), lambda data: packed(units(data)[:-1]))
    ),
    "first_slice_lost.mp4": lambda path: remux(
        base(path, "x264_slices.mp4"), path, edited((11, 13, 22), lambda data: packed(units(data)[1:]))
    ),
}


def shared_offsets(source: Path) -> list[int]:
    """The 14th sample is the 13th's bytes again."""
    lengths = [len(s.data) for s in samples_of(source)]
    return [sum(lengths[: 12 if n == 13 else n]) for n in range(len(lengths))]


def late_offsets(source: Path) -> list[int]:
    lengths = [len(s.data) for s in samples_of(source)]
    return [sum(lengths[:n]) + 10**6 * (n >= 30) for n in range(len(lengths))]


def exchanged(samples: Sequence[Sample], one: int, other: int | None = None) -> list[Sample]:
    """Two samples have each other's times of presentation."""
    other = one + 1 if other is None else other
    changed = list(samples)
    changed[one] = replace(samples[one], pts=samples[other].pts)
    changed[other] = replace(samples[other], pts=samples[one].pts)
    return changed
