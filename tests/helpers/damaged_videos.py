"""Videos that are damaged in the middle, whose beginning or end is lost, or that claim to be huge."""

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from encoded_videos import Builder, make_base
from remuxed_videos import edit, patch, remux


def flip_bits(data: bytes) -> bytes:
    """Flip bits in the second half of a packet: its header stays, its pixels do not decode."""
    changed = bytearray(data)
    for at in range(len(data) * 6 // 10, len(data), 7):
        changed[at] ^= 0x2A
    return bytes(changed)


def shorten(data: bytes) -> bytes:
    return data[: max(len(data) // 2, 1)]


def damage_packets(path: Path, name: str, indices: tuple[int, ...], edit_data: Callable[[bytes], bytes]) -> Path:
    return remux(make_base(path, name), path, edit(edit_data, *indices))


def cut(path: Path, name: str, start: float = 0.0, end: float = 1.0) -> Path:
    """Write only a part of the bytes; `start` and `end` are fractions."""
    data = make_base(path, name).read_bytes()
    path.write_bytes(data[int(len(data) * start) : int(len(data) * end)])
    return path


def patch_base(path: Path, name: str, *patches: tuple[bytes, int, bytes]) -> Path:
    """Overwrite bytes of a video: pattern, distance from it, and value of each patch."""
    path.write_bytes(make_base(path, name).read_bytes())
    for each in patches:
        patch(path, *each)
    return path


def patch_edit(path: Path, duration: int, start: int, name: str = "x264_b3.mp4") -> Path:
    """Show only a part of an MP4: milliseconds, from a frame of 512 ticks on."""
    return patch_base(path, name, (b"elst", 12, struct.pack(">II", duration, 512 * start)))


def state_frames(path: Path, name: str, frames: int) -> Path:
    """State another number of frames in both headers of an AVI."""
    number = struct.pack("<I", frames)
    return patch_base(path, name, (b"avih", 24, number), (b"strh", 40, number))


def remove_index(path: Path, name: str) -> Path:
    data = make_base(path, name).read_bytes()
    path.write_bytes(data[: data.rindex(b"idx1")])
    return path


def remove_stamps(path: Path, name: str, every: int) -> Path:
    """Leave out the time stamps of a transport stream, except of one frame in `every`."""
    data, num_frames = bytearray(make_base(path, name).read_bytes()), 0
    for packet in range(0, len(data), 188):
        start = data.find(b"\0\0\1\xe0", packet, packet + 188)
        if data[packet + 1] & 0x40 and start >= 0:
            num_frames += 1
            if num_frames % every:
                data[start + 7] &= 0x3F
                data[start + 9 : start + 9 + data[start + 8]] = b"\xff" * data[start + 8]
    path.write_bytes(data)
    return path


_PACKETS = (
    "x264_b3.mp4", "x264_no_b.mp4", "x264_slices.mp4", "x265_open_gop.mp4", "mpeg4_b.mkv", "mpeg4.mp4", "vp8.webm",
    "vp9.webm", "av1.mkv", "mpeg2.ts", "mjpeg.mov", "png.mov", "prores.mov", "ffv1_with_memory.mkv",
)  # fmt: skip
_ENDS = (
    "x264_b3.mkv", "x264_b3.ts", "x264_b3.flv", "x264_b3.h264", "mpeg4_b.avi", "mpeg4_b.m4v", "vp8.webm", "gif.gif",
    "mjpeg.avi", "av1.obu", "raw.avi",
)  # fmt: skip
_BEGINNINGS = ("x264_open_gop.ts", "x264_b3.h264", "mpeg2.mpg", "mpeg4_b.m4v", "x265_open_gop.hevc")

DAMAGED: dict[str, Builder] = {
    **{
        f"{edit_data.__name__}_{kind}.{name}": partial(damage_packets, name=name, indices=indices, edit_data=edit_data)
        for name in _PACKETS
        for kind, indices in {"key": (20,), "others": (11, 13, 22)}.items()
        for edit_data in (flip_bits, shorten)
        if not (edit_data is shorten and name == "av1.mkv")  # this muxer takes no half of a unit
    },
    **{f"cut.{name}": partial(cut, name=name, end=0.6) for name in _ENDS},
    **{f"headless.{name}": partial(cut, name=name, start=0.3) for name in _BEGINNINGS},
    "states_more.avi": partial(state_frames, name="mpeg4_b.avi", frames=61),
    "states_fewer.avi": partial(state_frames, name="mpeg4_b.avi", frames=20),
    "states_more_mjpeg.avi": partial(state_frames, name="mjpeg.avi", frames=41),
    "states_none_mjpeg.avi": partial(state_frames, name="mjpeg.avi", frames=0),
    "no_index.avi": partial(remove_index, name="mjpeg.avi"),
    "some_stamps.ts": partial(remove_stamps, name="x264_b3.ts", every=3),
    "edit_from_the_middle.mp4": partial(patch_edit, duration=800, start=15),
    "edit_from_a_b_frame.mp4": partial(patch_edit, duration=800, start=14),
    "edit_of_a_few.mp4": partial(patch_edit, duration=120, start=27),
    "edit_past_the_end.mp4": partial(patch_edit, duration=3600, start=30),
    "edit_hevc.mp4": partial(patch_edit, duration=800, start=16, name="x265_open_gop.mp4"),
    # entry 14 of the table of sizes
    "empty_sample.mp4": lambda path: patch_base(path, "x264_b3.mp4", (b"stsz", 64, bytes(4))),
    "huge_sample.mp4": lambda path: patch_base(path, "x264_b3.mp4", (b"stsz", 64, b"\x7f\xff\xff\xff")),
}

CONCEALED = {
    "flip_bits_others.mpeg4_b.mkv": 7,
    "flip_bits_key.mjpeg.mov": 20,
    "flip_bits_others.mjpeg.mov": 11,
    "flip_bits_key.prores.mov": 20,
    "flip_bits_others.prores.mov": 11,
    "flip_bits_others.av1.mkv": 11,
    "last_slice_lost.mp4": 7,
    "lost_reference.mkv": 13,
    "swapped.mkv": 11,
    "swapped_data.mp4": 11,
    "exchanged_in_time.mp4": 11,
    "end_of_sequence_hevc.mkv": 9,
}
"""Damage and wrong time stamps that a decoder conceals, by the number of frames before it.

Decoding from a keyframe behind it gives other frames than a full decode, and the packets do not show it beforehand.
"""

MISCOUNTED = (
    *("lost_key.mkv", "lost_reference_hevc.mkv", "lost_key_hevc.mkv"),
    *("swapped_at_the_key.mkv", "swapped_data.mkv", "swapped_data_b.mkv"),
)
"""Streams that have lost packets, or have them in the wrong order, so that fewer frames decode than there are packets.

Only the number of frames that a full decode gave shows it.
"""

_LARGE_PATCHES = {
    # the file says 64x64; the stream allows more, and its first frame takes it: width and height less one in its
    # header, 63 and 63, become 16383 and 8703, in 14 bits each
    "av1_s_frames.mp4": (b"\x12\0\x03\xf0\x0f", 1, b"\x03\xff\xf8\x7f"),
    "vp8.webm": (b"\x9d\x01\x2a", 3, struct.pack("<HH", 16200, 16200)),
    "gif.gif": (b"GIF89a", 6, struct.pack("<HH", 16200, 16200)),
    "qtrle.mov": (struct.pack(">HHI", 64, 64, 72 << 16), 0, struct.pack(">HH", 16200, 16200)),
    **{
        name: (b"strf", 12, struct.pack("<ii", 16200, 16200))
        for name in ("cinepak.avi", "zmbv.avi", "msmpeg4v3.avi", "mpeg4_b.avi", "raw.avi")
    },
}
LARGE: dict[str, Builder] = {
    f"large_{name}": lambda path, name=name, each=each: patch_base(path, name, each)
    for name, each in _LARGE_PATCHES.items()
}
"""Small files whose headers claim frames of hundreds of millions of pixels."""
