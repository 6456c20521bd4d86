"""Small videos of every awkward kind: `VICIOUS[name](path)` writes one; the name's suffix is the file's."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from damaged_videos import DAMAGED, patch_base
from encoded_videos import ENCODED, FRAMES, X264, Builder, draw_image, encode, make_base, open_output, parse_options
from remuxed_videos import REMUXED, Sample, edit, patch, read_samples, remux, write_remuxed, write_samples

# ---- shapes, turns, colours, rates and streams


def encode_x264(path: Path, options: str = f"{X264} bf=3 b_strategy=0", **kinds: Any) -> Path:
    return encode(path, "libx264", options, **kinds)


def turn(path: Path, degrees: float, **flips: bool) -> Path:
    return encode_x264(path, prepare=lambda stream: stream.set_display_rotation(degrees, **flips), size=(96, 64))


def set_codec(**attributes: Any) -> Callable[[Any], None]:
    """Return what sets attributes of the encoder before its first frame."""

    def prepare(stream: Any) -> None:
        for name, value in attributes.items():
            setattr(stream.codec_context, name, value)

    return prepare


def join_streams(
    path: Path, options: tuple[str, str], more: dict[str, Any], codec: str = "libx264", suffix: str = ""
) -> Path:
    """Write two streams of 20 frames into one; the second's options, size or colours may be others."""
    parts = [path.parent / "parts" / f"{path.stem}_{n}{suffix or path.suffix}" for n in range(2)]
    parts[0].parent.mkdir(exist_ok=True)
    for part, option, numbers, kinds in zip(parts, options, (range(20), range(20, 40)), ({}, more), strict=True):
        encode(part, codec, option, numbers=numbers, **kinds)
    first, second = map(read_samples, parts)
    end = max(sample.pts + sample.duration for sample in first)
    return write_samples([*first, *(sample.move(end) for sample in second)], parts[0], path)


def join_bytes(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def write_streams(path: Path, *kinds: str) -> Path:
    """Write audio, small, large and default videos and a cover image, in this order."""
    with open_output(path) as out:
        streams = []
        for kind in kinds:
            if kind == "audio":
                stream = out.add_stream("aac", rate=16000)
                stream.layout = "mono"
            else:
                codec = "mjpeg" if kind == "cover" else "libx264"
                stream = out.add_stream(codec, rate=25, options=parse_options(f"threads=1 {X264}"))
                stream.width, stream.height = (32, 32) if kind == "small" else (64, 64)
                stream.pix_fmt = "yuvj420p" if kind == "cover" else "yuv420p"
                if kind in ("cover", "default"):
                    disposition = av.stream.Disposition
                    stream.disposition = disposition.attached_pic if kind == "cover" else disposition.default
            streams.append(stream)
        for n in range(FRAMES):
            for kind, stream in zip(kinds, streams, strict=True):
                if kind == "audio":
                    sound = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.float32), format="fltp", layout="mono")
                    sound.sample_rate, sound.pts = 16000, 640 * n
                    out.mux(stream.encode(sound))
                elif kind != "cover" or n == 0:
                    image = draw_image(n + 128 * (kind == "cover"), stream.width, stream.height)
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


def add_unknown_packet(path: Path) -> Path:
    """A transport stream whose last packet belongs to a stream that was never announced."""
    data = make_base(path, "x264_b3.ts").read_bytes()
    last = max(n for n in range(0, len(data), 188) if data[n + 1 : n + 3] == b"\x41\x00")
    path.write_bytes(data + data[last : last + 1] + b"\x41\x55" + data[last + 3 : last + 188])
    return path


HD, SD = 1, 5  # BT.709, BT.470BG: the matrices between RGB and YUV
STAMPS = [40 * n + (n * n) % 37 + 500 * (n > 20) for n in range(FRAMES)]

