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

from vidstill.data.decode.images import Picture, pictures_of, read_picture
from vidstill.data.decode.probe import frame_rate
from vidstill.data.decode.stream import decoded
from vidstill.data.storage.fetch import BrokenVideo, Source, fetched, name_of
from vidstill.parallel.heartbeat import beat
from vidstill.utils.types import InputError, within

RATE_OF_PICTURES = 25.0
"""Frames per second that a video is given which states none, as a folder of pictures."""

_COARSENESS = {"h264": 25, "mjpeg": 10}  # a clip of Kinetics at 340×256 takes 1.8 and 2.8 times its bytes then
_COARSEST = {"h264": 51, "mjpeg": 31}
_H264 = {
    # no arithmetic coding, no deblocking; psnr: bits go where they mend most, not where an eye would see it
    "tune": "fastdecode,psnr",
    "preset": "veryfast",  # slower ones gain nothing where frames are coded by themselves
    "bf": "0",
    "refs": "1",
    "sc_threshold": "0",  # key frames stand at multiples of the interval, wherever the scene changes
}
_EXACTLY = Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_JPEG_QUALITY = 95
_AS_THEY_ARE = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png"}  # pictures that are known again by their bytes


@dataclass(frozen=True, kw_only=True)
class RecodeConfig:
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
        within(2, 8192, short_side=self.short_side)
        within(1, 1000, gop=self.gop)
        within(0 if self.codec == "h264" else 1, _COARSEST[self.codec], crf=self.crf)
        if self.short_side % 2:
            raise InputError(f"short_side is {self.short_side}; take an even number, such as {self.short_side + 1}")
        if self.codec == "mjpeg" and self.gop > 1:
            raise InputError(f"gop is {self.gop}, but MJPEG codes every frame by itself; take gop 1, or codec h264")

    @property
    def coarseness(self) -> int:
        """`crf`, or the codec's own default."""
        return _COARSENESS[self.codec] if self.crf is None else self.crf


@dataclass(frozen=True, kw_only=True)
class Recoded:
    """A file and what it holds.

    Args:
        suffix: of its name, without a dot.
        codec: "h264" or "mjpeg", or of a picture "jpg" or "png".
        rate: mean frames per second of the source; None for a picture.
    """

    data: bytes
    suffix: str
    codec: str
    frames: int
    rate: float | None
    height: int
    width: int


def recoded(source: Source, config: RecodeConfig, rate: float | None = None) -> Recoded:
    """The same video, smaller and quicker to decode; the same bytes every time.

    Frame n is frame n of the source, upright, at a constant rate. Of odd sizes the last row or column is left out.
    Pixels that are not square stay so. There is no sound. A picture stays as it is, but for a large one, which becomes
    a JPEG of quality 95; a folder of pictures becomes a video.

    Args:
        rate: mean frames per second of the source; None: as its header states it.

    Raises:
        BrokenVideo: the source does not decode from its first frame to its last.
        Unreachable: an address does not answer.
    """
    here = fetched(source)
    pictures = pictures_of(here)
    try:
        if pictures is not None and (isinstance(here, bytes) or here.is_file()):
            return _picture(pictures[0], config.short_side)
        return _video(here, config, rate or frame_rate(here) or RATE_OF_PICTURES)
    except BrokenVideo as error:
        raise BrokenVideo(str(error).replace(name_of(here), name_of(source))) from error


def size_for(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Rows and columns, both even, at which a video is packed."""
    short, long = sorted((height, width))
    if short > short_side:
        short, long = short_side, 2 * round(long * short_side / short / 2)
    short, long = (max(2, side - side % 2) for side in (short, long))
    return (short, long) if height < width else (long, short)


def _video(here: Path | bytes, config: RecodeConfig, rate: float) -> Recoded:
    pictures = decoded(here)
    first = next(pictures, None)
    if first is None:
        raise BrokenVideo(f"{name_of(here)} holds no frame that decodes")
    rows, columns = first.shape[:2]
    height, width = size_for(rows, columns, config.short_side)
    file = io.BytesIO()
    frames = 0
    # the index stands at the end, as PyAV writes it into memory: readers have all of the file at hand
    with av.open(file, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = _stream(container, config, height, width, rate)
        for frame in _converted(chain([first], pictures), height, width, config, name_of(here)):
            frame.pts, frame.time_base = frames, 1 / stream.codec_context.framerate
            container.mux(stream.encode(frame))
            frames += 1
            beat()
        container.mux(stream.encode())
    return Recoded(
        data=file.getvalue(), suffix="mp4", codec=config.codec, frames=frames, rate=rate, height=height, width=width
    )


def _stream(container: Any, config: RecodeConfig, height: int, width: int, rate: float) -> Any:
    coarse = str(config.coarseness)
    if config.codec == "h264":
        options = {**_H264, "crf": coarse, "g": str(config.gop), "keyint_min": str(config.gop)}
    else:
        options = {"qmin": coarse, "qmax": coarse}
    # containers count in whole numbers; 30000/1001 is met exactly
    stream = container.add_stream(
        {"h264": "libx264"}.get(config.codec, config.codec), rate=Fraction(rate).limit_denominator(10_000)
    )
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    stream.codec_context.thread_count = 1  # processes are what runs side by side
    stream.codec_context.colorspace = Colorspace.SMPTE170M
    stream.codec_context.color_range = _range(config)
    stream.options = {**options, "threads": "1", "flags": "+bitexact"}
    return stream


def _range(config: RecodeConfig) -> ColorRange:
    return ColorRange.MPEG if config.codec == "h264" else ColorRange.JPEG


def _converted(
    pictures: Iterator[Picture], height: int, width: int, config: RecodeConfig, name: str
) -> Iterator[av.VideoFrame]:
    """The pictures at this size as an encoder takes them."""
    convert = av.video.reformatter.VideoReformatter()
    shape: tuple[int, ...] | None = None
    for n, picture in enumerate(pictures):
        shape = shape or picture.shape
        if picture.shape != shape:
            raise BrokenVideo(f"{name} changes its size to {picture.shape[1]}x{picture.shape[0]} at frame {n}")
        scaled = min(shape[:2]) > config.short_side
        kept = picture if scaled else picture[:height, :width]
        yield convert.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(kept), format="rgb24"),
            width=width,
            height=height,
            format="yuv420p",
            dst_colorspace=Colorspace.SMPTE170M,
            dst_color_range=_range(config),
            interpolation=Interpolation.BICUBIC | _EXACTLY,
            threads=1,
        )


def _picture(source: Path | bytes, short_side: int) -> Recoded:
    picture = read_picture(source)
    height, width = picture.shape[:2]
    data = source if isinstance(source, bytes) else source.read_bytes()
    suffix = next((suffix for start, suffix in _AS_THEY_ARE.items() if data.startswith(start)), "")
    if min(height, width) > short_side:
        scale = short_side / min(height, width)
        height, width = round(height * scale), round(width * scale)
        smaller = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        data, suffix = _written(smaller, "jpg"), "jpg"
    elif not suffix:
        data, suffix = _written(Image.fromarray(picture), "png"), "png"
    return Recoded(data=data, suffix=suffix, codec=suffix, frames=1, rate=None, height=height, width=width)


def _written(image: Image.Image, suffix: str) -> bytes:
    file = io.BytesIO()
    image.save(file, {"jpg": "JPEG", "png": "PNG"}[suffix], quality=_JPEG_QUALITY)
    return file.getvalue()
