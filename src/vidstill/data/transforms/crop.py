"""Crop, resize and flip clips, in the loader's workers.

Clips go to the device as uint8, so resized frames are rounded: at most half a level from the papers' pipelines that
resize floats, one or two levels from those where PIL resizes bytes. Float frames are not rounded.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Num

from vidstill.utils.types import InputError, check_range

Interpolation = Literal["bilinear", "bicubic"]
"""Bilinear between the four nearest pixels without antialiasing (video papers), or PIL's bicubic (image papers)."""


class CropBox(NamedTuple):
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def crop_frames(self, frames: Num[np.ndarray, "t h w 3"]) -> Num[np.ndarray, "t rows cols 3"]:
        return frames[:, self.top : self.top + self.height, self.left : self.left + self.width]


# Offsets of multi-scale crops, (right, down) in quarters of the margin: corners and centre, edges, inner corners.
_CROP_OFFSETS = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),
    *((0, 2), (4, 2), (2, 4), (2, 0)),
    *((1, 1), (3, 1), (1, 3), (3, 3)),
)


@dataclass(frozen=True, kw_only=True)
class MultiScaleCrop:
    """Crop one of a few sizes at one of 13 positions, the same for every frame: pre-training's augmentation (TSN)."""

    # fractions of the largest box of the output's shape that fits into the frame; height and width may take
    # neighbouring scales
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)

    def __post_init__(self) -> None:
        if not self.scales:
            raise InputError("a multi-scale crop needs at least one scale, such as 1")
        for scale in self.scales:
            check_range(0, 1, scale=scale)

    def list_boxes(self, height: int, width: int, size: tuple[int, int]) -> list[list[CropBox]]:
        """Return the positions of each box size; sizes and positions are each drawn uniformly.

        A side within 2 pixels of the output's becomes the output's, if it fits into the frame (the released rule does
        not check, and pads).

        Args:
            height: Rows of the frame.
            width: Columns of the frame.
            size: Rows and columns of the output.
        """
        rows, cols = size
        if width * rows <= height * cols:
            base = max(1, width * rows // cols), width
        else:
            base = height, max(1, height * cols // rows)
        heights, widths = (
            [
                min(out if abs(side - out) <= 2 else side, limit)
                for side in (max(1, int(whole * s)) for s in self.scales)
            ]
            for whole, out, limit in zip(base, size, (height, width), strict=True)
        )
        return [
            [CropBox((height - h) // 4 * down, (width - w) // 4 * right, h, w) for right, down in _CROP_OFFSETS]
            for i, h in enumerate(heights)
            for j, w in enumerate(widths)
            if abs(i - j) <= 1
        ]

    def draw_box(self, height: int, width: int, size: tuple[int, int], rng: np.random.Generator) -> CropBox:
        boxes = self.list_boxes(height, width, size)
        return boxes[rng.integers(len(boxes))][rng.integers(len(_CROP_OFFSETS))]

    def apply(
        self, frames: Num[np.ndarray, "t h w 3"], size: tuple[int, int], rng: np.random.Generator
    ) -> Num[np.ndarray, "t rows cols 3"]:
        """Crop the drawn box of every frame and resize it with antialiasing to `size` (rows, columns)."""
        box = self.draw_box(frames.shape[1], frames.shape[2], size, rng)
        return resize_frames(box.crop_frames(frames), size, "bilinear", antialias=True)


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """Crop a box of random area and aspect, the same for every frame (Inception, arXiv:1409.4842).

    It is the crop of fine-tuning, and of MAE's and ST-MAE's pre-training.
    """

    scale: tuple[float, float] = (0.08, 1.0)  # smallest and largest fraction of the frame's area
    # Smallest and largest width to height, relative to the output's. Log-uniform.
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"  # how the box is resized

    def __post_init__(self) -> None:
        if not (0 <= self.scale[0] <= self.scale[1] <= 1 and 0 < self.ratio[0] <= self.ratio[1] < math.inf):
            raise InputError(
                f"a crop takes a scale of 0 <= low <= high <= 1, not {self.scale}, and a ratio of 0 < low <= high, "
                f"not {self.ratio}"
            )

    def draw_box(self, height: int, width: int, size: tuple[int, int], rng: np.random.Generator) -> CropBox:
        """Draw a box that fits, within ten tries; else return the largest central one whose aspect is allowed."""
        low, high = (ratio * size[1] / size[0] for ratio in self.ratio)
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(low), math.log(high)))
            h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < h <= height and 0 < w <= width:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                return CropBox(int(top), int(left), h, w)
        h, w = min(height, max(1, round(width / low))), min(width, max(1, round(height * high)))
        return CropBox((height - h) // 2, (width - w) // 2, h, w)

    def apply(
        self, frames: Num[np.ndarray, "t h w 3"], size: tuple[int, int], rng: np.random.Generator
    ) -> Num[np.ndarray, "t rows cols 3"]:
        """Crop the drawn box of every frame and resize it to `size` (rows, columns)."""
        box = self.draw_box(frames.shape[1], frames.shape[2], size, rng)
        return resize_frames(box.crop_frames(frames), size, self.interpolation)


def flip_horizontal(frames: Num[np.ndarray, "t h w 3"]) -> Num[np.ndarray, "t h w 3"]:
    """Mirror every frame, left to right."""
    return np.ascontiguousarray(frames[:, :, ::-1])


def resize_frames(
    frames: Num[np.ndarray, "t h w 3"], size: tuple[int, int], interpolation: Interpolation, *, antialias: bool = False
) -> Num[np.ndarray, "t rows cols 3"]:
    """Resize frames, with pixel centres at halves; uint8 frames are rounded, float frames are not.

    Args:
        frames: Frames of bytes or of floats.
        size: Rows and columns of the result.
        interpolation: "bicubic" is PIL's before version 13, always antialiased (later ones may resize rows before
            columns); "bilinear" is torch's and OpenCV's.
        antialias: Whether bilinear interpolation is PIL's too.
    """
    if frames.shape[1:3] == size:
        return np.ascontiguousarray(frames)
    antialias = antialias or interpolation == "bicubic"  # PIL's arithmetic on bytes, six times as fast as PIL
    pixels = np.ascontiguousarray(frames, None if antialias else np.float32)
    clip = rearrange(torch.from_numpy(pixels), "t h w c -> t c h w")
    resized = F.interpolate(clip, size, mode=interpolation, antialias=antialias)
    pixels = rearrange(resized, "t c h w -> t h w c").contiguous().numpy()
    # NumPy converts to bytes seven times as fast as torch, and rounds halves to even as well
    return np.rint(pixels, out=pixels).astype(np.uint8) if frames.dtype == np.uint8 and not antialias else pixels


CropRule = Literal["videomae", "stmae"]
"""Whose code positions evaluation crops: they differ by a pixel where the margin is odd, and in square frames."""


def list_view_boxes(
    height: int, width: int, size: tuple[int, int], spatial_crops: int, crop_rule: CropRule = "videomae"
) -> list[CropBox]:
    """Return evenly spaced boxes along the side with the larger margin, centred on the other side.

    One crop is the centre; three are left, centre, right or top, centre, bottom.

    Args:
        height: Rows of the frame.
        width: Columns of the frame.
        size: Rows and columns of a box.
        spatial_crops: Boxes.
        crop_rule: "videomae" rounds offsets down and the centre to even, and moves vertically in a square frame;
            "stmae" rounds all up and moves horizontally there.
    """
    rows, cols = size
    margins = height - rows, width - cols
    is_vertical = margins[0] >= margins[1] if crop_rule == "videomae" else margins[0] > margins[1]
    top, left = (round(margin / 2) if crop_rule == "videomae" else math.ceil(margin / 2) for margin in margins)
    if spatial_crops == 1:
        return [CropBox(top, left, rows, cols)]
    step = max(margins) / (spatial_crops - 1)
    offsets = [int(j * step) if crop_rule == "videomae" else math.ceil(j * step) for j in range(spatial_crops)]
    return [
        CropBox(offset, left, rows, cols) if is_vertical else CropBox(top, offset, rows, cols) for offset in offsets
    ]


def crop_views(
    frames: Num[np.ndarray, "t h w 3"],
    short_side: int,
    size: tuple[int, int],
    spatial_crops: int,
    interpolation: Interpolation = "bilinear",
    crop_rule: CropRule = "videomae",
) -> list[Num[np.ndarray, "t rows cols 3"]]:
    """Resize the short side to `short_side`, or to what `size` needs, and cut the spatial crops of evaluation.

    Args:
        frames: One temporal clip.
        short_side: Pixels of the shorter side.
        size: Rows and columns of a crop.
        spatial_crops: Crops of the clip.
        interpolation: How frames are resized.
        crop_rule: Whose code positions the crops.
    """
    _, height, width, _ = frames.shape
    short = min(height, width)
    scaled = [short_side if side == short else short_side * side // short for side in (height, width)]
    factor = max(1.0, size[0] / scaled[0], size[1] / scaled[1])
    rows, cols = (max(smallest, int(side * factor)) for smallest, side in zip(size, scaled, strict=True))
    resized = resize_frames(frames, (rows, cols), interpolation)
    boxes = list_view_boxes(rows, cols, size, spatial_crops, crop_rule)
    return [np.ascontiguousarray(box.crop_frames(resized)) for box in boxes]
