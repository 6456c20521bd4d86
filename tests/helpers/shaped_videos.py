"""Videos of other shapes, turns, colours, rates and streams, and files that hold more than one video."""

from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from encoded_videos import FRAMES, X264, Builder, base, drawn, encode, muxing_of, options_of
from remuxed_videos import after, join, patched, samples_of


def straight(path: Path, options: str = f"{X264} bf=3 b_strategy=0", **kinds: Any) -> Path:
    return encode(path, "libx264", options, **kinds)


def turned(path: Path, degrees: float, **flips: bool) -> Path:
    return straight(path, prepare=lambda stream: stream.set_display_rotation(degrees, **flips), size=(96, 64))


def with_pixels(path: Path, shape: Fraction) -> Path:
    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = shape

    return straight(path, prepare=prepare)


def coloured(path: Path, space: int, full_range: bool, codec: str = "libx264", options: str = X264) -> Path:
    def prepare(stream: Any) -> None:
        stream.codec_context.colorspace = space
        stream.codec_context.color_range = 2 if full_range else 1

    return encode(path, codec, options, prepare=prepare)


def one_after_another(path: Path, *parts: tuple[Any, ...], codec: str = "libx264", suffix: str = "") -> Path:
    """Two streams in one: the second's size, coding or colours may be others."""
    files = []
    for n, (options, kinds) in enumerate(parts):
        file = path.parent / "parts" / f"{path.stem}_{n}{suffix or path.suffix}"
        file.parent.mkdir(exist_ok=True)
        files.append(encode(file, codec, options, **kinds))
    samples = [samples_of(file) for file in files]
    joined = [samples[0]]
    for more in samples[1:]:
        joined.append(after(joined[-1], more))
    return join(joined, files[0], path)


def bytes_after_another(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def several_streams(path: Path, *kinds: str) -> Path:
    """Audio, video and a cover picture in the order of the words."""
    with av.open(str(path), "w", options=muxing_of("")) as out:
        streams = []
        for kind in kinds:
            if kind == "audio":
                stream = out.add_stream("aac", rate=16000)
                stream.layout = "mono"
            elif kind == "cover":
                stream = out.add_stream("mjpeg", rate=25)
                stream.width, stream.height, stream.pix_fmt = 128, 96, "yuvj420p"
                stream.disposition = av.stream.Disposition.attached_pic
            else:
                stream = out.add_stream("libx264", rate=25, options=options_of(f"threads=1 {X264}"))
                stream.width, stream.height = (32, 32) if kind == "small" else (64, 64)
                stream.pix_fmt = "yuv420p"
                if kind == "default":
                    stream.disposition = av.stream.Disposition.default
            streams.append(stream)
        for n in range(FRAMES):
            for kind, stream in zip(kinds, streams, strict=True):
                if kind == "audio":
                    sound = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.float32), format="fltp", layout="mono")
                    sound.sample_rate, sound.pts = 16000, 640 * n
                    out.mux(stream.encode(sound))
                elif kind != "cover" or n == 0:
                    picture = drawn(n + 128 * (kind == "cover"), stream.width, stream.height)
                    out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


def with_words(path: Path, codec: str = "libx264") -> Path:
    """A title in Latin-1, which is no UTF-8."""
    with av.open(str(path), "w", options=muxing_of("")) as out:
        out.metadata["title"] = "caf~ au lait"
        stream = out.add_stream(codec, rate=25, options=options_of("g=10 bf=2 threads=1"))
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for n in range(FRAMES):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(drawn(n), format="rgb24")))
        out.mux(stream.encode(None))
    return patched(path, b"caf~", 3, b"\xe9")


def with_stray_packet(path: Path) -> Path:
    """A transport stream whose last packet belongs to a stream that was never announced."""
    data = base(path, "x264_b3.ts").read_bytes()
    last = max(n for n in range(0, len(data), 188) if data[n + 1 : n + 3] == b"\x41\x00")
    path.write_bytes(data + data[last : last + 1] + b"\x41\x55" + data[last + 3 : last + 188])
    return path


