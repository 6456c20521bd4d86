"""Makes a video small and quick to decode: its frames one for one, key frames close together, at a chosen size."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import av
import av.video.reformatter
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

from vidstill.data.decode.images import ImageArray, list_frame_images, read_image
from vidstill.data.decode.reader import iter_frames, read_frame_rate
from vidstill.data.storage.fetch import BrokenVideo, VideoSource, fetch_source, source_name
from vidstill.parallel.heartbeat import send_heartbeat
from vidstill.utils.types import InputError, check_range

IMAGE_FOLDER_FRAME_RATE = 25.0
"""Frames per second that a video is given which states none, as a folder of pictures."""

_DEFAULT_CRF = {"h264": 25, "mjpeg": 10}  # a clip of Kinetics at 340×256 takes 1.8 and 2.8 times its bytes then
_MAX_CRF = {"h264": 51, "mjpeg": 31}
_H264_OPTIONS = {
    # no arithmetic coding, no deblocking; psnr: bits go where they mend most, not where an eye would see it
    "tune": "fastdecode,psnr",
    "preset": "veryfast",  # slower ones gain nothing where frames are coded by themselves
    "bf": "0",
    "refs": "1",
    "sc_threshold": "0",  # key frames stand at multiples of the interval, wherever the scene changes
}
_SWSCALE_FLAGS = Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_JPEG_QUALITY = 95
_IMAGE_MAGIC_BYTES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png"}  # pictures that are known again by their bytes


@dataclass(frozen=True, kw_only=True)
class TranscodeConfig:
    """What videos are made into.

    Args:
        short_side: pixels of the shorter side; even. What is smaller is not enlarged.
        gop: frames from one key frame to the next; 1: each frame decodes by itself.
        codec: "mjpeg" decodes a little faster at more bytes; each of its frames decodes by itself.
        crf: how coarse: x264's rate factor (0 to 51), or the quantiser of MJPEG (1 to 31); None: 25, or 10.
    """

    short_side: int = 320
    gop: int = 1
    codec: Literal["h264", "mjpeg"] = "h264"
    crf: int | None = None

    def __post_init__(self) -> None:
        check_range(2, 8192, short_side=self.short_side)
        check_range(1, 1000, gop=self.gop)
        check_range(0 if self.codec == "h264" else 1, _MAX_CRF[self.codec], crf=self.crf)
        if self.short_side % 2:
            raise InputError(f"short_side is {self.short_side}; take an even number, such as {self.short_side + 1}")
        if self.codec == "mjpeg" and self.gop > 1:
            raise InputError(f"gop is {self.gop}, but MJPEG codes every frame by itself; take gop 1, or codec h264")

    @property
    def effective_crf(self) -> int:
        """`crf`, or the codec's own default."""
        return _DEFAULT_CRF[self.codec] if self.crf is None else self.crf


@dataclass(frozen=True, kw_only=True)
class TranscodedVideo:
    """A file and what it holds.

    Args:
        suffix: of its name, without a dot.
        codec: "h264" or "mjpeg", or of a picture "jpg" or "png".
        frame_rate: mean frames per second of the source; None for a picture.
    """

    data: bytes
    suffix: str
    codec: str
    num_frames: int
    frame_rate: float | None
    height: int
    width: int


def transcode_video(source: VideoSource, config: TranscodeConfig, frame_rate: float | None = None) -> TranscodedVideo:
    """The same video, smaller and quicker to decode; the same bytes every time.

    Frame n is frame n of the source, upright, at a constant rate. Of odd sizes the last row or column is left out.
    Pixels that are not square stay so. There is no sound. A picture stays as it is, but for a large one, which becomes
    a JPEG of quality 95; a folder of pictures becomes a video.

    Args:
        frame_rate: mean frames per second of the source; None: as its header states it.

    Raises:
        BrokenVideo: the source does not decode from its first frame to its last.
        Unreachable: an address does not answer.
    """
    here = fetch_source(source)
    pictures = list_frame_images(here)
    try:
        if pictures is not None and (isinstance(here, bytes) or here.is_file()):
            return _transcode_image(pictures[0], config.short_side)
        return _encode_video(here, config, frame_rate or read_frame_rate(here) or IMAGE_FOLDER_FRAME_RATE)
    except BrokenVideo as error:
        raise BrokenVideo(source, error.reason) from error


