"""Resizes, crops and flips the frames of a clip and their boxes, by the arithmetic of either released code.

A box is x1, y1, x2, y2 in pixels; a frame's size is rows and columns.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, Num, UInt8

from vidstill.data.transforms.crop import CropBox, flip_horizontal, resize_frames

BoxRule = Literal["videomae", "slowfast"]
"""Whose arithmetic is used: that of VideoMAE's detection code, where x2 and y2 belong to the box, or PySlowFast's."""

BoxArray = Float64[np.ndarray, "m 4"]

FrameSize = tuple[int, int]

_FIXED_POINT_ONE = 2048  # weights of OpenCV's resizing are multiples of 1/2048


def to_pixel_boxes(relative_boxes: BoxArray, size: FrameSize, rule: BoxRule) -> BoxArray:
    """Convert fractions of width and height to pixels, clipped at the frame's last pixels.

    VideoMAE's detection code stores corner, width and height with two decimals, and includes the last pixel.
    """
    boxes = relative_boxes * _get_xyxy_scale(size)
    if rule == "videomae":
        corner, extent = np.round(boxes[:, :2], 2), np.round(boxes[:, 2:] - boxes[:, :2], 2)
        boxes = np.concatenate([corner, corner + np.maximum(extent - 1, 0)], axis=1)
    return clip_boxes(boxes, size)


def find_nonempty_boxes(boxes: BoxArray) -> Bool[np.ndarray, "m"]:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def clip_boxes(boxes: BoxArray, size: FrameSize) -> BoxArray:
    """Clip coordinates to those of the first and the last pixel."""
    return np.clip(boxes, 0, _get_xyxy_scale(size) - 1)


def compute_resized_size(size: FrameSize, short_side: int, rule: BoxRule) -> FrameSize:
    """Return the size of a frame whose shorter side becomes `short_side`; the other side is rounded down."""
    short, long = sorted(size)
    if short == short_side:
        return size
    # as in either code: rounding decides where the product is an integer
    other = int(short_side * long / short) if rule == "videomae" else math.floor(long / short * short_side)
    return (short_side, other) if size[0] == short else (other, short_side)


def resize_boxes(boxes: BoxArray, size: FrameSize, new_size: FrameSize, rule: BoxRule) -> BoxArray:
    """Scale boxes by each axis' own ratio, or (PySlowFast) by that of the longer side."""
    ratios = _get_xyxy_scale(new_size) / _get_xyxy_scale(size)
    return boxes * (ratios if rule == "videomae" else ratios[int(size[0] > size[1])])


def translate_boxes(boxes: BoxArray, top: int, left: int) -> BoxArray:
    """Shift boxes into a crop that begins at `top` and `left`."""
    return boxes - np.array([left, top, left, top])


def crop_boxes(boxes: BoxArray, top: int, left: int, size: FrameSize, rule: BoxRule) -> BoxArray:
    """Shift boxes into a crop of this size and clip them; a box outside of it remains, without area."""
    boxes = translate_boxes(boxes, top, left)
    return np.clip(boxes, 0, _get_xyxy_scale(size)) if rule == "videomae" else clip_boxes(boxes, size)


def hflip_boxes(boxes: BoxArray, width: int) -> BoxArray:
    """Flip boxes horizontally."""
    mirrored = width - boxes[:, [2, 1, 0, 3]] - 1
    mirrored[:, 1::2] = boxes[:, 1::2]
    return mirrored


