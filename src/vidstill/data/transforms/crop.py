"""Where a clip is cut out of its video and whether it is mirrored: bytes in, bytes out, in the loader's workers.

Bytes cross to the device, so a resized frame is rounded to bytes: half of one of 255 levels at most from those of the
papers' pipelines that resize real numbers, one or two where PIL resizes bytes. Frames of real numbers are not rounded.
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
"""Between the four nearest pixels, whatever the size (the video papers); or PIL's, antialiased (the image papers)."""


class CropBox(NamedTuple):
    """A part of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def crop_frames(self, frames: Num[np.ndarray, "t h w 3"]) -> Num[np.ndarray, "t rows cols 3"]:
        return frames[:, self.top : self.top + self.height, self.left : self.left + self.width]


# Offsets of multi-scale cropping, (right, down) in quarters of the room left: corners and centre, edges, inner corners.
_CROP_OFFSETS = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),
    *((0, 2), (4, 2), (2, 4), (2, 0)),
    *((1, 1), (3, 1), (1, 3), (3, 3)),
)


@dataclass(frozen=True, kw_only=True)
class MultiScaleCrop:
    """One of a few sizes at one of 13 places, the same for every frame: pre-training's only augmentation (TSN).

    Args:
        scales: of the largest box of the output's shape that fits into the frame; height and width may take neighbours.
    """

    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)

    def __post_init__(self) -> None:
        if not self.scales:
            raise InputError("a crop needs a scale at least, such as 1")
        for scale in self.scales:
            check_range(0, 1, scale=scale)

    def list_boxes(self, height: int, width: int, size: tuple[int, int]) -> list[list[CropBox]]:
        """For each size of box, the places it may have; sizes and places are each drawn uniformly.

        A side within 2 pixels of the output's becomes the output's, if the frame has room for it (the released rule
        does not ask, and pads).
        """
        rows, cols = size
        if width * rows <= height * cols:
            base = max(1, width * rows // cols), width
        else:
            base = height, max(1, height * cols // rows)
        heights, widths = (
            [min(out if abs(side - out) <= 2 else side, room) for side in (max(1, int(whole * s)) for s in self.scales)]
            for whole, out, room in zip(base, size, (height, width), strict=True)
        )
        neighbours = [(h, w) for i, h in enumerate(heights) for j, w in enumerate(widths) if abs(i - j) <= 1]
        return [
            [CropBox((height - h) // 4 * down, (width - w) // 4 * right, h, w) for right, down in _CROP_OFFSETS]
            for h, w in neighbours
        ]

    def draw_box(self, height: int, width: int, size: tuple[int, int], rng: np.random.Generator) -> CropBox:
        boxes = self.list_boxes(height, width, size)
        return boxes[rng.integers(len(boxes))][rng.integers(len(_CROP_OFFSETS))]

    def apply(
        self, frames: Num[np.ndarray, "t h w 3"], size: tuple[int, int], rng: np.random.Generator
    ) -> Num[np.ndarray, "t rows cols 3"]:
        """The drawn box of every frame, resized with antialiasing to `size` (rows, columns)."""
        box = self.draw_box(frames.shape[1], frames.shape[2], size, rng)
        return resize_frames(box.crop_frames(frames), size, "bilinear", antialias=True)


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """A box of any area and aspect, the same for every frame (Inception, arXiv:1409.4842).

    The crop of fine-tuning, and of MAE's and ST-MAE's pre-training.

    Args:
        scale: from the smallest to the largest share of the frame.
        ratio: from the narrowest to the widest box, as width to height; 1 is the aspect of the output. Log-uniform.
        interpolation: how the box becomes the output.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if not (0 <= self.scale[0] <= self.scale[1] <= 1 and 0 < self.ratio[0] <= self.ratio[1] < math.inf):
            raise InputError(
                f"a crop takes an area of 0 <= low <= high <= 1, not {self.scale}, and an aspect of 0 < low <= high, "
                f"not {self.ratio}"
            )

    def draw_box(self, height: int, width: int, size: tuple[int, int], rng: np.random.Generator) -> CropBox:
        """A box that fits, within ten tries; else the largest central one whose aspect is allowed."""
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
        """The drawn box of every frame, resized to `size` (rows, columns)."""
        box = self.draw_box(frames.shape[1], frames.shape[2], size, rng)
        return resize_frames(box.crop_frames(frames), size, self.interpolation)


