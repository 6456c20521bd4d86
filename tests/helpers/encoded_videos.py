"""Small videos in every coding that FFmpeg writes, whose frames show their numbers."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from tiny_videos import BITS, numbered

Builder = Callable[[Path], Any]
"""Writes a video where it is told."""

FRAMES = 40  # four to six groups of pictures, with the settings below


@lru_cache(maxsize=4096)
def drawn(number: int, width: int = 64, height: int = 64) -> np.ndarray:
    """A picture `(height, width, 3)`: above its number, below a texture that moves and at times jumps.

    A decoder that lacks a picture it needs cannot get these pixels right by luck.
    """
    bars = numbered(number, height // 2)[:, np.arange(width) * 8 * BITS // width]
    y, x = np.mgrid[: height - height // 2, :width]
    scene = number // 17  # a cut in the scene, where encoders put a key frame if they may
    waves = 128 + 60 * np.sin((x + 3 * number) / 5 + scene) + 50 * np.cos((y - number) / (3 + scene))
    noise = np.random.default_rng(number).normal(0, 6, waves.shape)
    below = np.stack([waves + noise, 255 - waves, waves / 2 + 3 * number % 100], -1)
    return np.concatenate([bars, below.clip(0, 255).astype(np.uint8)])


def shown(frame: np.ndarray) -> int:
    """The number that a picture shows, upright or lying on a side; wrong where it is none of ours."""
    height, width = frame.shape[:2]
    bars = frame[: height // 2, (np.arange(BITS) * width * 2 + width) // (2 * BITS)].mean((0, 2))
    return sum(int(bright) << bit for bit, bright in enumerate(bars > 125))


def in_colour(number: int, width: int, height: int) -> av.VideoFrame:
    """The picture as a frame in RGB."""
    return av.VideoFrame.from_ndarray(drawn(number, width, height), format="rgb24")


def paletted(number: int, width: int, height: int) -> av.VideoFrame:
    """The picture in 256 colours, whose places in the palette are others every few pictures."""
    red, green, blue = np.moveaxis(drawn(number, width, height), -1, 0).astype(int)
    shift = number // 4 * 37 % 256
    places = (red // 32 * 32 + green // 32 * 4 + blue // 64 + shift) % 256
    colours = np.roll(np.arange(256), shift)
    palette = np.stack([np.full(256, 255), colours // 32 * 36, colours // 4 % 8 * 36, colours % 4 * 85], -1)
    return av.VideoFrame.from_ndarray((places.astype(np.uint8), palette.astype(np.uint8)), format="pal8")


def options_of(text: str) -> dict[str, str]:
    """`"g=8 bf=3"` as a dict."""
    return dict(word.split("=", 1) for word in text.split())


def muxing_of(text: str) -> dict[str, str]:
    """The same, for a container that has no random marks in it."""
    return {"fflags": "+bitexact", **options_of(text)}


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
    muxing: str = "",
    container: str | None = None,
    prepare: Callable[[Any], None] = lambda stream: None,
) -> Path:
    """Writes a video.

    Args:
        options: the encoder's, `"name=value name=value"`.
        stamps: each frame's presentation time in ms; else one after the other at the rate.
        muxing: the container's options.
        prepare: sets what no option sets, before the first frame.
    """
    with av.open(str(path), "w", format=container, options=muxing_of(muxing)) as out:
        stream = out.add_stream(codec, rate=rate, options=options_of(f"threads=1 {options}"))
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        prepare(stream)
        for n, number in enumerate(numbers):
            frame = paletted(number, *size) if pix_fmt == "pal8" else in_colour(number, *size)
            if stamps is not None:
                frame.pts, frame.time_base = stamps[n], Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


X264 = "preset=veryfast g=10 mbtree=0"  # at 64x64 macroblock trees come out otherwise from run to run
X265 = "preset=ultrafast x265-params=log-level=0:pools=1:frame-threads=1:keyint=10:rc-lookahead=12"

ENCODED: dict[str, tuple[str, str] | tuple[str, str, str]] = {
    # H.264
    "x264_no_b.mp4": ("libx264", f"{X264} bf=0"),
    "x264_b1.mp4": ("libx264", f"{X264} bf=1"),
    "x264_b3.mp4": ("libx264", f"{X264} bf=3 b_strategy=0"),
    "x264_b3.mkv": ("libx264", f"{X264} bf=3 b_strategy=0"),
    "x264_b3.ts": ("libx264", f"{X264} bf=3 b_strategy=0"),
    "x264_b3.mov": ("libx264", f"{X264} bf=3 b_strategy=0"),
    "x264_b3.3gp": ("libx264", f"{X264} bf=3 b_strategy=0"),
    "x264_b3.flv": ("libx264", f"{X264} bf=3 b_strategy=0"),
    "x264_b3.avi": ("libx264", f"{X264} bf=3 b_strategy=0"),
    "x264_b3.h264": ("libx264", f"{X264} bf=3 b_strategy=0"),
    "x264_b3.nut": ("libx264", f"{X264} bf=3 b_strategy=0"),
    "x264_b8.mp4": ("libx264", f"{X264} g=20 bf=8 b_strategy=0"),
    "x264_b3_no_pyramid.mkv": ("libx264", f"{X264} bf=3 b_strategy=0 b-pyramid=none"),
    "x264_b3_strict_pyramid.mkv": ("libx264", f"{X264} bf=3 b_strategy=0 b-pyramid=strict"),
    "x264_b3_normal_pyramid.mkv": ("libx264", f"{X264} bf=3 b_strategy=0 b-pyramid=normal refs=4"),
    "x264_b8_pyramid_ref16.ts": ("libx264", f"{X264} g=20 bf=8 b_strategy=0 b-pyramid=normal refs=16"),
    "x264_ref1.mkv": ("libx264", f"{X264} bf=3 b_strategy=0 refs=1"),
    "x264_ref16.mp4": ("libx264", f"{X264} g=40 bf=3 refs=16"),
    "x264_one_group.mp4": ("libx264", f"{X264} g=250 bf=3"),
    "x264_open_gop.mp4": ("libx264", f"{X264} bf=3 b_strategy=0 x264-params=open-gop=1"),
    "x264_open_gop.mkv": ("libx264", f"{X264} bf=3 b_strategy=0 x264-params=open-gop=1"),
    "x264_open_gop.ts": ("libx264", f"{X264} bf=3 b_strategy=0 x264-params=open-gop=1"),
    "x264_open_gop.avi": ("libx264", f"{X264} bf=3 b_strategy=0 x264-params=open-gop=1"),
    "x264_open_gop_b8_pyramid.mp4": ("libx264", f"{X264} bf=8 b_strategy=0 b-pyramid=normal x264-params=open-gop=1"),
    "x264_intra_refresh.mp4": ("libx264", f"{X264} bf=0 intra-refresh=1"),
    "x264_intra_refresh.mkv": ("libx264", f"{X264} bf=3 intra-refresh=1"),
    "x264_intra_refresh.ts": ("libx264", f"{X264} bf=0 intra-refresh=1"),
    "x264_no_scenecut.mp4": ("libx264", f"{X264} bf=3 x264-params=scenecut=0"),
    "x264_weighted.mp4": ("libx264", f"{X264} bf=3 refs=4 weightp=2 x264-params=weightb=1"),
    "x264_slices.mp4": ("libx264", f"{X264} bf=3 b_strategy=0 slices=4"),
    "x264_cavlc.mp4": ("libx264", f"{X264} bf=3 b_strategy=0 coder=vlc"),
    "x264_baseline.mp4": ("libx264", f"{X264} profile=baseline"),
    "x264_interlaced_tff.mp4": ("libx264", f"{X264} bf=3 b_strategy=0 flags=+ildct+ilme x264-params=tff=1"),
    "x264_interlaced_bff.mkv": ("libx264", f"{X264} bf=3 b_strategy=0 flags=+ildct+ilme x264-params=bff=1"),
    "x264_interlaced_open_gop.ts": (
        "libx264",
        f"{X264} bf=3 b_strategy=0 flags=+ildct+ilme x264-params=tff=1:open-gop=1",
    ),
    "x264_repeated_headers.mp4": ("libx264", f"{X264} bf=3 x264-params=repeat-headers=1"),
    "x264_pulldown.mkv": ("libx264", f"{X264} bf=3 x264-params=pulldown=32"),
    "x264_10bit.mp4": ("libx264", f"{X264} bf=3", "yuv420p10le"),
    "x264_422.mp4": ("libx264", f"{X264} bf=3", "yuv422p"),
    "x264_444.mkv": ("libx264", f"{X264} bf=3", "yuv444p"),
    "x264_rgb.mp4": ("libx264rgb", f"{X264} bf=3", "rgb24"),
    "x264_grey.mp4": ("libx264", f"{X264} bf=3", "gray"),
    "x264_lossless.mp4": ("libx264", f"{X264} bf=3 qp=0"),
    "x264_intra_only.mp4": ("libx264", f"{X264} g=1"),
    "x264_intra_only.mkv": ("libx264", f"{X264} g=1"),
    "x264_intra_only.ts": ("libx264", f"{X264} g=1"),
    "x264_fake_keys_every_2.mp4": ("libx264", f"{X264} g=2 bf=1 b_strategy=0"),
    # H.265
    "x265_open_gop.mp4": ("libx265", f"{X265}:bframes=3:b-adapt=0:open-gop=1"),
    "x265_open_gop.mkv": ("libx265", f"{X265}:bframes=3:b-adapt=0:open-gop=1"),
    "x265_open_gop.ts": ("libx265", f"{X265}:bframes=3:b-adapt=0:open-gop=1"),
    "x265_open_gop.hevc": ("libx265", f"{X265}:bframes=3:b-adapt=0:open-gop=1"),
    "x265_open_gop_pyramid.mp4": ("libx265", f"{X265}:bframes=8:b-adapt=0:open-gop=1:b-pyramid=1:ref=4"),
    "x265_closed.mp4": ("libx265", f"{X265}:bframes=3:b-adapt=0:no-open-gop=1"),
    "x265_closed.mkv": ("libx265", f"{X265}:bframes=4:b-adapt=0:no-open-gop=1:b-pyramid=1"),
    "x265_no_b.mp4": ("libx265", f"{X265}:bframes=0"),
    "x265_layers.mkv": ("libx265", f"{X265}:bframes=7:b-adapt=0:temporal-layers=3:b-pyramid=1"),
    "x265_layers.mp4": ("libx265", f"{X265}:bframes=7:b-adapt=0:temporal-layers=3:b-pyramid=1:no-open-gop=1"),
    "x265_radl.mp4": ("libx265", f"{X265}:bframes=3:b-adapt=0:radl=2:no-open-gop=1"),
    "x265_radl.mkv": ("libx265", f"{X265}:bframes=3:b-adapt=0:radl=3:no-open-gop=1"),
    "x265_intra_refresh.mp4": ("libx265", f"{X265}:bframes=0:intra-refresh=1"),
    "x265_intra_only.mp4": ("libx265", f"{X265}:keyint=1"),
    "x265_slices.mp4": ("libx265", f"{X265}:bframes=3:slices=2:ctu=16:min-cu-size=8"),
    "x265_repeated_headers.mkv": ("libx265", f"{X265}:bframes=3:repeat-headers=1"),
    "x265_interlaced.mkv": ("libx265", f"{X265}:bframes=3:interlace=tff"),
    "x265_10bit.mp4": ("libx265", f"{X265}:bframes=3", "yuv420p10le"),
    "x265_12bit.mp4": ("libx265", f"{X265}:bframes=3", "yuv420p12le"),
    "x265_444.mp4": ("libx265", f"{X265}:bframes=3", "yuv444p"),
    "x265_grey.mp4": ("libx265", f"{X265}:bframes=3", "gray"),
    # VP8, VP9, AV1
    "vp8.webm": ("libvpx", "deadline=realtime cpu-used=8 g=10 b=200k"),
    "vp8_hidden.webm": ("libvpx", "cpu-used=5 g=15 b=200k auto-alt-ref=1 lag-in-frames=16 arnr-maxframes=7"),
    "vp8_hidden.mkv": ("libvpx", "cpu-used=5 g=15 b=200k auto-alt-ref=1 lag-in-frames=16"),
    "vp8_resilient.webm": ("libvpx", "deadline=realtime cpu-used=8 g=10 b=200k error-resilient=default"),
    "vp8_layers.webm": (
        "libvpx",
        "deadline=realtime cpu-used=8 g=20 b=200k error-resilient=default "
        "ts-parameters=ts_number_layers=3:ts_target_bitrate=50,100,200:ts_rate_decimator=4,2,1:ts_periodicity=4:"
        "ts_layer_id=0,2,1,2:ts_layering_mode=3",
    ),
    "vp8_alpha.webm": ("libvpx", "cpu-used=5 g=10 b=200k auto-alt-ref=0", "yuva420p"),
    "vp9.webm": ("libvpx-vp9", "deadline=realtime cpu-used=8 g=10 b=200k"),
    "vp9_hidden.webm": ("libvpx-vp9", "cpu-used=5 g=15 b=200k auto-alt-ref=1 lag-in-frames=16"),
    "vp9_hidden.mp4": ("libvpx-vp9", "cpu-used=5 g=15 b=200k auto-alt-ref=1 lag-in-frames=16"),
    "vp9_hidden.mkv": ("libvpx-vp9", "cpu-used=5 g=15 b=200k auto-alt-ref=6 lag-in-frames=25"),
    "vp9_hidden.ivf": ("libvpx-vp9", "cpu-used=5 g=15 b=200k auto-alt-ref=1 lag-in-frames=16"),
    "vp9_resilient.webm": ("libvpx-vp9", "deadline=realtime cpu-used=8 g=10 b=200k error-resilient=default"),
    "vp9_layers.webm": (
        "libvpx-vp9",
        "deadline=realtime cpu-used=8 g=20 b=200k error-resilient=default "
        "ts-parameters=ts_number_layers=3:ts_target_bitrate=50,100,200:ts_rate_decimator=4,2,1:ts_periodicity=4:"
        "ts_layer_id=0,2,1,2:ts_layering_mode=3",
    ),
    "vp9_alpha.webm": ("libvpx-vp9", "cpu-used=5 g=10 b=200k auto-alt-ref=0", "yuva420p"),
    "vp9_444.mkv": ("libvpx-vp9", "cpu-used=5 g=10 b=200k", "yuv444p"),
    "vp9_lossless.mkv": ("libvpx-vp9", "cpu-used=5 g=10 lossless=1"),
    "vp9_rgb.mkv": ("libvpx-vp9", "cpu-used=5 g=10 b=200k", "gbrp"),
    "av1.mp4": ("libsvtav1", "preset=12 svtav1-params=lp=1:keyint=15"),
    "av1.mkv": ("libsvtav1", "preset=8 svtav1-params=lp=1:keyint=15"),
    "av1.webm": ("libsvtav1", "preset=12 svtav1-params=lp=1:keyint=15"),
    "av1.ivf": ("libsvtav1", "preset=12 svtav1-params=lp=1:keyint=15"),
    "av1.obu": ("libsvtav1", "preset=12 svtav1-params=lp=1:keyint=15"),
    "av1_grain.mp4": ("libsvtav1", "preset=12 svtav1-params=lp=1:keyint=15:film-grain=20"),
    "av1_open_gop.mp4": ("libsvtav1", "preset=8 svtav1-params=lp=1:keyint=15:irefresh-type=1"),
    "av1_open_gop.mkv": ("libsvtav1", "preset=8 svtav1-params=lp=1:keyint=15:irefresh-type=1"),
    "av1_low_delay.mp4": ("libsvtav1", "preset=12 svtav1-params=lp=1:keyint=15:pred-struct=1"),
    "av1_10bit.mp4": ("libsvtav1", "preset=12 svtav1-params=lp=1:keyint=15", "yuv420p10le"),
    "av1_s_frames.mp4": ("libsvtav1", "preset=12 svtav1-params=lp=1:keyint=-1:sframe-dist=8:pred-struct=1"),
    "av1_superres.mp4": ("libsvtav1", "preset=12 svtav1-params=lp=1:keyint=15:superres-mode=1:superres-denom=12"),
    # MPEG-1, 2, 4 and their kin
    "mpeg1.mpg": ("mpeg1video", "g=10 bf=2"),
    "mpeg1.mkv": ("mpeg1video", "g=10 bf=2"),
    "mpeg2.mpg": ("mpeg2video", "g=10 bf=2"),
    "mpeg2.ts": ("mpeg2video", "g=10 bf=2"),
    "mpeg2.mkv": ("mpeg2video", "g=10 bf=2"),
    "mpeg2.mp4": ("mpeg2video", "g=10 bf=2"),
    "mpeg2.m2v": ("mpeg2video", "g=10 bf=2"),
    "mpeg2_closed.ts": ("mpeg2video", "g=10 bf=2 flags=+cgop sc_threshold=1000000000"),
    "mpeg2_interlaced.ts": ("mpeg2video", "g=10 bf=2 flags=+ildct+ilme"),
    "mpeg2_intra_only.mkv": ("mpeg2video", "g=0 bf=0"),
    "mpeg4.mp4": ("mpeg4", "g=10 bf=0"),
    "mpeg4_b.mp4": ("mpeg4", "g=10 bf=2"),
    "mpeg4_b.mkv": ("mpeg4", "g=10 bf=2"),
    "mpeg4_b.avi": ("mpeg4", "g=10 bf=2"),
    "mpeg4_b.m4v": ("mpeg4", "g=10 bf=2"),
    "mpeg4_b.ts": ("mpeg4", "g=10 bf=2"),
    "mpeg4_closed.mkv": ("mpeg4", "g=10 bf=2 flags=+cgop sc_threshold=1000000000"),
    "mpeg4_qpel_4mv.avi": ("mpeg4", "g=10 bf=2 flags=+qpel+mv4"),
    "mpeg4_interlaced.avi": ("mpeg4", "g=10 bf=2 flags=+ildct+ilme"),
    "mpeg4_data_partitioned.avi": ("mpeg4", "g=10 data_partitioning=1 ps=200"),
    "mpeg4_big_b.mkv": ("mpeg4", "g=10 bf=2 brd_scale=0 b_strategy=0"),
    "msmpeg4v2.avi": ("msmpeg4v2", "g=10"),
    "msmpeg4v3.avi": ("msmpeg4", "g=10"),
    "msmpeg4v3.asf": ("msmpeg4", "g=10"),
    "wmv1.wmv": ("wmv1", "g=10"),
    "wmv2.wmv": ("wmv2", "g=10"),
    "wmv2.avi": ("wmv2", "g=10"),
    "flv1.flv": ("flv", "g=10"),
    "flv1.avi": ("flv", "g=10"),
    "h263p.avi": ("h263p", "g=10"),
    "rv10.rm": ("rv10", "g=10"),
    "rv20.rm": ("rv20", "g=10 bf=0"),
    "snow.avi": ("snow", "g=10 strict=experimental", "yuv420p"),
    "svq1.mov": ("svq1", "g=10", "yuv410p"),
    "cinepak.avi": ("cinepak", "g=10", "rgb24"),
    "roq.roq": ("roqvideo", "", "yuvj444p"),
    "asv1.avi": ("asv1", ""),
    # Screens and palettes: each picture changes the one before
    "gif.gif": ("gif", "", "rgb8"),
    "gif_no_offsets.gif": ("gif", "gifflags=-offsetting", "rgb8"),
    "gif_no_differences.gif": ("gif", "gifflags=-transdiff-offsetting", "rgb8"),
    "apng.apng": ("apng", "g=10", "rgba"),
    "qtrle.mov": ("qtrle", "g=10", "rgb24"),
    "rpza.mov": ("rpza", "g=10", "rgb555le"),
    "smc.mov": ("smc", "g=10", "pal8"),
    "msrle.avi": ("msrle", "g=10", "pal8"),
    "msvideo1.avi": ("msvideo1", "g=10", "rgb555le"),
    "zmbv.avi": ("zmbv", "g=10", "bgr0"),
    "flashsv.flv": ("flashsv", "g=10", "bgr24"),
    "flashsv2.flv": ("flashsv2", "g=10", "bgr24"),
    "palette.avi": ("rawvideo", "", "pal8"),
    "palette.nut": ("rawvideo", "", "pal8"),
    # Every picture on its own, or so it seems
    "mjpeg.avi": ("mjpeg", "", "yuvj420p"),
    "mjpeg.mov": ("mjpeg", "", "yuvj422p"),
    "mjpeg.mp4": ("mjpeg", "", "yuvj420p"),
    "mjpeg.mkv": ("mjpeg", "huffman=default", "yuvj444p"),
    "mjpeg.mjpeg": ("mjpeg", "", "yuvj420p"),
    "ljpeg.avi": ("ljpeg", "", "bgr24"),
    "jpeg2000.mkv": ("jpeg2000", ""),
    "jpegls.avi": ("jpegls", "", "rgb24"),
    "png.mov": ("png", "", "rgb24"),
    "png.avi": ("png", "", "rgba"),
    "ffv1_independent.mkv": ("ffv1", "level=3 g=1 slicecrc=1"),
    "ffv1_with_memory.mkv": ("ffv1", "level=3 g=10 coder=range_def context=1"),
    "ffv1_with_memory.avi": ("ffv1", "level=1 g=10 coder=rice"),
    "ffv1_with_memory_one_group.nut": ("ffv1", "level=3 g=100 slices=4"),
    "huffyuv.avi": ("huffyuv", "", "yuv422p"),
    "ffvhuff_adaptive.avi": ("ffvhuff", "context=1"),
    "utvideo.avi": ("utvideo", "", "yuv422p"),
    "magicyuv.avi": ("magicyuv", "", "gbrp"),
    "prores.mov": ("prores_ks", "", "yuv422p10le"),
    "prores_4444.mov": ("prores_ks", "profile=4444", "yuva444p10le"),
    "prores_interlaced.mov": ("prores_ks", "flags=+ildct", "yuv422p10le"),
    "cfhd.mov": ("cfhd", "", "yuv422p10le"),
    "raw.avi": ("rawvideo", ""),
    "raw.mov": ("rawvideo", "", "uyvy422"),
    "raw.nut": ("rawvideo", "", "gray16le"),
    "v210.mov": ("v210", "", "yuv422p10le"),
}


def base(path: Path, name: str) -> Path:
    """The encoded video of that name, in a folder beside the one that is being made of it."""
    source = path.parent / "parts" / name
    if not source.exists():
        source.parent.mkdir(parents=True, exist_ok=True)
        encode(source, *ENCODED[name])
    return source
