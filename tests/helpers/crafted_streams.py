"""Streams and containers as other programs write them, or wrongly: MPEG-4, Motion JPEG, VP8, VP9, AV1, AVI, TS."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from encoded_videos import FRAMES, X264, Builder, base, encode
from remuxed_videos import Sample, edited, join, patched, remux, restamped, samples_of

VOP = b"\0\0\1\xb6"
USER_DATA = b"\0\0\1\xb2"


# ---- MPEG-4 part 2


def not_coded(sample: Sample) -> bytes:
    """A picture's header that ends in vop_coded 0: the last one stays on."""
    return VOP + b"\x50\x4f"  # P, no whole second, marker, a little time, marker, vop_coded 0, stuffing


def packed(path: Path, *, said: bool) -> Path:
    """B frames packed as DivX did: P and B in one packet, then a picture that is not coded."""
    source = encode(base(path, "mpeg4.mp4").with_name("one_b.avi"), "mpeg4", "g=10 bf=1 b_strategy=0")

    def change(samples: list[Sample]) -> Iterator[Sample]:
        n = 0
        first = samples[0]
        mark = USER_DATA + b"DivX503b1393p\0" if said else b""
        at = first.data.index(VOP)
        samples[0] = replace(first, data=first.data[:at] + mark + first.data[at:])
        while n < len(samples):
            following = samples[n + 1].data if n + 1 < len(samples) else b""
            if following[:4] == VOP and following[4] >> 6 == 2:
                yield replace(samples[n], data=samples[n].data + following)
                yield replace(samples[n + 1], data=not_coded(samples[n]))
                n += 2
            else:
                yield samples[n]
                n += 1

    return remux(source, path, change)


def with_not_coded(path: Path, *, long: bool = False) -> Path:
    """Some pictures are not coded: Xvid's way to say that nothing moved."""

    def change(samples: list[Sample]) -> Iterator[Sample]:
        for n, sample in enumerate(samples):
            junk = USER_DATA + b"nothing to see here" if long else b""
            yield replace(sample, data=not_coded(sample) + junk) if n % 7 == 4 else sample

    return remux(base(path, "mpeg4.mp4"), path, change)


# ---- Motion JPEG