def flip_horizontal(frames: Num[np.ndarray, "t h w 3"]) -> Num[np.ndarray, "t h w 3"]:
    """Left for right."""
    return np.ascontiguousarray(frames[:, :, ::-1])


def resize_frames(
    frames: Num[np.ndarray, "t h w 3"], size: tuple[int, int], interpolation: Interpolation, *, antialias: bool = False
) -> Num[np.ndarray, "t rows cols 3"]:
    """Frames of another size, with pixel centres at halves; bytes are rounded to bytes, real numbers are not.

    Args:
        interpolation: "bicubic" is PIL's, which is always antialiased, as it was before Pillow 13 (that may go down
            before it goes across); "bilinear" is torch's and OpenCV's.
        antialias: the bilinear one is PIL's too.
    """
    frames = np.ascontiguousarray(frames)
    if frames.shape[1:3] == size:
        return frames
    clip = rearrange(torch.from_numpy(frames), "t h w c -> t c h w")
    if antialias or interpolation == "bicubic":  # PIL's arithmetic on bytes, six times as fast as PIL
        resized = F.interpolate(clip, size, mode=interpolation, antialias=True)
    else:
        resized = F.interpolate(clip.float(), size, mode=interpolation)
        resized = resized.round_().to(torch.uint8) if clip.dtype == torch.uint8 else resized
    return rearrange(resized, "t c h w -> t h w c").contiguous().numpy()


CropRule = Literal["videomae", "stmae"]
"""Whose places test crops have: they differ by a pixel where the room is odd, and in frames that are square."""


def list_view_boxes(
    height: int, width: int, size: tuple[int, int], spatial_crops: int, crop_rule: CropRule = "videomae"
) -> list[CropBox]:
    """Boxes of `size` from one end to the other of the side that has more room, in the middle of the other side.

    One crop is the centre; three are left, centre, right or top, centre, bottom.

    Args:
        crop_rule: "videomae" rounds places between the ends down and the middle to even, and goes down a square frame;
            "stmae" rounds all up and goes across one.
    """
    rows, cols = size
    room = height - rows, width - cols
    down = room[0] >= room[1] if crop_rule == "videomae" else room[0] > room[1]
    top, left = (round(r / 2) if crop_rule == "videomae" else math.ceil(r / 2) for r in room)
    if spatial_crops == 1:
        return [CropBox(top, left, rows, cols)]
    step = max(room) / (spatial_crops - 1)
    offsets = [int(j * step) if crop_rule == "videomae" else math.ceil(j * step) for j in range(spatial_crops)]
    return [CropBox(offset, left, rows, cols) if down else CropBox(top, offset, rows, cols) for offset in offsets]


def crop_views(
    frames: Num[np.ndarray, "t h w 3"],
    short_side: int,
    size: tuple[int, int],
    spatial_crops: int,
    interpolation: Interpolation = "bilinear",
    crop_rule: CropRule = "videomae",
) -> list[Num[np.ndarray, "t rows cols 3"]]:
    """The spatial views of a test: the short side is resized to `short_side`, or to what `size` needs, then cut."""
    _, height, width, _ = frames.shape
    short = min(height, width)
    scaled = tuple(short_side if side == short else short_side * side // short for side in (height, width))
    grow = max(1.0, size[0] / scaled[0], size[1] / scaled[1])
    scaled = tuple(max(least, int(side * grow)) for least, side in zip(size, scaled, strict=True))
    whole = resize_frames(frames, (scaled[0], scaled[1]), interpolation)
    boxes = list_view_boxes(whole.shape[1], whole.shape[2], size, spatial_crops, crop_rule)
    return [np.ascontiguousarray(box.crop_frames(whole)) for box in boxes]
