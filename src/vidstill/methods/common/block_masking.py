"""Masks of blocks in space and time: boxes are drawn, clip by clip, until they hide what the ratio asks for."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from vidstill.methods.common.masking import Mask, build_mask, count_visible, draw_permutations, require_seeds
from vidstill.utils.rng import draw_uniform
from vidstill.utils.types import Grid

_MAX_TRIES = 100  # so many boxes in a row that cannot be taken end a clip's drawing
_MIN_AREA_DIVISOR = 5  # a box covers a fifth of a slot's places, or more
_MIN_ASPECT = 0.3  # the lowest height to width; the highest is its inverse

Cuboid = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class CuboidMask:
    """ST-MAE's block-wise mask (arXiv:2205.09113, figure 4): rectangles as BEiT's (arXiv:2106.08254), some slots long.

    A box is taken if it hides something new and not more than is still to be hidden. Where 100 boxes in a row cannot
    be taken, single tokens outside the boxes make up the number, which is thereby the same for every clip: the released
    code keeps, in all clips of a batch, as many tokens as their boxes leave on average, and sorts by box or no box.
    Boxes are lower and narrower than the grid: of a grid of one row or column, all is hidden token by token.
    """

    ratio: float = 0.75  # of the tokens; what is kept is rounded down

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        """Boxes are drawn on the CPU, in double precision, so that no device rounds them otherwise."""
        seen = count_visible(self.ratio, grid.num_tokens, "kept", "tokens")
        seeds = require_seeds(seeds)
        numbers = [0] * len(seeds) if seeds.is_meta else seeds.tolist()  # a rehearsal has shapes alone
        blocks = np.stack([draw_cuboid_mask(seed, grid, grid.num_tokens - seen) for seed in numbers])
        anywhere = draw_permutations(seeds, grid.num_tokens)
        in_block = torch.from_numpy(blocks).flatten(1).to(anywhere.device).gather(1, anywhere)
        return build_mask(anywhere.gather(1, in_block.int().argsort(dim=1, stable=True)), seen)


def draw_cuboid_mask(seed: int, grid: Grid, max_masked: int) -> Bool[np.ndarray, "t h w"]:
    """Which tokens the boxes of one clip hide: `most` of them, or fewer where no more boxes can be taken."""
    hidden = np.zeros((grid.t, grid.h, grid.w), dtype=bool)
    failed = 0
    for box in draw_cuboids(seed, grid):
        inside = hidden[box]
        new = inside.size - int(inside.sum())
        if 0 < new <= max_masked:
            inside[:] = True
            max_masked, failed = max_masked - new, 0
        else:
            failed += 1
        if max_masked == 0 or failed == _MAX_TRIES:
            break
    return hidden


def draw_cuboids(seed: int, grid: Grid) -> Iterator[Cuboid]:
    """The boxes that a clip's seed draws, without end; one that would be as high or wide as the grid is empty."""
    for part in count():
        drawn = draw_uniform(torch.tensor([seed], device="cpu"), f"cuboids {part}", 6 * _MAX_TRIES).double()
        areas, aspects, long, first, top, left = rearrange(drawn, "1 (tries six) -> six tries", six=6).numpy()
        least = grid.h * grid.w // _MIN_AREA_DIVISOR
        areas = least + areas * (grid.h * grid.w - least)
        aspects = np.exp((2 * aspects - 1) * -math.log(_MIN_ASPECT))  # log-uniform
        high, wide = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))
        fits = (high < grid.h) & (wide < grid.w)
        sides = np.stack([1 + np.floor(long * grid.t), high * fits, wide * fits])
        room = np.array([[grid.t], [grid.h], [grid.w]]) - sides + 1
        starts = np.floor(np.stack([first, top, left]) * room)
        for start, end in zip(starts.T.astype(int).tolist(), (starts + sides).T.astype(int).tolist(), strict=True):
            yield slice(start[0], end[0]), slice(start[1], end[1]), slice(start[2], end[2])
