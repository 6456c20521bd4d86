"""Transcoding: a video made small and quick to decode, frame for frame, with close key frames, at a chosen size."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.video.reformatter
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image

from vidstill.data.decode.images import ImageArray, list_frame_images, read_image
from vidstill.data.decode.reader import VideoReader
from vidstill.data.storage.fetch import BrokenVideo, VideoSource, fetch_source
from vidstill.parallel.process import send_heartbeat
from vidstill.utils.types import InputError, check_range

IMAGE_FOLDER_FRAME_RATE = 25.0
"""Frames per second of a video whose source states none, such as a directory of images."""

_H264_OPTIONS = {
    # no arithmetic coding, no deblocking; psnr: bits go where they reduce the error, not where an eye would see it
    "tune": "fastdecode,psnr",
    "preset": "veryfast",  # slower ones gain nothing where frames are coded by themselves
    "bf": "0",
    "refs": "1",
    "sc_threshold": "0",  # key frames only at multiples of the interval, wherever the scene changes
}
_INTERPOLATION = (
    Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
)
_JPEG_QUALITY = 95
_IMAGE_MAGIC_BYTES = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png"}


@dataclass(frozen=True, kw_only=True)
class TranscodeConfig:
    """How videos are transcoded to H.264."""

    short_side: int = 320  # pixels of the shorter side, an even number; smaller videos are not enlarged
    gop: int = 1  # frames from one key frame to the next; 1: each frame decodes by itself
    crf: int = 25  # quantizer of x264, 0 to 51; at 25 a clip of Kinetics at 340×256 takes 1.8 times its bytes

    def __post_init__(self) -> None:
        check_range(2, 8192, short_side=self.short_side)
        check_range(1, 1000, gop=self.gop)
        check_range(0, 51, crf=self.crf)
        if self.short_side % 2:
            raise InputError(f"short_side is {self.short_side}; take an even number, such as {self.short_side + 1}")


class TranscodedVideo(NamedTuple):
    """What a packed video's file holds."""

    suffix: str  # of its name, without a dot
    codec: str  # "h264", or "jpg" or "png" for an image
    num_frames: int
    frame_rate: float | None  # mean frames per second of the source; None for an image
    height: int
    width: int


def transcode_video(
    source: VideoSource, file: io.BufferedIOBase, config: TranscodeConfig, frame_rate: float | None = None
) -> TranscodedVideo:
    """Write the same video, smaller and quicker to decode, to a file; the same bytes every time.

    Frame n is frame n of the source, upright, at a constant rate. Odd sizes lose the last row or column. Pixels that
    are not square stay so. There is no sound. An image stays as it is, but a large one becomes a JPEG of quality 95; a
    directory of images becomes a video.

    Args:
        source: The video.
        file: Empty, and open for writing and reading: the video is in memory frame by frame only.
        config: How it is encoded.
        frame_rate: Mean frames per second of the source; None: as its header states.

    Raises:
        BrokenVideo: The source does not decode from its first frame to its last.
        StorageUnreachable: A URL does not answer.
    """
    original = fetch_source(source)
    images = list_frame_images(original)
    try:
        if images is not None and (isinstance(original, bytes) or original.is_file()):
            return _transcode_image(images[0], file, config.short_side)
        with VideoReader(original) as video:
            return _encode_video(video, file, config, frame_rate or video.frame_rate or IMAGE_FOLDER_FRAME_RATE)
    except BrokenVideo as error:
        raise BrokenVideo(source, error.reason) from error


def compute_packed_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the rows and columns, both even, of a packed video."""
    short, long = sorted((height, width))
    if short > short_side:
        short, long = short_side, 2 * round(long * short_side / short / 2)
    short, long = (max(2, side - side % 2) for side in (short, long))
    return (short, long) if height < width else (long, short)


def _encode_video(
    video: VideoReader, file: io.BufferedIOBase, config: TranscodeConfig, frame_rate: float
) -> TranscodedVideo:
    num_frames, stream = 0, None
    # the index is at the end: readers have all of the file at hand
    with av.open(file, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        for frame in _convert_frames(video, config):
            stream = stream or _add_stream(container, config, frame.height, frame.width, frame_rate)
            frame.pts, frame.time_base = num_frames, 1 / stream.codec_context.framerate
            container.mux(stream.encode(frame))
            num_frames += 1
            send_heartbeat()
        if stream is None:
            raise BrokenVideo(video.name, "holds no frame that decodes")
        container.mux(stream.encode())
    return TranscodedVideo("mp4", "h264", num_frames, frame_rate, stream.height, stream.width)


def _add_stream(container: Any, config: TranscodeConfig, height: int, width: int, frame_rate: float) -> Any:
    # containers count in integers; 30000/1001 is met exactly
    stream = container.add_stream("libx264", rate=Fraction(frame_rate).limit_denominator(10_000))
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    stream.codec_context.thread_count = 1  # processes run side by side
    stream.codec_context.colorspace = Colorspace.SMPTE170M
    stream.codec_context.color_range = ColorRange.MPEG
    gop, crf = str(config.gop), str(config.crf)
    stream.options = {**_H264_OPTIONS, "crf": crf, "g": gop, "keyint_min": gop, "threads": "1", "flags": "+bitexact"}
    return stream


def _convert_frames(video: VideoReader, config: TranscodeConfig) -> Iterator[av.VideoFrame]:
    """Yield the frames at the packed size, as the encoder takes them."""
    converter = av.video.reformatter.VideoReformatter()
    shape: tuple[int, ...] | None = None
    target: Any = {"format": "yuv420p", "dst_colorspace": Colorspace.SMPTE170M, "dst_color_range": ColorRange.MPEG}
    for n, timed_frame in enumerate(video.iter_timed_frames()):
        image: ImageArray = timed_frame.to_image()
        shape = shape or image.shape
        if image.shape != shape:
            raise BrokenVideo(video.name, f"changes its size to {image.shape[1]}x{image.shape[0]} at frame {n}")
        height, width = compute_packed_size(shape[0], shape[1], config.short_side)
        cropped = image if min(shape[:2]) > config.short_side else image[:height, :width]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(cropped), format="rgb24")
        yield converter.reformat(frame, width, height, interpolation=_INTERPOLATION, threads=1, **target)


def _transcode_image(source: Path | bytes, file: io.BufferedIOBase, short_side: int) -> TranscodedVideo:
    image = read_image(source)
    height, width = image.shape[:2]
    data = source if isinstance(source, bytes) else source.read_bytes()
    suffix = next((suffix for start, suffix in _IMAGE_MAGIC_BYTES.items() if data.startswith(start)), "")
    if min(height, width) > short_side:
        scale = short_side / min(height, width)
        height, width = round(height * scale), round(width * scale)
        smaller = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        data, suffix = _encode_image(smaller, "JPEG"), "jpg"
    elif not suffix:
        data, suffix = _encode_image(Image.fromarray(image), "PNG"), "png"
    file.write(data)
    return TranscodedVideo(suffix, suffix, 1, None, height, width)


def _encode_image(image: Image.Image, format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format, quality=_JPEG_QUALITY)
    return file.getvalue()
