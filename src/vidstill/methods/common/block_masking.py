"""Block masks in space and time: boxes are drawn, clip by clip, until they cover the mask ratio."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from vidstill.methods.common.masking import Mask, build_mask, count_visible
from vidstill.utils.rng import draw_permutation, draw_uniform
from vidstill.utils.types import Grid

_MAX_TRIES = 100  # consecutive rejected boxes that end a clip's drawing
_MIN_AREA_DIVISOR = 5  # a box covers a fifth of a time step's patches, or more
_MIN_ASPECT = 0.3  # the lowest height to width; the highest is its inverse

Cuboid = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class CuboidMask:
    """ST-MAE's block-wise mask (arXiv:2205.09113, figure 4): BEiT's rectangles (arXiv:2106.08254), several steps long.

    A box is accepted if it masks something new and not more than is still to be masked. After 100 rejected boxes in a
    row, single tokens outside the boxes complete the number, which is thereby the same for every clip: the released
    code shows, in all clips of a batch, as many tokens as their boxes leave on average, and sorts by box or no box.
    Boxes are lower and narrower than the grid: a grid of one row or column is masked token by token.
    """

    ratio: float = 0.75  # of the tokens; the visible ones are rounded down

    def draw(self, seeds: Int[Tensor, "b"], grid: Grid) -> Mask:
        """Draw boxes on the CPU, in double precision, so that no device rounds them otherwise."""
        num_visible = count_visible(self.ratio, grid.num_tokens, "visible", "tokens")
        numbers = [0] * len(seeds) if seeds.is_meta else seeds.tolist()  # a dry run has shapes only
        blocks = np.stack([draw_cuboid_mask(seed, grid, grid.num_tokens - num_visible) for seed in numbers])
        permutations = draw_permutation(seeds, "mask", grid.num_tokens)
        in_block = torch.from_numpy(blocks).flatten(1).to(permutations.device).gather(1, permutations)
        return build_mask(permutations.gather(1, in_block.int().argsort(dim=1, stable=True)), num_visible)


def draw_cuboid_mask(seed: int, grid: Grid, max_masked: int) -> Bool[np.ndarray, "t h w"]:
    """Return which tokens the boxes of one clip mask.

    Args:
        seed: The clip's.
        grid: Its tokens.
        max_masked: How many tokens are masked; fewer if no further box is accepted.
    """
    masked = np.zeros((grid.t, grid.h, grid.w), dtype=bool)
    rejected = 0
    for box in draw_cuboids(seed, grid):
        inside = masked[box]
        new = inside.size - int(inside.sum())
        if 0 < new <= max_masked:
            inside[:] = True
            max_masked, rejected = max_masked - new, 0
        else:
            rejected += 1
        if max_masked == 0 or rejected == _MAX_TRIES:
            break
    return masked


def draw_cuboids(seed: int, grid: Grid) -> Iterator[Cuboid]:
    """Yield the boxes that a clip's seed draws, endlessly; one that would be as high or wide as the grid is empty."""
    for part in count():
        uniform = draw_uniform(torch.tensor([seed], device="cpu"), f"cuboids {part}", 6 * _MAX_TRIES).double()
        areas, aspects, lengths, firsts, tops, lefts = rearrange(uniform, "1 (tries six) -> six tries", six=6).numpy()
        min_area = grid.h * grid.w // _MIN_AREA_DIVISOR
        areas = min_area + areas * (grid.h * grid.w - min_area)
        aspects = np.exp((2 * aspects - 1) * -math.log(_MIN_ASPECT))  # log-uniform
        heights, widths = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))
        fits = (heights < grid.h) & (widths < grid.w)
        sides = np.stack([1 + np.floor(lengths * grid.t), heights * fits, widths * fits])
        room = np.array([[grid.t], [grid.h], [grid.w]]) - sides + 1
        starts = np.floor(np.stack([firsts, tops, lefts]) * room)
        for start, end in zip(starts.T.astype(int).tolist(), (starts + sides).T.astype(int).tolist(), strict=True):
            yield slice(start[0], end[0]), slice(start[1], end[1]), slice(start[2], end[2])