def of_no_known_kind(path: Path) -> Path:
    """The header names a coding that nobody knows."""
    return patched(base_copy(path, "x264_b3.mp4"), b"avc1\0\0\0\0", 0, b"wxyz")


def base_copy(path: Path, name: str) -> Path:
    path.write_bytes(base(path, name).read_bytes())
    return path


HD, SD = 1, 5  # BT.709, BT.470BG: the matrices between RGB and YUV

SHAPED: dict[str, Builder] = {
    **{f"turned_{d}.mp4": partial(turned, degrees=d) for d in (90, 180, 270, 45)},
    "turned_90.mov": partial(turned, degrees=90),
    "turned_90.mkv": partial(turned, degrees=90),
    "flipped.mp4": partial(turned, degrees=0, hflip=True),
    "flipped_upside_down.mp4": partial(turned, degrees=0, vflip=True),
    "turned_90_flipped.mp4": partial(turned, degrees=90, hflip=True),
    "wide_pixels.mp4": partial(with_pixels, shape=Fraction(4, 3)),
    "tall_pixels.mkv": partial(with_pixels, shape=Fraction(8, 9)),
    "odd_63x47.mkv": partial(straight, options=X264, pix_fmt="yuv444p", size=(63, 47)),
    "odd_65x33.mp4": lambda path: encode(path, "mpeg4", "g=10 bf=2", size=(65, 33)),
    "odd_33x65.webm": lambda path: encode(path, "libvpx-vp9", "cpu-used=8 deadline=realtime g=10", size=(33, 65)),
    "tiny_16x16.mp4": partial(straight, size=(16, 16)),
    "one_frame.mp4": partial(straight, numbers=[7]),
    "one_frame.mkv": partial(straight, numbers=[7]),
    "one_frame.avi": lambda path: encode(path, "mpeg4", "bf=2", numbers=[7]),
    "one_frame.gif": lambda path: encode(path, "gif", "", "rgb8", numbers=[7]),
    "one_frame.h264": partial(straight, numbers=[7]),
    "two_frames.mp4": partial(straight, numbers=[7, 8]),
    "two_frames.ts": partial(straight, numbers=[7, 8]),
    "two_frames.webm": lambda path: encode(path, "libvpx-vp9", "cpu-used=8 deadline=realtime", numbers=[7, 8]),
    "dnxhr.mov": lambda path: encode(path, "dnxhd", "profile=dnxhr_sq", "yuv422p", size=(256, 120)),
    "h263.avi": lambda path: encode(path, "h263", "g=10", size=(128, 96)),
    "h263.3gp": lambda path: encode(path, "h263", "g=10", size=(128, 96)),
    "h261.avi": lambda path: encode(path, "h261", "g=10", size=(176, 144)),
    "dv.avi": lambda path: encode(path, "dvvideo", "", size=(720, 576), numbers=range(6)),
    "variable_rate.mp4": partial(straight, stamps=[40 * n + (n * n) % 37 + 500 * (n > 20) for n in range(FRAMES)]),
    "variable_rate.mkv": partial(straight, stamps=[40 * n + (n * n) % 37 + 500 * (n > 20) for n in range(FRAMES)]),
    "variable_rate_vp8.webm": lambda path: encode(
        path, "libvpx", "deadline=realtime g=10", stamps=[33 * n + 33 * max(n - 20, 0) for n in range(FRAMES)]
    ),
    "variable_rate.gif": lambda path: encode(path, "gif", "", "rgb8", stamps=[20 * n * n for n in range(FRAMES)]),
    "latin_title.mp4": with_words,
    "latin_title.mkv": with_words,
    "latin_title.avi": partial(with_words, codec="mpeg4"),
    "latin_title.flv": with_words,
    "stray_packet.ts": with_stray_packet,
    "unknown_coding.mp4": of_no_known_kind,
    "full_range.mp4": partial(coloured, space=SD, full_range=True),
    "bt709.mp4": partial(coloured, space=HD, full_range=False),
    "size_changes.mkv": lambda path: one_after_another(
        path,
        (f"{X264} bf=2 x264-params=repeat-headers=1", {"size": (64, 64), "numbers": range(20)}),
        (f"{X264} bf=2 x264-params=repeat-headers=1", {"size": (96, 48), "numbers": range(20, 40)}),
        suffix=".ts",
    ),
    "size_changes.ts": lambda path: one_after_another(
        path,
        (f"{X264} bf=2", {"size": (64, 64), "numbers": range(20)}),
        (f"{X264} bf=2", {"size": (96, 48), "numbers": range(20, 40)}),
    ),
    "size_changes_vp9.webm": lambda path: one_after_another(
        path,
        ("deadline=realtime g=10", {"size": (64, 64), "numbers": range(20)}),
        ("deadline=realtime g=10", {"size": (96, 48), "numbers": range(20, 40)}),
        codec="libvpx-vp9",
    ),
    "size_changes.mjpeg": lambda path: one_after_another(
        path,
        ("", {"size": (64, 64), "numbers": range(20), "pix_fmt": "yuvj420p"}),
        ("", {"size": (96, 48), "numbers": range(20, 40), "pix_fmt": "yuvj420p"}),
        codec="mjpeg",
        suffix=".mkv",
    ),
    "sampling_changes.ts": lambda path: one_after_another(
        path,
        (f"{X264} bf=2", {"numbers": range(20)}),
        (f"{X264} bf=2", {"numbers": range(20, 40), "pix_fmt": "yuv444p"}),
    ),
    "coding_changes.ts": lambda path: one_after_another(
        path,
        (f"{X264} bf=3", {"numbers": range(20)}),
        (f"{X264} bf=0 coder=vlc refs=1", {"numbers": range(20, 40)}),
    ),
    "coding_changes.mkv": lambda path: one_after_another(
        path,
        (f"{X264} bf=0 coder=vlc refs=1", {"numbers": range(20)}),
        (f"{X264} bf=3 b-pyramid=normal b_strategy=0", {"numbers": range(20, 40)}),
        suffix=".ts",
    ),
    "colours_change.ts": lambda path: bytes_after_another(
        path,
        coloured(base(path, "x264_b3.ts").with_name("colours_0.ts"), SD, False),
        coloured(base(path, "x264_b3.ts").with_name("colours_1.ts"), HD, True),
    ),
    "two_files.ts": lambda path: bytes_after_another(path, base(path, "x264_b3.ts"), base(path, "x264_open_gop.ts")),
    "two_files.mpg": lambda path: bytes_after_another(path, base(path, "mpeg2.mpg"), base(path, "mpeg2.mpg")),
    "two_files.h264": lambda path: bytes_after_another(path, base(path, "x264_b3.h264"), base(path, "x264_b3.h264")),
    "two_files.mjpeg": lambda path: bytes_after_another(path, base(path, "mjpeg.mjpeg"), base(path, "mjpeg.mjpeg")),
    "two_files.flv": lambda path: bytes_after_another(path, base(path, "x264_b3.flv"), base(path, "x264_b3.flv")),
    "two_files.gif": lambda path: bytes_after_another(path, base(path, "gif.gif"), base(path, "gif.gif")),
    "two_files.mkv": lambda path: bytes_after_another(path, base(path, "x264_b3.mkv"), base(path, "x264_b3.mkv")),
    "two_files.obu": lambda path: bytes_after_another(path, base(path, "av1.obu"), base(path, "av1.obu")),
    "two_files.hevc": lambda path: bytes_after_another(
        path, base(path, "x265_open_gop.hevc"), base(path, "x265_open_gop.hevc")
    ),
    **{
        name: partial(lambda path, kinds: several_streams(path, *kinds), kinds=kinds)
        for name, kinds in {
            "sound_first.mp4": ("audio", "large"),
            "sound_first.mkv": ("audio", "large"),
            "sound_first.ts": ("audio", "large"),
            "sound_last.flv": ("large", "audio"),
            "sound_last.avi": ("large", "audio"),
            "two_videos.mp4": ("small", "large"),
            "two_videos.mkv": ("small", "default"),
            "two_videos.ts": ("large", "small", "audio"),
            "two_videos.avi": ("small", "large"),
            "cover_first.mp4": ("cover", "large"),
            "cover_last.mp4": ("large", "cover"),
        }.items()
    },
}
