"""Resizes, crops and flips the frames of a clip and their boxes, by the arithmetic of either released code.

A box is x1, y1, x2, y2 in pixels; a frame's size is rows and columns.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Num

from vidstill.data.ava.opencv_resize import resize_and_crop
from vidstill.data.transforms.crop import CropBox, flip_horizontal

BoxRule = Literal["videomae", "slowfast"]
"""Whose arithmetic is used: that of VideoMAE's detection code, where x2 and y2 belong to the box, or PySlowFast's."""

BoxArray = Float64[np.ndarray, "m 4"]

FrameSize = tuple[int, int]


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


def crop_boxes(boxes: BoxArray, top: int, left: int, size: FrameSize, rule: BoxRule) -> BoxArray:
    """Shift boxes into a crop of this size and clip them; a box outside of it remains, without area."""
    boxes = boxes - np.array([left, top, left, top])
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
