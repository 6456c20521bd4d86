"""Random erasing of clips on the device: a rectangle of noise."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.utils.rng import draw_normal, draw_uniform
from vidstill.utils.types import InputError, check_range

_BOX_TRIES = 100  # a rectangle that is too high or too wide is redrawn


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Fill a rectangle with noise, the same in every frame (Zhong et al., arXiv:1708.04896; "cube", "pixel")."""

    probability: float = 0.25  # probability that a clip is erased
    scale: tuple[float, float] = (0.02, 1 / 3)  # smallest and largest fraction of the frame's area
    min_ratio: float = 0.3  # Smallest height to width; the largest is its inverse. Log-uniform.

    def __post_init__(self) -> None:
        check_range(0, 1, probability=self.probability)
        low, high = self.scale
        if not (0 <= low <= high <= 1 and 0 < self.min_ratio <= 1):
            raise InputError(
                f"random erasing takes a scale of 0 <= low <= high <= 1, not {self.scale}, "
                f"and a min_ratio of 0 to 1, not {self.min_ratio}"
            )

    def draw_boxes(self, seeds: Int[Tensor, "b"], height: int, width: int) -> Int[Tensor, "4 b"]:
        """Draw top, left, height and width of each clip's rectangle; all are 0 where nothing is erased."""
        areas, aspects, tops, lefts = rearrange(
            draw_uniform(seeds, "erasing", 4 * _BOX_TRIES), "b (k four) -> four b k", four=4
        )
        highs, wides = self.compute_box_sides(areas, aspects, height, width)
        tops, lefts = torch.floor(tops * (height - highs + 1)), torch.floor(lefts * (width - wides + 1))

        fits = (highs < height) & (wides < width)
        first = fits.int().argmax(dim=1, keepdim=True)  # the first that fits, without a device synchronization
        is_erased = fits.any(dim=1) & (draw_uniform(seeds, "erasing at all", 1)[:, 0] < self.probability)
        boxes = torch.stack([tops, lefts, highs, wides]).long()
        return boxes.take_along_dim(first[None], dim=2)[..., 0] * is_erased

    def compute_box_sides(
        self, area_draws: Float[Tensor, "*n"], ratio_draws: Float[Tensor, "*n"], height: int, width: int
    ) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n"]]:
        """Return heights and widths of rectangles, in whole pixels, from numbers in [0, 1) for their areas and ratios.

        Args:
            area_draws: Position in the range of areas.
            ratio_draws: Position in the log range of ratios.
            height: Rows of the frame.
            width: Columns of the frame.
        """
        low, high = self.scale
        pixels = (low + (high - low) * area_draws) * (height * width)
        ratio = torch.exp((2 * ratio_draws - 1) * -math.log(self.min_ratio))
        return torch.round(torch.sqrt(pixels * ratio)), torch.round(torch.sqrt(pixels / ratio))

    def apply(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        seeds: Int[Tensor, "b"],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> Float[Tensor, "b 3 t h w"]:
        """Fill the drawn rectangles with normal noise, independent for every frame, pixel and colour.

        The noise is standard normal after the model has normalized its input, so it may leave [0, 1] here.

        Args:
            clip: Clips in [0, 1].
            seeds: Their seeds.
            mean: The model's input mean.
            std: The model's input standard deviation.
        """
        t, h, w = clip.shape[-3:]
        # as many pixels as a rectangle can have, each side being rounded up by a half at most
        max_pixels = int(self.scale[1] * h * w + (h + w) / 2) + 1
        noise = rearrange(draw_normal(seeds, "erasing noise", 3 * t * max_pixels), "b (c t p) -> b c t p", c=3, t=t)
        colours = torch.stack([noise[:, c] * std[c] + mean[c] for c in range(3)], dim=1)
        return fill_boxes(clip, self.draw_boxes(seeds, h, w), colours)


def fill_boxes(
    clip: Float[Tensor, "b 3 t h w"], boxes: Int[Tensor, "4 b"], colors: Float[Tensor, "b 3 t p"]
) -> Float[Tensor, "b 3 t h w"]:
    """Fill the clips' rectangles (top, left, height, width) with `colors`, row by row."""
    t, h, w = clip.shape[-3:]
    top, left, high, wide = (rearrange(side, "b -> b 1 1") for side in boxes)
    row = torch.arange(h, device=clip.device)[:, None] - top
    column = torch.arange(w, device=clip.device) - left
    inside = (row >= 0) & (row < high) & (column >= 0) & (column < wide)
    index = repeat((row * wide + column) * inside, "b h w -> b c t (h w)", c=3, t=t)
    filled = rearrange(colors.gather(3, index), "b c t (h w) -> b c t h w", h=h)
    return torch.where(rearrange(inside, "b h w -> b 1 1 h w"), filled.to(clip.dtype), clip)