def compute_packed_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Rows and columns, both even, at which a video is packed."""
    short, long = sorted((height, width))
    if short > short_side:
        short, long = short_side, 2 * round(long * short_side / short / 2)
    short, long = (max(2, side - side % 2) for side in (short, long))
    return (short, long) if height < width else (long, short)


def _encode_video(here: Path | bytes, config: TranscodeConfig, rate: float) -> TranscodedVideo:
    pictures = iter_frames(here)
    first = next(pictures, None)
    if first is None:
        raise BrokenVideo(here, "holds no frame that decodes")
    rows, columns = first.shape[:2]
    height, width = compute_packed_size(rows, columns, config.short_side)
    file = io.BytesIO()
    frames = 0
    # the index stands at the end, as PyAV writes it into memory: readers have all of the file at hand
    with av.open(file, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = _add_stream(container, config, height, width, rate)
        for frame in _convert_frames(chain([first], pictures), height, width, config, source_name(here)):
            frame.pts, frame.time_base = frames, 1 / stream.codec_context.framerate
            container.mux(stream.encode(frame))
            frames += 1
            send_heartbeat()
        container.mux(stream.encode())
    return TranscodedVideo(
        data=file.getvalue(),
        suffix="mp4",
        codec=config.codec,
        num_frames=frames,
        frame_rate=rate,
        height=height,
        width=width,
    )


def _add_stream(container: Any, config: TranscodeConfig, height: int, width: int, rate: float) -> Any:
    coarse = str(config.effective_crf)
    if config.codec == "h264":
        options = {**_H264_OPTIONS, "crf": coarse, "g": str(config.gop), "keyint_min": str(config.gop)}
    else:
        options = {"qmin": coarse, "qmax": coarse}
    # containers count in whole numbers; 30000/1001 is met exactly
    stream = container.add_stream(
        {"h264": "libx264"}.get(config.codec, config.codec), rate=Fraction(rate).limit_denominator(10_000)
    )
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    stream.codec_context.thread_count = 1  # processes are what runs side by side
    stream.codec_context.colorspace = Colorspace.SMPTE170M
    stream.codec_context.color_range = _get_color_range(config)
    stream.options = {**options, "threads": "1", "flags": "+bitexact"}
    return stream


def _get_color_range(config: TranscodeConfig) -> ColorRange:
    return ColorRange.MPEG if config.codec == "h264" else ColorRange.JPEG


def _convert_frames(
    pictures: Iterator[ImageArray], height: int, width: int, config: TranscodeConfig, name: str
) -> Iterator[av.VideoFrame]:
    """The pictures at this size as an encoder takes them."""
    convert = av.video.reformatter.VideoReformatter()
    shape: tuple[int, ...] | None = None
    for n, picture in enumerate(pictures):
        shape = shape or picture.shape
        if picture.shape != shape:
            raise BrokenVideo(name, f"changes its size to {picture.shape[1]}x{picture.shape[0]} at frame {n}")
        scaled = min(shape[:2]) > config.short_side
        kept = picture if scaled else picture[:height, :width]
        yield convert.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(kept), format="rgb24"),
            width=width,
            height=height,
            format="yuv420p",
            dst_colorspace=Colorspace.SMPTE170M,
            dst_color_range=_get_color_range(config),
            interpolation=Interpolation.BICUBIC | _SWSCALE_FLAGS,
            threads=1,
        )


def _transcode_image(source: Path | bytes, short_side: int) -> TranscodedVideo:
    picture = read_image(source)
    height, width = picture.shape[:2]
    data = source if isinstance(source, bytes) else source.read_bytes()
    suffix = next((suffix for start, suffix in _IMAGE_MAGIC_BYTES.items() if data.startswith(start)), "")
    if min(height, width) > short_side:
        scale = short_side / min(height, width)
        height, width = round(height * scale), round(width * scale)
        smaller = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        data, suffix = _encode_image(smaller, "jpg"), "jpg"
    elif not suffix:
        data, suffix = _encode_image(Image.fromarray(picture), "png"), "png"
    return TranscodedVideo(
        data=data, suffix=suffix, codec=suffix, num_frames=1, frame_rate=None, height=height, width=width
    )


def _encode_image(image: Image.Image, suffix: str) -> bytes:
    file = io.BytesIO()
    image.save(file, {"jpg": "JPEG", "png": "PNG"}[suffix], quality=_JPEG_QUALITY)
    return file.getvalue()