def segments(picture: bytes) -> list[bytes]:
    """A JPEG's parts, each with its marker; the last holds the pixels."""
    at, parts = 2, [picture[:2]]
    while picture[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(picture[at + 2 : at + 4], "big")
        parts.append(picture[at:end])
        at = end
    return [*parts, picture[at:]]


def tables_at(path: Path, places: Sequence[int], kinds: bytes) -> Path:
    """Tables stand in some pictures alone, and hold for those that follow."""
    folder = base(path, "mjpeg.avi").parent
    options = "huffman=default qmin={0} qmax={0}"
    parts = [encode(folder / f"quality_{q}.avi", "mjpeg", options.format(q), "yuvj420p") for q in (2, 12)]
    good, poor = (samples_of(part) for part in parts)
    samples = [poor[n] if n // 10 % 2 else good[n] for n in range(len(good))]

    def bare(n: int, sample: Sample) -> Sample:
        if n in places:
            return sample
        return replace(sample, data=b"".join(p for p in segments(sample.data) if p[1] not in kinds))

    return join([[bare(n, s) for n, s in enumerate(samples)]], parts[0], path)


def fields(path: Path) -> Path:
    """Two fields make a picture; both stand in one packet."""
    source = encode(base(path, "mjpeg.avi").with_name("field.avi"), "mjpeg", "", "yuvj420p", size=(64, 32))

    def field(data: bytes, which: int) -> bytes:
        return data[:2] + b"\xff\xe0\0\x10AVI1" + bytes([which]) + bytes(9) + data[2:]

    def change(samples: list[Sample]) -> Iterator[Sample]:
        for n, (one, other) in enumerate(zip(samples[::2], samples[1::2], strict=True)):
            yield replace(one, data=field(one.data, 1) + field(other.data, 2), pts=n, dts=n)

    return patched(remux(source, path, change), b"strf", 16, struct.pack("<i", 64))


# ---- VP8, VP9, AV1


def hidden_vp8(data: bytes) -> bytes:
    return bytes([data[0] & ~0x10]) + data[1:]


def superframe(*frames: bytes) -> bytes:
    """Several VP9 frames in one packet, with the index behind them (annex B)."""
    mark = bytes([0xC0 | 3 << 3 | len(frames) - 1])
    return b"".join(frames) + mark + b"".join(struct.pack("<I", len(f)) for f in frames) + mark


def again(slot: int) -> bytes:
    """A VP9 frame that shows a stored one (show_existing_frame)."""
    return bytes([0x88 | slot])


def shown_again(path: Path, *, alone: bool) -> Path:
    """Stored pictures are shown once more, in packets of their own, or behind others of their packet."""

    def change(samples: list[Sample]) -> Iterator[Sample]:
        for n, sample in enumerate(samples):
            step = sample.duration * (n // 7)
            if n % 7 == 6 and not alone:
                yield replace(sample, data=superframe(sample.data, again(n % 8))).moved(step)
            else:
                yield sample.moved(step)
            if n % 7 == 6 and alone:
                yield replace(sample, data=again(n % 8), key=False).moved(step + sample.duration)

    return remux(base(path, "vp9.webm"), path, change)


def hidden_keys(path: Path) -> Path:
    """Each key frame is hidden, and shown by a frame of the same packet."""

    def change(samples: list[Sample]) -> Iterator[Sample]:
        for sample in samples:
            key = not sample.data[0] & 4
            hidden = bytes([sample.data[0] & ~2]) + sample.data[1:]
            yield replace(sample, data=superframe(hidden, again(0))) if key else sample

    return remux(base(path, "vp9.webm"), path, change)


def hidden_in_packets(path: Path) -> Path:
    """Key frames are hidden in packets of their own, which show nothing."""

    def change(samples: list[Sample]) -> Iterator[Sample]:
        for n, sample in enumerate(samples):
            moved = sample.moved(sample.duration * n)
            if sample.data[0] & 4:
                yield moved
            else:
                yield replace(moved, data=bytes([sample.data[0] & ~2]) + sample.data[1:])
                yield replace(moved, data=again(0), key=False).moved(sample.duration)

    return remux(base(path, "vp9.webm"), path, change)


def two_units(path: Path) -> Path:
    """AV1: two temporal units, each with a picture to show, in one packet."""

    def change(samples: list[Sample]) -> Iterator[Sample]:
        for one, other in zip(samples[::2], samples[1::2], strict=True):
            yield replace(one, data=one.data + other.data)

    return remux(base(path, "av1.mkv"), path, change)


def in_another_order(n: int, sample: Sample) -> tuple[int, int]:
    """Packets 12 and 13 have each other's times, and all are late enough for that."""
    place = {12: 13, 13: 12}.get(n, n)
    return (place + 9) * sample.duration, n + 1


def interleaved(n: int, sample: Sample) -> tuple[int, int]:
    """The second half's times lie between the first half's."""
    half = FRAMES // 2
    return (n % half + 9) * sample.duration + sample.duration // 2 * (n >= half), n + 1


# ---- AVI: what its headers say, and its index


def avi_with(path: Path, name: str, *, frames: int | None = None, index: bool = True, keys: bool | None = None) -> Path:
    """An AVI whose headers state another number of frames, that has no index, or one with other flags."""
    data = bytearray(base(path, name).read_bytes())
    if frames is not None:
        at = data.index(b"avih")
        data[at + 24 : at + 28] = struct.pack("<I", frames)
        at = data.index(b"strh")
        data[at + 40 : at + 44] = struct.pack("<I", frames)
    at = data.rindex(b"idx1")
    if keys is not None:
        size = struct.unpack("<I", data[at + 4 : at + 8])[0]
        for line in range(at + 8, at + 8 + size, 16):
            data[line + 4 : line + 8] = struct.pack("<I", 16 if keys else 0)
    path.write_bytes(data if index else data[:at])
    return path


def avi_dropping(path: Path, name: str, places: Sequence[int]) -> Path:
    """Chunks of no bytes stand for frames that were dropped when the video was recorded."""
    data = base(path, name).read_bytes()
    movi = data.index(b"movi")
    out, index, at, n = bytearray(b"movi"), bytearray(), movi + 4, 0
    end = data.rindex(b"idx1")
    while at < end:
        size = struct.unpack("<I", data[at + 4 : at + 8])[0]
        if data[at : at + 4] in (b"00dc", b"00db"):
            keep = n not in places
            index += data[at : at + 4] + struct.pack("<III", 16 * (n % 10 == 0), len(out), size if keep else 0)
            body = data[at + 8 : at + 8 + size + size % 2] if keep else b""
            out += data[at : at + 4] + struct.pack("<I", size if keep else 0) + body
            n += 1
        at += 8 + size + size % 2
    head = data[: movi - 4]
    whole = head + struct.pack("<I", len(out)) + out + b"idx1" + struct.pack("<I", len(index)) + index
    path.write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])
    return path


# ---- transport streams


def without_stamps(path: Path, name: str, every: int) -> Path:
    """Some pictures of a transport stream say no time."""
    data = bytearray(base(path, name).read_bytes())
    n = 0
    for at in range(0, len(data), 188):
        start = data.find(b"\0\0\1\xe0", at, at + 188)
        if data[at + 1] & 0x40 and start >= 0:
            n += 1
            if n % every:
                length = data[start + 8]
                data[start + 7] &= 0x3F
                data[start + 9 : start + 9 + length] = b"\xff" * length
    path.write_bytes(data)
    return path


STREAMS: dict[str, Builder] = {
    "packed_b_frames.avi": partial(packed, said=True),
    "packed_b_frames_unsaid.avi": partial(packed, said=False),
    "packed_b_frames.mkv": partial(packed, said=True),
    "not_coded.mkv": with_not_coded,
    "not_coded.avi": with_not_coded,
    "not_coded_and_more.mkv": partial(with_not_coded, long=True),
    "not_coded_and_more.avi": partial(with_not_coded, long=True),
    "quantisers_once.avi": partial(tables_at, places=(0,), kinds=b"\xdb"),
    "quantisers_at_times.avi": partial(tables_at, places=(0, 10, 20, 30), kinds=b"\xdb"),
    "quantisers_at_times.mkv": partial(tables_at, places=(0, 10, 20, 30), kinds=b"\xdb"),
    "no_huffman_tables.avi": partial(tables_at, places=(), kinds=b"\xc4"),
    "tables_at_times.mov": partial(tables_at, places=(0, 10, 20, 30), kinds=b"\xdb\xc4"),
    "fields.avi": fields,
    "hidden_vp8.webm": lambda path: remux(base(path, "vp8.webm"), path, edited(range(3, 40, 6), hidden_vp8)),
    "hidden_vp8_last.webm": lambda path: remux(base(path, "vp8.webm"), path, edited((39,), hidden_vp8)),
    "shown_again_vp9.webm": partial(shown_again, alone=True),
    "shown_again_vp9.mp4": partial(shown_again, alone=True),
    "shown_twice_in_one_vp9.webm": partial(shown_again, alone=False),
    "hidden_keys_vp9.webm": hidden_keys,
    "hidden_alone_vp9.webm": hidden_in_packets,
    "two_units_av1.mkv": two_units,
    "exchanged_vp9.webm": lambda path: remux(base(path, "vp9.webm"), path, restamped(in_another_order)),
    "exchanged_vp8.webm": lambda path: remux(base(path, "vp8.webm"), path, restamped(in_another_order)),
    "exchanged_av1.mkv": lambda path: remux(base(path, "av1.mkv"), path, restamped(in_another_order)),
    "exchanged_mpeg4.mkv": lambda path: remux(base(path, "mpeg4.mp4"), path, restamped(in_another_order)),
    "exchanged_mjpeg.mkv": lambda path: remux(base(path, "mjpeg.mkv"), path, restamped(in_another_order)),
    "interleaved_vp9.webm": lambda path: remux(base(path, "vp9.webm"), path, restamped(interleaved)),
    "interleaved_mpeg4.mkv": lambda path: remux(base(path, "mpeg4.mp4"), path, restamped(interleaved)),
    "interleaved_no_b.mkv": lambda path: remux(base(path, "x264_no_b.mp4"), path, restamped(interleaved)),
    "interleaved_mjpeg.mkv": lambda path: remux(base(path, "mjpeg.mkv"), path, restamped(interleaved)),
    "states_more.avi": partial(avi_with, name="mpeg4_qpel_4mv.avi", frames=61),
    "states_fewer.avi": partial(avi_with, name="mpeg4_b.avi", frames=20),
    "states_more_mjpeg.avi": partial(avi_with, name="mjpeg.avi", frames=41),
    "states_none.avi": partial(avi_with, name="mjpeg.avi", frames=0),
    "no_index.avi": partial(avi_with, name="mjpeg.avi", index=False),
    "no_index_mpeg4.avi": partial(avi_with, name="mpeg4_b.avi", index=False),
    "no_index_h264.avi": partial(avi_with, name="x264_b3.avi", index=False),
    "index_of_keys.avi": partial(avi_with, name="msmpeg4v3.avi", keys=True),
    "index_of_no_keys.avi": partial(avi_with, name="mjpeg.avi", keys=False),
    "dropped_mjpeg.avi": partial(avi_dropping, name="mjpeg.avi", places=(7, 8, 21, 39)),
    "dropped_mpeg4.avi": partial(avi_dropping, name="msmpeg4v3.avi", places=(7, 8, 21)),
    "dropped_first.avi": partial(avi_dropping, name="mjpeg.avi", places=(0,)),
    "dropped_raw.avi": partial(avi_dropping, name="raw.avi", places=(7, 8, 21)),
    "some_stamps.ts": partial(without_stamps, name="x264_b3.ts", every=3),
    "no_stamps.ts": partial(without_stamps, name="x264_b3.ts", every=1000),
    "some_stamps_mpeg2.ts": partial(without_stamps, name="mpeg2.ts", every=4),
    "many_a_second.mkv": lambda path: encode(path, "libx264", f"{X264} bf=3", rate=2500),
    "few_a_second.mp4": lambda path: encode(path, "libx264", f"{X264} bf=3", stamps=[90_000 * n for n in range(40)]),
}
