"""Small videos in many codecs and containers, whose frames show their numbers."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from tiny_videos import BITS, numbered

Builder = Callable[[Path], Any]
"""Writes a video to a path."""

FRAMES = 40  # four to six groups of pictures, with the settings below


@lru_cache(maxsize=4096)
def draw_image(number: int, width: int = 64, height: int = 64) -> np.ndarray:
    """Return an image `(height, width, 3)`: above its number, below a texture that moves and at times jumps.

    A decoder that lacks a frame that it needs cannot get these pixels right by luck.
    """
    bars = numbered(number, height // 2)[:, np.arange(width) * 8 * BITS // width]
    y, x = np.mgrid[: height - height // 2, :width]
    scene = number // 17  # a cut in the scene, where encoders put a keyframe if they may
    waves = 128 + 60 * np.sin((x + 3 * number) / 5 + scene) + 50 * np.cos((y - number) / (3 + scene))
    noise = np.random.default_rng(number).normal(0, 6, waves.shape)
    below = np.stack([waves + noise, 255 - waves, waves / 2 + 3 * number % 100], -1)
    return np.concatenate([bars, below.clip(0, 255).astype(np.uint8)])


def read_number(image: np.ndarray) -> int:
    """Return the number that an image shows, upright or on its side; a wrong one for any other image."""
    height, width = image.shape[:2]
    bars = image[: height // 2, (np.arange(BITS) * width * 2 + width) // (2 * BITS)].mean((0, 2))
    return sum(int(bright) << bit for bit, bright in enumerate(bars > 125))


def parse_options(text: str) -> dict[str, str]:
    """Return `"g=8 bf=3"` as a dict."""
    return dict(option.split("=", 1) for option in text.split())


def open_output(path: Path, muxing: str = "", container: str | None = None) -> Any:
    """Open a container without random marks in it; `muxing` are its options."""
    return av.open(str(path), "w", format=container, options={"fflags": "+bitexact", **parse_options(muxing)})


def encode(
    path: Path,
    codec: str,
    options: str = "",
    pix_fmt: str = "yuv420p",
    *,
    numbers: Sequence[int] = range(FRAMES),
    size: tuple[int, int] = (64, 64),
    rate: Fraction | int = 25,
    stamps: Sequence[int] | None = None,
    prepare: Callable[[Any], None] = lambda stream: None,
    title: str = "",
) -> Path:
    """Write a video.

    Args:
        options: The encoder's, `"name=value name=value"`.
        stamps: Each frame's presentation time in ms; None: one after the other at the rate.
        prepare: Sets what no option sets, before the first frame.
    """
    with open_output(path) as out:
        if title:
            out.metadata["title"] = title
        stream = out.add_stream(codec, rate=rate, options=parse_options(f"threads=1 {options}"))
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        prepare(stream)
        for n, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(draw_image(number, *size), format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[n], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


X264 = "preset=veryfast g=10 mbtree=0"  # at 64x64 macroblock trees come out otherwise from run to run
X265 = "preset=ultrafast x265-params=log-level=0:pools=1:frame-threads=1:keyint=10:rc-lookahead=12"
AV1 = "preset=12 svtav1-params=lp=1:keyint=15"
_VPX = "deadline=realtime cpu-used=8 g=10 b=200k"
_HIDDEN = "cpu-used=5 g=15 b=200k auto-alt-ref=1 lag-in-frames=16"
_LAYERS = (
    "ts-parameters=ts_number_layers=3:ts_target_bitrate=50,100,200:ts_rate_decimator=4,2,1:ts_periodicity=4:"
    "ts_layer_id=0,2,1,2:ts_layering_mode=3"
)

_H264 = {
    "b1": "bf=1",
    "no_pyramid": "bf=3 b_strategy=0 b-pyramid=none",
    "strict_pyramid": "bf=3 b_strategy=0 b-pyramid=strict",
    "normal_pyramid": "bf=3 b_strategy=0 b-pyramid=normal refs=4",
    "open_gop_b8_pyramid": "bf=8 b_strategy=0 b-pyramid=normal x264-params=open-gop=1",
    "ref1": "bf=3 b_strategy=0 refs=1",
    "ref16": "g=40 bf=3 refs=16",
    "weighted": "bf=3 refs=4 weightp=2 x264-params=weightb=1",
    "cavlc": "bf=3 b_strategy=0 coder=vlc",
    "baseline": "profile=baseline",
    "repeated_headers": "bf=3 x264-params=repeat-headers=1",
    "pulldown": "bf=3 x264-params=pulldown=32",
    "lossless": "bf=3 qp=0",
    "keys_every_2": "g=2 bf=1 b_strategy=0",
}
_HEVC = {
    "open_gop_pyramid": "bframes=8:b-adapt=0:open-gop=1:b-pyramid=1:ref=4",
    "radl": "bframes=3:b-adapt=0:radl=2:no-open-gop=1",
    "intra_only": "keyint=1",
    "slices": "bframes=3:slices=2:ctu=16:min-cu-size=8",
    "repeated_headers": "bframes=3:repeat-headers=1",
    "interlaced": "bframes=3:interlace=tff",
}

# codec, options and pixel format; the reader decodes from keyframes in MP4, Matroska and AVI, and elsewhere all
ENCODED: dict[str, tuple[str, str] | tuple[str, str, str]] = {
    **{
        f"x264_b3.{suffix}": ("libx264", f"{X264} bf=3 b_strategy=0")
        for suffix in ("mp4", "mkv", "ts", "avi", "flv", "h264")
    },
    **{
        f"x264_open_gop.{suffix}": ("libx264", f"{X264} bf=3 b_strategy=0 x264-params=open-gop=1")
        for suffix in ("mp4", "mkv", "ts")
    },
    "x264_no_b.mp4": ("libx264", f"{X264} bf=0"),
    "x264_b8.mp4": ("libx264", f"{X264} g=20 bf=8 b_strategy=0"),
    "x264_one_group.mp4": ("libx264", f"{X264} g=250 bf=3"),
    "x264_intra_refresh.mp4": ("libx264", f"{X264} bf=0 intra-refresh=1"),
    "x264_intra_refresh.mkv": ("libx264", f"{X264} bf=3 intra-refresh=1"),
    "x264_slices.mp4": ("libx264", f"{X264} bf=3 b_strategy=0 slices=4"),
    "x264_interlaced.mp4": ("libx264", f"{X264} bf=3 b_strategy=0 flags=+ildct+ilme x264-params=tff=1"),
    **{f"x264_{kind}.mp4": ("libx264", f"{X264} {options}") for kind, options in _H264.items()},
    **{f"x265_{kind}.mp4": ("libx265", f"{X265}:{options}") for kind, options in _HEVC.items()},
    **{f"x264_{kind}.mp4": ("libx264", f"{X264} bf=3", kind) for kind in ("yuv420p10le", "yuv422p", "yuv444p", "gray")},
    **{f"x265_{kind}.mp4": ("libx265", f"{X265}:bframes=3", kind) for kind in ("yuv420p10le", "yuv444p", "gray")},
    "x264_intra_only.mkv": ("libx264", f"{X264} g=1"),
    "x265_open_gop.mp4": ("libx265", f"{X265}:bframes=3:b-adapt=0:open-gop=1"),
    "x265_open_gop.hevc": ("libx265", f"{X265}:bframes=3:b-adapt=0:open-gop=1"),
    "x265_closed.mp4": ("libx265", f"{X265}:bframes=3:b-adapt=0:no-open-gop=1"),
    "x265_closed.mkv": ("libx265", f"{X265}:bframes=4:b-adapt=0:no-open-gop=1:b-pyramid=1"),
    "x265_no_b.mp4": ("libx265", f"{X265}:bframes=0"),
    "x265_layers.mkv": ("libx265", f"{X265}:bframes=7:b-adapt=0:temporal-layers=3:b-pyramid=1"),
    "x265_layers.mp4": ("libx265", f"{X265}:bframes=7:b-adapt=0:temporal-layers=3:b-pyramid=1:no-open-gop=1"),
    "x265_radl.mkv": ("libx265", f"{X265}:bframes=3:b-adapt=0:radl=3:no-open-gop=1"),
    "x265_intra_refresh.mp4": ("libx265", f"{X265}:bframes=0:intra-refresh=1"),
    "vp8.webm": ("libvpx", _VPX),
    "vp8_hidden.webm": ("libvpx", f"{_HIDDEN} arnr-maxframes=7"),
    "vp8_layers.webm": ("libvpx", f"{_VPX} g=20 error-resilient=default {_LAYERS}"),
    "vp8_alpha.webm": ("libvpx", "cpu-used=5 g=10 b=200k auto-alt-ref=0", "yuva420p"),
    "vp9.webm": ("libvpx-vp9", _VPX),
    "vp9_hidden.webm": ("libvpx-vp9", _HIDDEN),
    "vp9_hidden.ivf": ("libvpx-vp9", _HIDDEN),
    "vp9_layers.webm": ("libvpx-vp9", f"{_VPX} g=20 error-resilient=default {_LAYERS}"),
    "vp9_resilient.webm": ("libvpx-vp9", f"{_VPX} error-resilient=default"),
    "vp9_lossless.mkv": ("libvpx-vp9", "cpu-used=5 g=10 lossless=1"),
    "vp9_rgb.mkv": ("libvpx-vp9", "cpu-used=5 g=10 b=200k", "gbrp"),
    "vp9_444.mkv": ("libvpx-vp9", "cpu-used=5 g=10 b=200k", "yuv444p"),
    "av1.mp4": ("libsvtav1", AV1),
    "av1.mkv": ("libsvtav1", AV1.replace("preset=12", "preset=8")),
    "av1.obu": ("libsvtav1", AV1),
    "av1_10bit.mp4": ("libsvtav1", AV1, "yuv420p10le"),
    "av1_low_delay.mp4": ("libsvtav1", f"{AV1}:pred-struct=1"),
    "av1_superres.mp4": ("libsvtav1", f"{AV1}:superres-mode=1:superres-denom=12"),
    "av1_grain.mp4": ("libsvtav1", f"{AV1}:film-grain=20"),
    "av1_open_gop.mkv": ("libsvtav1", f"{AV1.replace('preset=12', 'preset=8')}:irefresh-type=1"),
    "av1_s_frames.mp4": ("libsvtav1", "preset=12 svtav1-params=lp=1:keyint=-1:sframe-dist=8:pred-struct=1"),
    "mpeg2.mpg": ("mpeg2video", "g=10 bf=2"),
    "mpeg2.ts": ("mpeg2video", "g=10 bf=2"),
    "mpeg4.mp4": ("mpeg4", "g=10 bf=0"),
    **{f"mpeg4_b.{suffix}": ("mpeg4", "g=10 bf=2") for suffix in ("mp4", "mkv", "avi", "m4v")},
    "mpeg4_qpel_4mv.avi": ("mpeg4", "g=10 bf=2 flags=+qpel+mv4"),
    "mpeg4_interlaced.avi": ("mpeg4", "g=10 bf=2 flags=+ildct+ilme"),
    "mpeg4_data_partitioned.avi": ("mpeg4", "g=10 data_partitioning=1 ps=200"),
    "mpeg4_closed.mkv": ("mpeg4", "g=10 bf=2 flags=+cgop sc_threshold=1000000000"),
    "msmpeg4v3.avi": ("msmpeg4", "g=10"),
    "msmpeg4v3.asf": ("msmpeg4", "g=10"),
    "wmv2.wmv": ("wmv2", "g=10"),
    "flv1.flv": ("flv", "g=10"),
    "rv20.rm": ("rv20", "g=10 bf=0"),
    "cinepak.avi": ("cinepak", "g=10", "rgb24"),
    "zmbv.avi": ("zmbv", "g=10", "bgr0"),
    "gif.gif": ("gif", "", "rgb8"),
    "qtrle.mov": ("qtrle", "g=10", "rgb24"),
    "raw.avi": ("rawvideo", ""),
    "mjpeg.avi": ("mjpeg", "", "yuvj420p"),
    "mjpeg.mov": ("mjpeg", "", "yuvj422p"),
    "mjpeg.mkv": ("mjpeg", "huffman=default", "yuvj444p"),
    "png.avi": ("png", "", "rgba"),
    "png.mov": ("png", "", "rgb24"),
    "ffv1_with_memory.mkv": ("ffv1", "level=3 g=10 coder=range_def context=1"),
    "prores_4444.mov": ("prores_ks", "profile=4444", "yuva444p10le"),
    "prores_interlaced.mov": ("prores_ks", "flags=+ildct", "yuv422p10le"),
    "prores.mov": ("prores_ks", "", "yuv422p10le"),
}


def make_base(path: Path, name: str) -> Path:
    """Return the encoded video of that name, in a folder beside the one that is made of it."""
    source = path.parent / "parts" / name
    if not source.exists():
        source.parent.mkdir(parents=True, exist_ok=True)
        encode(source, *ENCODED[name])
    return source
