"""What is done to the frames of a key frame's clip and to its boxes: resized, cut and mirrored together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Num

from vidstill.data.ava.box_ops import Boxes, BoxRule, Size, clipped, cut, flipped, resized, resized_size
from vidstill.data.ava.opencv_resize import resized_part
from vidstill.data.transforms.crop import Box, flip, view_boxes
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a clip is looked at.

    Args:
        short_side: pixels that the shorter side of its frames is resized to.
        part: that is cut out of them then; None: they stay whole.
        mirrored: left for right.
    """

    short_side: int
    part: Box | None = None
    mirrored: bool = False

    def apply(
        self, frames: Num[np.ndarray, "t h w 3"], boxes: Boxes, rule: BoxRule
    ) -> tuple[Num[np.ndarray, "t rows cols 3"], Boxes]:
        """
        Args:
            boxes: in pixels of the frames; given back in pixels of what is seen of them. Every one stays, even where
                nothing of it is seen.
        """
        before = _size(frames)
        whole = resized_size(before, self.short_side, rule)
        part = self.part or Box(0, 0, *whole)
        frames = resized_part(frames, whole, part)
        boxes = resized(boxes, before, whole, rule)
        if self.part is not None:
            boxes = cut(boxes, part.top, part.left, _size(frames), rule)
        if self.mirrored:
            frames, boxes = flip(frames), flipped(boxes, frames.shape[2])
        return frames, clipped(boxes, _size(frames)) if rule == "slowfast" else boxes


def drawn(
    size: Size,
    *,
    short_side: tuple[int, int],
    by: Literal["side", "inverse"],
    crop: Size,
    flip: float,
    rule: BoxRule,
    chance: Callable[[str], np.random.Generator],
) -> Look:
    """How a training clip is looked at.

    Args:
        size: of its frames, rows and columns.
        short_side: from the shortest to the longest.
        by: whether it is drawn uniformly, or what is inverse to it.
        crop: rows and columns; it never reaches the last row or column, if there is room (as both are released).
        flip: the probability of a left-right flip.
        chance: for a word.

    Raises:
        InputError: the crop is larger than the frame.
    """
    low, high = short_side
    if by == "side":
        side = round(chance("scale").uniform(low, high))
    else:
        side = round(1 / chance("scale").uniform(1 / high, 1 / low))
    corner = chance("crop")
    height, width = _fitting(resized_size(size, side, rule), crop)
    top, left = (int(corner.integers(0, room)) if room else 0 for room in (height - crop[0], width - crop[1]))
    return Look(short_side=side, part=Box(top, left, *crop), mirrored=bool(chance("flip").random() < flip))


def central(size: Size, short_side: int, crop: Size | None, rule: BoxRule) -> Look:
    """How a clip is looked at in a test: the middle, or the whole of it.

    Raises:
        InputError: the crop is larger than the frame.
    """
    if crop is None:
        return Look(short_side=short_side)
    height, width = _fitting(resized_size(size, short_side, rule), crop)
    (middle,) = view_boxes(height, width, crop, 1, "videomae" if rule == "videomae" else "stmae")
    return Look(short_side=short_side, part=middle)


def _fitting(whole: Size, crop: Size) -> Size:
    if crop[0] > whole[0] or crop[1] > whole[1]:
        raise InputError(
            f"a frame of {whole[0]}x{whole[1]} has no room for a crop of {crop[0]}x{crop[1]}; take a longer "
            "short_side, or a crop that is no wider or higher than any frame is"
        )
    return whole


def _size(frames: Num[np.ndarray, "t h w 3"]) -> Size:
    return frames.shape[1], frames.shape[2]
