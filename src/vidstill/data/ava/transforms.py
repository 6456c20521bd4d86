"""Resizes, crops and flips the frames of a clip together with their boxes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Num

from vidstill.data.ava.box_ops import (
    BoxArray,
    BoxRule,
    FrameSize,
    clip_boxes,
    compute_resized_size,
    crop_boxes,
    hflip_boxes,
    resize_boxes,
)
from vidstill.data.ava.opencv_resize import resize_and_crop
from vidstill.data.transforms.crop import CropBox, flip_horizontal, list_view_boxes
from vidstill.utils.types import InputError

ShortSideSampling = Literal["uniform", "inverse_uniform"]
"""Whether the shorter side is uniformly distributed, or its inverse (PySlowFast)."""


@dataclass(frozen=True, kw_only=True)
class ResizeCropFlip:
    """One transform of a clip.

    Args:
        short_side: Shorter side of the resized frames, in pixels.
        crop: Crop of the resized frames; None: the whole frame.
        hflip: Flip left and right.
    """

    short_side: int
    crop: CropBox | None = None
    hflip: bool = False

    def apply(
        self, frames: Num[np.ndarray, "t h w 3"], boxes: BoxArray, rule: BoxRule
    ) -> tuple[Num[np.ndarray, "t rows cols 3"], BoxArray]:
        """Transform frames and boxes.

        Args:
            frames: Frames of the clip.
            boxes: Boxes in pixels of the frames.
            rule: Whose arithmetic is used.

        Returns:
            The frames, and the boxes in their pixels; a box outside of the crop remains, without area.
        """
        size = _get_frame_size(frames)
        resized = compute_resized_size(size, self.short_side, rule)
        frames = resize_and_crop(frames, resized, self.crop or CropBox(0, 0, *resized))
        boxes = resize_boxes(boxes, size, resized, rule)
        if self.crop is not None:
            boxes = crop_boxes(boxes, self.crop.top, self.crop.left, _get_frame_size(frames), rule)
        if self.hflip:
            frames, boxes = flip_horizontal(frames), hflip_boxes(boxes, frames.shape[2])
        return frames, clip_boxes(boxes, _get_frame_size(frames)) if rule == "slowfast" else boxes


def draw_train_transform(
    frame_size: FrameSize,
    *,
    short_side: tuple[int, int],
    short_side_sampling: ShortSideSampling,
    crop_size: FrameSize,
    flip_probability: float,
    rule: BoxRule,
    make_rng: Callable[[str], np.random.Generator],
) -> ResizeCropFlip:
    """Draw the transform of a training clip.

    Args:
        frame_size: Rows and columns of its frames.
        short_side: Smallest and largest shorter side, in pixels.
        short_side_sampling: Distribution of the shorter side.
        crop_size: Rows and columns. If there is room, a crop never reaches the last row or column (as both are released).
        flip_probability: Probability of a horizontal flip.
        rule: Whose arithmetic is used.
        make_rng: Returns the random number generator for a purpose.

    Raises:
        InputError: The crop is larger than the frame.
    """
    low, high = short_side
    if short_side_sampling == "uniform":
        side = round(make_rng("scale").uniform(low, high))
    else:
        side = round(1 / make_rng("scale").uniform(1 / high, 1 / low))
    rng = make_rng("crop")
    height, width = _check_crop_fits(compute_resized_size(frame_size, side, rule), crop_size)
    top, left = (int(rng.integers(0, room)) if room else 0 for room in (height - crop_size[0], width - crop_size[1]))
    return ResizeCropFlip(
        short_side=side, crop=CropBox(top, left, *crop_size), hflip=bool(make_rng("flip").random() < flip_probability)
    )


def build_view_transform(
    frame_size: FrameSize, short_side: int, crop_size: FrameSize | None, rule: BoxRule
) -> ResizeCropFlip:
    """Build the transform of a test clip.

    Args:
        frame_size: Rows and columns of its frames.
        short_side: Shorter side of the resized frames, in pixels.
        crop_size: Rows and columns of a central crop; None: the whole frame.
        rule: Whose arithmetic is used.

    Raises:
        InputError: The crop is larger than the frame.
    """
    if crop_size is None:
        return ResizeCropFlip(short_side=short_side)
    height, width = _check_crop_fits(compute_resized_size(frame_size, short_side, rule), crop_size)
    (center,) = list_view_boxes(height, width, crop_size, 1, "videomae" if rule == "videomae" else "stmae")
    return ResizeCropFlip(short_side=short_side, crop=center)


def _check_crop_fits(size: FrameSize, crop: FrameSize) -> FrameSize:
    if crop[0] > size[0] or crop[1] > size[1]:
        raise InputError(
            f"a frame of {size[0]}x{size[1]} has no room for a crop of {crop[0]}x{crop[1]}; take a larger short_side or a "
            "smaller crop"
        )
    return size


def _get_frame_size(frames: Num[np.ndarray, "t h w 3"]) -> FrameSize:
    return frames.shape[1], frames.shape[2]
