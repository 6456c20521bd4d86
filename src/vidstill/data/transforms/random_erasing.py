"""Random erasing of clips on the device: rectangles of noise or of one colour."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int, Num
from torch import Tensor

from vidstill.utils.rng import draw_normal, draw_uniform
from vidstill.utils.types import InputError, check_range

_BOX_TRIES = 100  # a rectangle that is too high or too wide is redrawn


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Fill rectangles, the same in every frame ("cube"), with noise or a colour (Zhong et al., arXiv:1708.04896)."""

    probability: float = 0.25  # probability that a clip is erased
    scale: tuple[float, float] = (0.02, 1 / 3)  # smallest and largest fraction of the frame's area, for all rectangles
    min_ratio: float = 0.3  # Smallest height to width; the largest is its inverse. Log-uniform.
    # What fills a rectangle: noise for every pixel of every frame (pixel), a random colour for each frame (rand), or
    # the model's mean (const). Noise is standard normal after the model has normalized its input.
    mode: Literal["pixel", "rand", "const"] = "pixel"
    max_count: int = 1  # rectangles of a clip: 1 to so many, drawn uniformly; their areas are divided by their number

    def __post_init__(self) -> None:
        check_range(0, 1, probability=self.probability)
        check_range(1, 100, max_count=self.max_count)
        low, high = self.scale
        if not (0 <= low <= high <= 1 and 0 < self.min_ratio <= 1):
            raise InputError(
                f"random erasing takes a scale of 0 <= low <= high <= 1, not {self.scale}, "
                f"and a min_ratio of 0 to 1, not {self.min_ratio}"
            )

    def draw_boxes(self, seeds: Int[Tensor, "b"], height: int, width: int) -> Int[Tensor, "max_count 4 b"]:
        """Draw top, left, height and width of each clip's rectangles; all are 0 where nothing is erased."""
        counts = 1 + torch.floor(draw_uniform(seeds, "erasing count", 1) * self.max_count)
        areas, aspects, tops, lefts = rearrange(
            draw_uniform(seeds, "erasing", 4 * _BOX_TRIES * self.max_count),
            "b (n k four) -> four n b k",
            n=self.max_count,
            four=4,
        )
        highs, wides = self.compute_box_sides(areas, aspects, height, width, counts)
        tops, lefts = torch.floor(tops * (height - highs + 1)), torch.floor(lefts * (width - wides + 1))

        fits = (highs < height) & (wides < width)
        first = fits.int().argmax(dim=2, keepdim=True)  # the first that fits, without a device synchronization
        is_erased = fits.any(dim=2) & (draw_uniform(seeds, "erasing at all", 1)[:, 0] < self.probability)
        is_erased &= torch.arange(self.max_count, device=seeds.device)[:, None] < counts[:, 0]
        boxes = torch.stack([tops, lefts, highs, wides], dim=1).long()
        return boxes.take_along_dim(first[:, None], dim=3)[..., 0] * is_erased[:, None]

    def compute_box_sides(
        self,
        area_draws: Float[Tensor, "*n"],
        ratio_draws: Float[Tensor, "*n"],
        height: int,
        width: int,
        count: Num[Tensor, "..."] | int = 1,
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """Return heights and widths of rectangles, in whole pixels, from numbers in [0, 1) for their areas and ratios.

        Args:
            area_draws: Position in the range of areas.
            ratio_draws: Position in the log range of ratios.
            height: Rows of the frame.
            width: Columns of the frame.
            count: Rectangles of the clip.
        """
        low, high = self.scale
        pixels = (low + (high - low) * area_draws) * (height * width) / count
        ratio = torch.exp((2 * ratio_draws - 1) * -math.log(self.min_ratio))
        return torch.round(torch.sqrt(pixels * ratio)), torch.round(torch.sqrt(pixels / ratio))

    def apply(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        seeds: Int[Tensor, "b"],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> Float[Tensor, "b 3 t h w"]:
        """Fill the drawn rectangles, one after the other; noise may leave [0, 1].

        Args:
            clip: Clips in [0, 1].
            seeds: Their seeds.
            mean: The model's input mean.
            std: The model's input standard deviation.
        """
        for number, boxes in enumerate(self.draw_boxes(seeds, *clip.shape[-2:])):
            noise = self._draw_noise(seeds, f"erasing noise {number}" if number else "erasing noise", *clip.shape[-3:])
            colors = torch.stack([noise[:, c] * std[c] + mean[c] for c in range(3)], dim=1)
            clip = fill_boxes(clip, boxes, colors)
        return clip

    def _draw_noise(
        self, seeds: Int[Tensor, "b"], purpose: str, frames: int, height: int, width: int
    ) -> Float[Tensor, "b 3 t p"]:
        if self.mode == "const":
            return torch.zeros(len(seeds), 3, frames, 1, device=seeds.device)
        # as many pixels as a rectangle can have, each side being rounded up by a half at most
        pixels = int(self.scale[1] * height * width + (height + width) / 2) + 1 if self.mode == "pixel" else 1
        return rearrange(draw_normal(seeds, purpose, 3 * frames * pixels), "b (c t p) -> b c t p", c=3, t=frames)


def fill_boxes(
    clip: Float[Tensor, "b 3 t h w"], boxes: Int[Tensor, "4 b"], colors: Float[Tensor, "b 3 t p"]
) -> Float[Tensor, "b 3 t h w"]:
    """Fill the clips' rectangles with colours.

    Args:
        clip: Is not changed.
        boxes: Top, left, height and width of each clip's rectangle.
        colors: Of a rectangle's pixels, row by row; or one for all of them.
    """
    t, h, w = clip.shape[-3:]
    top, left, high, wide = (rearrange(side, "b -> b 1 1") for side in boxes)
    row = torch.arange(h, device=clip.device)[:, None] - top
    column = torch.arange(w, device=clip.device) - left
    inside = (row >= 0) & (row < high) & (column >= 0) & (column < wide)
    index = repeat((row * wide + column) * inside % colors.shape[-1], "b h w -> b c t (h w)", c=3, t=t)
    filled = rearrange(colors.gather(3, index), "b c t (h w) -> b c t h w", h=h)
    return torch.where(rearrange(inside, "b h w -> b 1 1 h w"), filled.to(clip.dtype), clip)