SHAPED: dict[str, Builder] = {
    **{f"turned_{degrees}.mp4": partial(turn, degrees=degrees) for degrees in (90, 180, 270, 45)},
    "turned_90_flipped.mp4": partial(turn, degrees=90, hflip=True),
    "wide_pixels.mp4": partial(encode_x264, prepare=set_codec(sample_aspect_ratio=Fraction(4, 3))),
    "full_range.mp4": partial(encode_x264, prepare=set_codec(colorspace=SD, color_range=2)),
    "odd_63x47.mkv": partial(encode_x264, options=X264, pix_fmt="yuv444p", size=(63, 47)),
    "odd_65x33.mp4": partial(encode, codec="mpeg4", options="g=10 bf=2", size=(65, 33)),
    "one_frame.mp4": partial(encode_x264, numbers=[7]),
    "one_frame.avi": partial(encode, codec="mpeg4", options="bf=2", numbers=[7]),
    "one_frame.gif": partial(encode, codec="gif", pix_fmt="rgb8", numbers=[7]),
    "two_frames.mp4": partial(encode_x264, numbers=[7, 8]),
    "two_frames.webm": partial(encode, codec="libvpx-vp9", options="cpu-used=8 deadline=realtime", numbers=[7, 8]),
    "dnxhr.mov": partial(encode, codec="dnxhd", options="profile=dnxhr_sq", pix_fmt="yuv422p", size=(256, 120)),
    "h263.3gp": partial(encode, codec="h263", options="g=10", size=(128, 96)),
    "variable_rate.mkv": partial(encode_x264, stamps=STAMPS),
    "variable_rate_vp8.webm": partial(encode, codec="libvpx", options="deadline=realtime g=10", stamps=STAMPS),
    "many_a_second.mkv": partial(encode_x264, rate=2500),
    "few_a_second.mp4": partial(encode_x264, stamps=[90_000 * n for n in range(FRAMES)]),
    "latin_title.mp4": lambda path: patch(encode_x264(path, title="caf~"), b"caf~", 3, b"\xe9"),  # it is no UTF-8
    "latin_title.avi": lambda path: patch(encode(path, "mpeg4", "g=10 bf=2", title="caf~"), b"caf~", 3, b"\xe9"),
    "unknown_packet.ts": add_unknown_packet,
    "unknown_codec.mp4": lambda path: patch_base(path, "x264_b3.mp4", (b"avc1\0\0\0\0", 0, b"wxyz")),
    "size_changes.mkv": lambda path: join_streams(
        path, (f"{X264} bf=2 x264-params=repeat-headers=1",) * 2, {"size": (96, 48)}, suffix=".ts"
    ),
    "size_changes.ts": lambda path: join_streams(path, (f"{X264} bf=2",) * 2, {"size": (96, 48)}),
    "size_changes_vp9.webm": lambda path: join_streams(
        path, ("deadline=realtime g=10",) * 2, {"size": (96, 48)}, codec="libvpx-vp9"
    ),
    "sampling_changes.ts": lambda path: join_streams(path, (f"{X264} bf=2",) * 2, {"pix_fmt": "yuv444p"}),
    "coding_changes.mkv": lambda path: join_streams(
        path, (f"{X264} bf=0 coder=vlc refs=1", f"{X264} bf=3 b-pyramid=normal b_strategy=0"), {}, suffix=".ts"
    ),
    "colours_change.ts": lambda path: join_bytes(
        path,
        make_base(path, "x264_b3.ts"),
        encode_x264(path.parent / "parts" / "hd.ts", prepare=set_codec(colorspace=HD, color_range=2)),
    ),
    "two_files.ts": lambda path: join_bytes(path, make_base(path, "x264_b3.ts"), make_base(path, "x264_open_gop.ts")),
    "two_files.mkv": lambda path: join_bytes(path, *[make_base(path, "x264_b3.mkv")] * 2),
    "sound_first.mp4": lambda path: write_streams(path, "audio", "large"),
    "sound_first.mkv": lambda path: write_streams(path, "audio", "large"),
    "two_videos.mp4": lambda path: write_streams(path, "small", "large"),
    "two_videos.mkv": lambda path: write_streams(path, "small", "default"),
    "cover_first.mp4": lambda path: write_streams(path, "cover", "large"),
}

# ---- packets as other programs write them, or wrongly

VOP, NOT_CODED = b"\0\0\1\xb6", b"\0\0\1\xb6\x50\x4f"  # of MPEG-4: a frame, and one that repeats the last


def pack_b_frames(samples: list[Sample]) -> Iterator[Sample]:
    """Write P and B frames into one packet, then a frame that is not coded, as DivX did."""
    mark, at = b"\0\0\1\xb2DivX503b1393p\0", samples[0].data.index(VOP)
    samples[0] = replace(samples[0], data=samples[0].data[:at] + mark + samples[0].data[at:])
    for one, following in zip(samples, [*samples[1:], None], strict=True):
        if one.data[:4] == VOP and one.data[4] >> 6 == 2:  # a B frame, which the packet before has
            yield replace(one, data=NOT_CODED)
        elif following and following.data[:4] == VOP and following.data[4] >> 6 == 2:
            yield replace(one, data=one.data + following.data)
        else:
            yield one


def remove_tables(data: bytes, markers: bytes) -> bytes:
    """Remove the tables of a JPEG that have these markers; those of an earlier image hold."""
    at, parts = 2, [data[:2]]
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts += [data[at:end]] if data[at + 1] not in markers else []
        at = end
    return b"".join([*parts, data[at:]])