def expand_boxes(boxes: BoxArray, ratios: tuple[float, float], size: FrameSize) -> BoxArray:
    """Grow boxes by shares of their width and height, half of them at each side, clipped at the last pixels."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    more = sides * np.array(ratios) / 2
    return clip_boxes(boxes + np.concatenate([-more, more], axis=1), size)


@dataclass(frozen=True, kw_only=True)
class ResizeCropFlip:
    """One transform of a clip."""

    short_side: int  # of the resized frames, in pixels
    crop: CropBox | None = None  # of the resized frames; None: the whole frame
    hflip: bool = False
    rule: BoxRule

    def apply(
        self, frames: Num[np.ndarray, "t h w 3"], boxes: BoxArray
    ) -> tuple[Num[np.ndarray, "t rows cols 3"], BoxArray]:
        """Transform frames and the boxes in their pixels; a box outside of the crop remains, without area."""
        size = frames.shape[1], frames.shape[2]
        resized = compute_resized_size(size, self.short_side, self.rule)
        frames = resize_and_crop(frames, resized, self.crop or CropBox(0, 0, *resized))
        boxes = resize_boxes(boxes, size, resized, self.rule)
        new_size = frames.shape[1], frames.shape[2]
        if self.crop is not None:
            boxes = crop_boxes(boxes, self.crop.top, self.crop.left, new_size, self.rule)
        if self.hflip:
            frames, boxes = flip_horizontal(frames), hflip_boxes(boxes, new_size[1])
        return frames, clip_boxes(boxes, new_size) if self.rule == "slowfast" else boxes


def _get_xyxy_scale(size: FrameSize) -> Float64[np.ndarray, "4"]:
    """Return width, height, width, height."""
    height, width = size
    return np.array([width, height, width, height], np.float64)


def resize_and_crop(
    frames: Num[np.ndarray, "t h w 3"], size: tuple[int, int], crop: CropBox
) -> Num[np.ndarray, "t rows cols 3"]:
    """Resize frames and crop them; pixels outside the crop are not computed.

    Bytes are resized by OpenCV's fixed-point arithmetic, which both released codes use: values between are cut to a
    64th of a level. Floating-point frames are not rounded.

    Args:
        size: Rows and columns before the crop.
    """
    if frames.shape[1:3] == size or frames.dtype != np.uint8:
        return np.ascontiguousarray(crop.crop_frames(resize_frames(frames, size, "bilinear")))
    return _resize_uint8(frames, size, crop)


def _resize_uint8(
    frames: UInt8[np.ndarray, "t h w 3"], size: tuple[int, int], part: CropBox
) -> UInt8[np.ndarray, "t r c 3"]:
    _, height, width, _ = frames.shape
    row, of_upper, of_lower = _compute_linear_weights(height, size[0], part.top, part.height)
    column, of_left, of_right = _compute_linear_weights(width, size[1], part.left, part.width)
    # OpenCV copies the outermost column, but interpolates the outermost row with itself, and truncates twice
    beyond = (column < 0) | (column + 1 >= width)
    of_left, of_right = np.where(beyond, _FIXED_POINT_ONE, of_left), np.where(beyond, 0, of_right)
    left, right = ((np.clip(index, 0, width - 1)[:, None] * 3 + np.arange(3)).ravel() for index in (column, column + 1))
    of_left, of_right = (np.repeat(shares, 3).astype(np.int32) for shares in (of_left, of_right))
    upper, lower = (np.clip(index, 0, height - 1) for index in (row, row + 1))
    first, end = upper[0], lower[-1] + 1
    out = np.empty((len(frames), part.height, part.width, 3), np.uint8)
    for frame, result in zip(frames, out, strict=True):  # one frame at a time fits into the processor's cache
        rows = frame[first:end].reshape(end - first, -1)
        mixed = np.take(rows, left, axis=1) * of_left
        mixed += np.take(rows, right, axis=1) * of_right
        mixed >>= 4
        above, below = mixed[upper - first] * of_upper[:, None], mixed[lower - first] * of_lower[:, None]
        above >>= 16
        below >>= 16
        above += below
        above += 2
        above >>= 2
        result[...] = above.reshape(result.shape)
    return out


def _compute_linear_weights(
    before: int, after: int, first: int, count: int
) -> tuple[Int64[np.ndarray, "n"], Int32[np.ndarray, "n"], Int32[np.ndarray, "n"]]:
    """Return the first of two source pixels, and both weights, of `count` pixels from `first` on, of a resized side."""
    positions = ((np.arange(first, first + count) + 0.5) * (before / after) - 0.5).astype(np.float32)
    low = np.floor(positions)
    share = positions - low
    of_low, of_high = (np.rint(each * np.float32(_FIXED_POINT_ONE)).astype(np.int32) for each in (1 - share, share))
    return low.astype(np.int64), of_low, of_high
