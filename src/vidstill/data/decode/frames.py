"""Decoded frames → upright RGB arrays: one at a time, or the wanted ones of a numbered stream."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from vidstill.data.decode.images import ImageArray
from vidstill.data.storage.fetch import BrokenVideo

Frames = UInt8[np.ndarray, "t h w 3"]

Buffer = UInt8[np.ndarray, "bytes"]

NumberedImage = tuple[int, Callable[[], ImageArray]]
"""A frame's number from 0, and what converts it to upright RGB."""


class BufferTooSmallError(Exception):
    """The frames take more bytes than the buffer has."""


def collect_frames(
    name: str, indices: Sequence[int], images: Iterable[NumberedImage], buffer: Buffer | None = None
) -> Frames:
    """Convert the wanted frames of a numbered stream of them and stop after the last.

    Args:
        name: What error messages call the video.
        indices: Numbers of the wanted frames, in any order; they may repeat.
        images: The frames in presentation order, at least those that are wanted.
        buffer: Where the frames are stored, from its start; None: in new memory.

    Raises:
        BrokenVideo: The stream ends too early, or the frames differ in size.
        BufferTooSmallError: They do not fit.
    """
    positions: dict[int, list[int]] = {}
    for position, index in enumerate(indices):
        positions.setdefault(index, []).append(position)
    frames: Frames | None = None
    num_decoded = 0
    for index, to_image in images:
        num_decoded += 1
        if index in positions:
            image = to_image()
            if frames is None:
                frames = _allocate_frames((len(indices), *image.shape), buffer)
            if frames.shape[1:] != image.shape:
                height, width, _ = image.shape
                raise BrokenVideo(name, f"changes its size to {width}x{height} at frame {index} or before")
            frames[positions.pop(index)] = image
            if not positions:
                return frames
    raise BrokenVideo(name, f"ends early: {num_decoded} frames decode and frame {max(indices)} (from 0) was requested")


def _allocate_frames(shape: tuple[int, ...], buffer: Buffer | None) -> Frames:
    if buffer is None:
        return np.empty(shape, np.uint8)
    if math.prod(shape) > len(buffer):
        raise BufferTooSmallError
    return buffer[: math.prod(shape)].reshape(shape)


def to_images(keyed_frames: Iterable[tuple[Any, av.VideoFrame]]) -> Iterator[tuple[Any, Callable[[], ImageArray]]]:
    """Yield each key with what converts its frame; an image is valid until the next one is converted."""
    reformatter = VideoReformatter()  # one per stream, as it keeps the conversion's tables
    return ((key, partial(_convert_frame, reformatter, frame)) for key, frame in keyed_frames)


def copy_image(to_image: Callable[[], ImageArray]) -> ImageArray:
    return to_image().copy()


def _convert_frame(reformatter: VideoReformatter, frame: av.VideoFrame) -> ImageArray:
    """Return the upright RGB image, which is valid until the next one is converted."""
    rgb = reformatter.reformat(frame, format="rgb24", threads=1)
    plane = rgb.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    image = rows[: rgb.height, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
    return np.rot90(image, round(frame.rotation / 90))  # both count counter-clockwise