def write_fields(path: Path) -> Path:
    """Write two fields of a frame of Motion JPEG into each packet."""
    source = encode(make_base(path, "mjpeg.avi").with_name("field.avi"), "mjpeg", "", "yuvj420p", size=(64, 32))

    def mark(data: bytes, field: int) -> bytes:
        return data[:2] + b"\xff\xe0\0\x10AVI1" + bytes([field]) + bytes(9) + data[2:]

    def change(samples: list[Sample]) -> Iterator[Sample]:
        for n, (one, two) in enumerate(zip(samples[::2], samples[1::2], strict=True)):
            yield replace(one, data=mark(one.data, 1) + mark(two.data, 2), pts=n, dts=n)

    return patch(remux(source, path, change), b"strf", 16, struct.pack("<i", 64))


def hide(data: bytes, bit: int) -> bytes:
    return bytes([data[0] & ~bit]) + data[1:]


def show_again(slot: int) -> bytes:
    """Return a VP9 frame that shows a stored one (show_existing_frame)."""
    return bytes([0x88 | slot])


def build_superframe(*frames: bytes) -> bytes:
    """Return a packet of several VP9 frames, with the index behind them (annex B)."""
    mark = bytes([0xC0 | 3 << 3 | len(frames) - 1])
    return b"".join(frames) + mark + b"".join(struct.pack("<I", len(frame)) for frame in frames) + mark


def add_shown_frames(samples: list[Sample], *, alone: bool) -> Iterator[Sample]:
    """Show stored frames once more, in packets of their own, or behind others of their packet."""
    for n, sample in enumerate(samples):
        moved = sample.move(sample.duration * (n // 7))
        is_last = n % 7 == 6
        yield replace(moved, data=build_superframe(sample.data, show_again(n % 8))) if is_last and not alone else moved
        if is_last and alone:
            yield replace(moved, data=show_again(n % 8), key=False).move(sample.duration)


def hide_keyframes(samples: list[Sample], *, alone: bool) -> Iterator[Sample]:
    """Hide keyframes, which another frame of the same packet, or of the next, shows."""
    for n, sample in enumerate(samples):
        moved = sample.move(sample.duration * n * alone)
        if sample.data[0] & 4:
            yield moved
        elif alone:
            yield replace(moved, data=hide(sample.data, 2))
            yield replace(moved, data=show_again(0), key=False).move(sample.duration)
        else:
            yield replace(moved, data=build_superframe(hide(sample.data, 2), show_again(0)))


def change_base(path: Path, name: str, change: Callable[[list[Sample]], Any]) -> Path:
    return remux(make_base(path, name), path, change)


BARE_FRAMES = [n for n in range(FRAMES) if n % 10]

CRAFTED: dict[str, Builder] = {
    "packed_b_frames.avi": lambda path: remux(
        encode(make_base(path, "mpeg4.mp4").with_name("one_b.avi"), "mpeg4", "g=10 bf=1 b_strategy=0"),
        path,
        pack_b_frames,
    ),
    "not_coded.avi": partial(change_base, name="mpeg4.mp4", change=edit(lambda data: NOT_CODED, *range(4, 40, 7))),
    "quantizers_at_times.avi": partial(
        change_base, name="mjpeg.avi", change=edit(lambda data: remove_tables(data, b"\xdb"), *BARE_FRAMES)
    ),
    "huffman_tables_at_times.avi": partial(
        change_base, name="mjpeg.avi", change=edit(lambda data: remove_tables(data, b"\xc4"), *BARE_FRAMES)
    ),
    "no_huffman_tables.avi": partial(
        change_base, name="mjpeg.mkv", change=edit(lambda data: remove_tables(data, b"\xc4"))
    ),
    "fields.avi": write_fields,
    "hidden_vp8.webm": partial(change_base, name="vp8.webm", change=edit(partial(hide, bit=16), *range(3, 40, 6))),
    "hidden_vp8_last.webm": partial(change_base, name="vp8.webm", change=edit(partial(hide, bit=16), 39)),
    "shown_again_vp9.webm": partial(change_base, name="vp9.webm", change=partial(add_shown_frames, alone=True)),
    "shown_twice_vp9.webm": partial(change_base, name="vp9.webm", change=partial(add_shown_frames, alone=False)),
    "hidden_keys_vp9.webm": partial(change_base, name="vp9.webm", change=partial(hide_keyframes, alone=False)),
    "hidden_alone_vp9.webm": partial(change_base, name="vp9.webm", change=partial(hide_keyframes, alone=True)),
}

VICIOUS: dict[str, Builder] = {
    **{name: partial(lambda path, row: encode(path, *row), row=row) for name, row in ENCODED.items()},
    **{name: partial(write_remuxed, row=row) for name, row in REMUXED.items()},
    **SHAPED,
    **DAMAGED,
    **CRAFTED,
}
