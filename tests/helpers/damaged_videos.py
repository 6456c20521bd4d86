"""Videos of which something is wrong in the middle, whose beginning or end is gone, or that claim to be huge."""

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from crafted_h26x import larger
from encoded_videos import Builder, base
from mp4_by_hand import entry, write_mp4
from remuxed_videos import edited, parameters_of, patched, remux, samples_of


def damaged(data: bytes) -> bytes:
    """Some bits in the second half of a packet are flipped: its header stays, its pixels do not decode."""
    changed = bytearray(data)
    for at in range(len(data) * 6 // 10, len(data), 7):
        changed[at] ^= 0x2A
    return bytes(changed)


def shortened(data: bytes) -> bytes:
    return data[: max(len(data) // 2, 1)]


def spoiled(path: Path, name: str, places: tuple[int, ...], edit: Callable[[bytes], bytes]) -> Path:
    """Some packets of a video are damaged."""
    return remux(base(path, name), path, edited(places, edit))


def cut(path: Path, name: str, share: float = 0.6) -> Path:
    """The last bytes are gone."""
    data = base(path, name).read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def headless(path: Path, name: str, share: float = 0.3) -> Path:
    """The first bytes are gone."""
    data = base(path, name).read_bytes()
    path.write_bytes(data[int(len(data) * share) :])
    return path


SPOILED = {
    "x264_b3": "mp4", "x264_no_b": "mp4", "x264_slices": "mp4", "x264_interlaced_tff": "mp4", "x265_open_gop": "mp4",
    "mpeg4_b": "mkv", "mpeg4": "mp4", "vp8": "webm", "vp9": "webm", "av1": "mkv", "mpeg2": "ts", "mjpeg": "mp4",
    "png": "mov", "prores": "mov", "ffv1_with_memory": "mkv",
}  # fmt: skip
ENDS = (
    "x264_b3.mkv", "x264_b3.ts", "x264_b3.flv", "x264_b3.avi", "x264_b3.h264", "mpeg4_b.avi", "mpeg2.mpg", "vp8.webm",
    "gif.gif", "mjpeg.avi", "msmpeg4v3.asf", "av1.ivf", "ffv1_with_memory.avi", "x265_open_gop.hevc", "mpeg4_b.m4v",
    "png.avi", "raw.avi",
)  # fmt: skip
BEGINNINGS = (
    "x264_b3.ts", "x264_open_gop.ts", "x264_b3.h264", "mpeg2.mpg", "mpeg2.ts", "mpeg4_b.m4v", "x265_open_gop.ts",
    "x265_open_gop.hevc", "mjpeg.mjpeg", "mpeg1.mpg",
)  # fmt: skip

DAMAGED: dict[str, Builder] = {
    **{
        f"{edit.__name__}_{kind}.{name}.{suffix}": partial(spoiled, name=f"{name}.{suffix}", places=places, edit=edit)
        for name, suffix in SPOILED.items()
        for kind, places in {"key": (20,), "others": (11, 13, 22)}.items()
        for edit in (damaged, shortened)
        if not (edit is shortened and name == "av1")  # this muxer takes no half of a unit
    },
    **{f"cut.{name}": partial(cut, name=name) for name in ENDS},
    **{f"headless.{name}": partial(headless, name=name) for name in BEGINNINGS},
}

CONCEALED = {
    "damaged_others.mpeg4_b.mkv": 7,
    "damaged_key.mjpeg.mp4": 20,
    "damaged_others.mjpeg.mp4": 11,
    "damaged_key.prores.mov": 20,
    "damaged_others.prores.mov": 11,
    "cut.ffv1_with_memory.avi": 22,
    "damaged_others.av1.mkv": 11,
    "last_slice_lost.mp4": 7,
    "swapped.mkv": 11,
    "swapped_data.mp4": 11,
    "ends_hevc.mkv": 9,
}
"""Damage that a decoder conceals, by the number of frames before it.

Decoding from a keyframe behind it gives other frames than a full decode, and the packets do not show it beforehand.
"""

MISCOUNTED = (
    *("lost_key.mkv", "lost_reference_hevc.mkv", "lost_key_hevc.mkv"),
    *("swapped_at_the_key.mkv", "swapped_data.mkv", "swapped_data_b.mkv"),
)
"""Streams that have lost packets, or have them in the wrong order, so that fewer frames decode than there are packets.

Only the number of frames that a full decode gave shows it.
"""


def large_h264(path: Path, size: int = 8192) -> Path:
    """A few bytes a picture, and headers that say that it is large."""
    source = base(path, "x264_b3.mp4")
    return write_mp4(path, samples_of(source), [entry("avc1", larger(parameters_of(source), size))])


def large_in_avi(path: Path, name: str, size: int = 16200) -> Path:
    path.write_bytes(base(path, name).read_bytes())
    return patched(path, b"strf", 12, struct.pack("<ii", size, size))


def large_in_mov(path: Path, name: str, size: int = 16200) -> Path:
    path.write_bytes(base(path, name).read_bytes())
    return patched(path, struct.pack(">HHI", 64, 64, 72 << 16), 0, struct.pack(">HH", size, size))


def large_gif(path: Path, size: int = 16200) -> Path:
    path.write_bytes(base(path, "gif.gif").read_bytes())
    return patched(path, b"GIF89a", 6, struct.pack("<HH", size, size))


def large_av1(path: Path) -> Path:
    """The file says 64x64; the stream allows more, and its first picture takes it."""
    path.write_bytes(base(path, "av1_s_frames.mp4").read_bytes())
    # in its header, width and height less one: 63 and 63, 16383 and 8703, in 14 bits each
    return patched(path, b"\x12\0\x03\xf0\x0f", 1, b"\x03\xff\xf8\x7f")


LARGE: dict[str, Builder] = {
    "large_av1.mp4": large_av1,
    "large_h264.mp4": large_h264,
    "larger_h264.mp4": partial(large_h264, size=16384),
    "large.gif": large_gif,
    "large_qtrle.mov": partial(large_in_mov, name="qtrle.mov"),
    **{
        f"large_{name}": partial(large_in_avi, name=name)
        for name in ("cinepak.avi", "zmbv.avi", "flv1.avi", "wmv2.avi", "msmpeg4v3.avi", "mpeg4_b.avi", "raw.avi")
    },
}
"""Small files whose headers claim pictures of hundreds of millions of pixels."""
