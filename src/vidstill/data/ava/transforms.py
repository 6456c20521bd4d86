"""What is done to the frames of a key frame's clip and to its boxes: resized, cut and mirrored together."""

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


@dataclass(frozen=True, kw_only=True)
class ResizeCropFlip:
    """How a clip is looked at.

    Args:
        short_side: pixels that the shorter side of its frames is resized to.
        crop: that is cut out of them then; None: they stay whole.
        hflip: left for right.
    """

    short_side: int
    crop: CropBox | None = None
    hflip: bool = False

    def apply(
        self, frames: Num[np.ndarray, "t h w 3"], boxes: BoxArray, rule: BoxRule
    ) -> tuple[Num[np.ndarray, "t rows cols 3"], BoxArray]:
        """
        Args:
            boxes: in pixels of the frames; given back in pixels of what is seen of them. Every one stays, even where
                nothing of it is seen.
        """
        before = _get_frame_size(frames)
        whole = compute_resized_size(before, self.short_side, rule)
        part = self.crop or CropBox(0, 0, *whole)
        frames = resize_and_crop(frames, whole, part)
        boxes = resize_boxes(boxes, before, whole, rule)
        if self.crop is not None:
            boxes = crop_boxes(boxes, part.top, part.left, _get_frame_size(frames), rule)
        if self.hflip:
            frames, boxes = flip_horizontal(frames), hflip_boxes(boxes, frames.shape[2])
        return frames, clip_boxes(boxes, _get_frame_size(frames)) if rule == "slowfast" else boxes


def draw_train_transform(
    frame_size: FrameSize,
    *,
    short_side: tuple[int, int],
    short_side_sampling: Literal["side", "inverse"],
    crop_size: FrameSize,
    flip_probability: float,
    rule: BoxRule,
    make_rng: Callable[[str], np.random.Generator],
) -> ResizeCropFlip:
    """How a training clip is looked at.

    Args:
        frame_size: of its frames, rows and columns.
        short_side: from the shortest to the longest.
        short_side_sampling: whether it is drawn uniformly, or what is inverse to it.
        crop_size: rows and columns; it never reaches the last row or column, if there is room (as both are released).
        flip_probability: the probability of a left-right flip.
        make_rng: for a word.

    Raises:
        InputError: the crop is larger than the frame.
    """
    low, high = short_side
    if short_side_sampling == "side":
        side = round(make_rng("scale").uniform(low, high))
    else:
        side = round(1 / make_rng("scale").uniform(1 / high, 1 / low))
    corner = make_rng("crop")
    height, width = _check_crop_fits(compute_resized_size(frame_size, side, rule), crop_size)
    top, left = (int(corner.integers(0, room)) if room else 0 for room in (height - crop_size[0], width - crop_size[1]))
    return ResizeCropFlip(
        short_side=side, crop=CropBox(top, left, *crop_size), hflip=bool(make_rng("flip").random() < flip_probability)
    )


def build_view_transform(
    frame_size: FrameSize, short_side: int, crop_size: FrameSize | None, rule: BoxRule
) -> ResizeCropFlip:
    """How a clip is looked at in a test: the middle, or the whole of it.

    Raises:
        InputError: the crop is larger than the frame.
    """
    if crop_size is None:
        return ResizeCropFlip(short_side=short_side)
    height, width = _check_crop_fits(compute_resized_size(frame_size, short_side, rule), crop_size)
    (middle,) = list_view_boxes(height, width, crop_size, 1, "videomae" if rule == "videomae" else "stmae")
    return ResizeCropFlip(short_side=short_side, crop=middle)


def _check_crop_fits(whole: FrameSize, crop: FrameSize) -> FrameSize:
    if crop[0] > whole[0] or crop[1] > whole[1]:
        raise InputError(
            f"a frame of {whole[0]}x{whole[1]} has no room for a crop of {crop[0]}x{crop[1]}; take a longer "
            "short_side, or a crop that is no wider or higher than any frame is"
        )
    return whole


def _get_frame_size(frames: Num[np.ndarray, "t h w 3"]) -> FrameSize:
    return frames.shape[1], frames.shape[2]
