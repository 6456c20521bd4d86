"""Boxes around persons as frames are resized, cut and mirrored, by the arithmetic of either released code.

A box is x1, y1, x2, y2 in pixels; a frame's size is rows and columns.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

BoxRule = Literal["videomae", "slowfast"]
"""Whose arithmetic boxes and frames have: of VideoMAE's detection code, where a box holds its last pixel, or
PySlowFast's."""

BoxArray = Float64[np.ndarray, "m 4"]

FrameSize = tuple[int, int]


def to_pixel_boxes(relative_boxes: BoxArray, size: FrameSize, rule: BoxRule) -> BoxArray:
    """Boxes stated as fractions of the width and height, cut off at the frame's last pixels.

    VideoMAE's detection code has them in a file as corner, width and height with two decimals, and counts the last
    pixel as the box's own.
    """
    boxes = relative_boxes * _get_xyxy_scale(size)
    if rule == "videomae":
        corner, extent = np.round(boxes[:, :2], 2), np.round(boxes[:, 2:] - boxes[:, :2], 2)
        boxes = np.concatenate([corner, corner + np.maximum(extent - 1, 0)], axis=1)
    return clip_boxes(boxes, size)


def find_nonempty_boxes(boxes: BoxArray) -> Bool[np.ndarray, "m"]:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def clip_boxes(boxes: BoxArray, size: FrameSize) -> BoxArray:
    """No coordinate before the first pixel, or behind the last one's."""
    return np.clip(boxes, 0, _get_xyxy_scale(size) - 1)


def compute_resized_size(size: FrameSize, short_side: int, rule: BoxRule) -> FrameSize:
    """Of a frame whose shorter side becomes so long; what is left of a pixel of the other one is cut off."""
    short, long = sorted(size)
    if short == short_side:
        return size
    # as either code has it: rounding decides where the product is whole
    other = int(short_side * long / short) if rule == "videomae" else math.floor(long / short * short_side)
    return (short_side, other) if size[0] == short else (other, short_side)


def resize_boxes(boxes: BoxArray, size: FrameSize, new_size: FrameSize, rule: BoxRule) -> BoxArray:
    """By each axis' own ratio, or (PySlowFast) both by that of the longer side."""
    ratios = _get_xyxy_scale(new_size) / _get_xyxy_scale(size)
    return boxes * (ratios if rule == "videomae" else ratios[int(size[0] > size[1])])


def undo_box_resize(boxes: BoxArray, size: FrameSize, short_side: int) -> BoxArray:
    """Boxes of a frame whose shorter side was resized, in the frame of this size that it was made from (PySlowFast)."""
    return boxes * (min(size) / short_side)


def translate_boxes(boxes: BoxArray, top: int, left: int) -> BoxArray:
    """In a part of the frame that begins there."""
    return boxes - np.array([left, top, left, top])


def crop_boxes(boxes: BoxArray, top: int, left: int, size: FrameSize, rule: BoxRule) -> BoxArray:
    """In a part of the frame; of a box outside of it nothing is left, but a box it remains."""
    boxes = translate_boxes(boxes, top, left)
    return np.clip(boxes, 0, _get_xyxy_scale(size)) if rule == "videomae" else clip_boxes(boxes, size)


def hflip_boxes(boxes: BoxArray, width: int) -> BoxArray:
    """Left for right."""
    mirrored = width - boxes[:, [2, 1, 0, 3]] - 1
    mirrored[:, 1::2] = boxes[:, 1::2]
    return mirrored


def expand_boxes(boxes: BoxArray, ratios: tuple[float, float], size: FrameSize) -> BoxArray:
    """Wider and higher by these shares, half of them at each side; cut off at the frame's last pixels."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    more = sides * np.array(ratios) / 2
    return clip_boxes(boxes + np.concatenate([-more, more], axis=1), size)


def _get_xyxy_scale(size: FrameSize) -> Float64[np.ndarray, "4"]:
    """For x, y, x, y."""
    height, width = size
    return np.array([width, height, width, height], np.float64)
