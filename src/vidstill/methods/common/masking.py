"""Which tokens are masked: drawn on the device, clip by clip, from the samples' seeds.

Each mask config orders a clip's tokens and shows the first of them. The seed alone decides a clip's mask; the ratio and
the grid decide how many tokens are visible. Masks that count alike mask the same tokens of an image.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Tensor

from vidstill.utils.rng import draw_permutation, draw_uniform
from vidstill.utils.types import Grid, InputError

_MAX_TRIES = 100  # consecutive rejected boxes that end a clip's drawing
_MIN_AREA_DIVISOR = 5  # a box covers a fifth of a time step's patches, or more
_MIN_ASPECT = 0.3  # the lowest height to width; the highest is its inverse

RoundDown = Literal["visible", "masked"]
"""Which number is rounded down: int(n · (1 - ratio)) visible, as in MAE, or int(ratio · n) masked."""


@dataclass(frozen=True)
class Mask:
    """Token numbers, ascending in every clip; all clips have equally many of each kind."""

    visible: Int[Tensor, "b v"]
    masked: Int[Tensor, "b m"]  # from the student
    teacher_only: Int[Tensor, "b e"] | None = None  # those of the masked that AMD's teacher sees

    @property
    def teacher_visible(self) -> Int[Tensor, "b u"]:
        """The teacher's tokens: first the student's, then its additional ones."""
        return self.visible if self.teacher_only is None else torch.cat([self.visible, self.teacher_only], dim=1)


@dataclass(frozen=True, kw_only=True)
class RandomMask:
    """Mask random tokens (MAE, arXiv:2111.06377, section 3; ST-MAE's spacetime-agnostic mask, arXiv:2205.09113)."""

    ratio: float = 0.90  # of the tokens; MAE masks 0.75 of an image
    round_down: RoundDown = "visible"  # "masked": the mask `random` of MVD and MaskAgain

    def draw(self, seeds: Int[Tensor, "b"], grid: Grid) -> Mask:
        num_visible = count_visible(self.ratio, grid.num_tokens, self.round_down, "tokens")
        return build_mask(draw_permutation(seeds, "mask", grid.num_tokens), num_visible)


@dataclass(frozen=True, kw_only=True)
class TubeMask:
    """Mask the same patches in every time step (VideoMAE, section 3.2)."""

    ratio: float = 0.90  # of the patches of a time step; rounded down

    def draw(self, seeds: Int[Tensor, "b"], grid: Grid) -> Mask:
        num_visible = count_visible(self.ratio, grid.h * grid.w, "masked", "patches")
        return build_mask(_draw_tube_order(seeds, grid), grid.t * num_visible)


@dataclass(frozen=True, kw_only=True)
class NestedTubeMask:
    """Mask tubes at two ratios: the student sees a part of what the teacher sees (AMD, section 3.3, eq. 2)."""

    student_ratio: float = 0.90  # of the patches of a time step, masked from the student; rounded down
    teacher_ratio: float = 0.75  # the same for the teacher

    def draw(self, seeds: Int[Tensor, "b"], grid: Grid) -> Mask:
        student = grid.t * count_visible(self.student_ratio, grid.h * grid.w, "masked", "patches", "the student")
        teacher = grid.t * count_visible(self.teacher_ratio, grid.h * grid.w, "masked", "patches", "the teacher")
        if teacher < student:
            raise InputError(
                f"the teacher's mask ratio {self.teacher_ratio} is above the student's {self.student_ratio}; "
                "the teacher must see all that the student sees"
            )
        order = _draw_tube_order(seeds, grid)
        mask = build_mask(order, student)
        return Mask(mask.visible, mask.masked, order[:, student:teacher].sort(dim=1).values)


@dataclass(frozen=True, kw_only=True)
class SpaceMask:
    """ST-MAE's space-only mask (arXiv:2205.09113, figure 4): tubes, of which int(n · (1 - ratio)) are visible.

    The released code counts tokens, not tubes, so that the last tube is visible in part: of 14 × 14 patches and 8 time
    steps, 19 tubes and 4 tokens at 0.90. Its sort leaves open which time steps of it are visible; here the earliest.
    """

    ratio: float = 0.90
    tube_rounding: Literal["released", "whole"] = "released"

    def draw(self, seeds: Int[Tensor, "b"], grid: Grid) -> Mask:
        if self.tube_rounding == "whole":
            num_visible = grid.t * count_visible(self.ratio, grid.h * grid.w, "visible", "patches")
        else:
            num_visible = count_visible(self.ratio, grid.num_tokens, "visible", "tokens")
        return build_mask(_draw_tube_order(seeds, grid), num_visible)


@dataclass(frozen=True, kw_only=True)
class FrameMask:
    """ST-MAE's time-only mask (arXiv:2205.09113, figure 4): whole time steps."""

    ratio: float = 0.75  # of the time steps; rounded to the nearest number, a half to the even one

    def draw(self, seeds: Int[Tensor, "b"], grid: Grid) -> Mask:
        num_visible = count_visible(self.ratio, grid.t, "nearest", "time steps")
        steps = draw_permutation(seeds, "mask", grid.t)
        patches = torch.arange(grid.h * grid.w, device=steps.device)
        order = rearrange(steps[..., None] * (grid.h * grid.w) + patches, "b t s -> b (t s)")
        return build_mask(order, num_visible * grid.h * grid.w)


@dataclass(frozen=True, kw_only=True)
class SlotMask:
    """Mask equally many patches in every time step, others in each (an option of ST-MAE's released code)."""

    ratio: float = 0.90  # of the patches of a time step; the visible ones are rounded down

    def draw(self, seeds: Int[Tensor, "b"], grid: Grid) -> Mask:
        patches = grid.h * grid.w
        num_visible = count_visible(self.ratio, patches, "visible", "patches")
        permutations = draw_permutation(seeds, "mask", grid.num_tokens)
        by_step = permutations.gather(1, (permutations // patches).argsort(dim=1, stable=True))
        return build_mask(rearrange(by_step, "b (t s) -> b (s t)", t=grid.t), grid.t * num_visible)


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


def count_visible(
    ratio: float, n: int, rounding: RoundDown | Literal["nearest"], noun: str, role: str = "the student"
) -> int:
    """Return how many of `n` tokens are visible at a mask ratio; computed in double precision.

    Args:
        ratio: Share that is masked.
        n: Number of tokens, patches or time steps.
        rounding: Which of the two numbers is rounded down; or to the nearest number, a half to the even one.
        noun: What is counted, for error messages.
        role: From whom it is masked, for error messages.

    Raises:
        InputError: The ratio is not in [0, 1), or nothing would be visible.
    """
    if not 0 <= ratio < 1:
        raise InputError(f"a mask ratio of {ratio} for {role} is not a share; take 0 to less than 1")
    masked = round(n * ratio) if rounding == "nearest" else int(ratio * n)
    num_visible = int(n * (1 - ratio)) if rounding == "visible" else n - masked
    if num_visible == 0:
        raise InputError(
            f"a mask ratio of {ratio} masks all {n} {noun} from {role}; take a lower one, or a larger clip"
        )
    return num_visible


def build_mask(order: Int[Tensor, "b n"], num_visible: int) -> Mask:
    """Return the mask that shows the first `num_visible` tokens of each clip's order and masks the others."""
    return Mask(order[:, :num_visible].sort(dim=1).values, order[:, num_visible:].sort(dim=1).values)


def _draw_tube_order(seeds: Int[Tensor, "b"], grid: Grid) -> Int[Tensor, "b n"]:
    """Order all tokens tube by tube: a patch in every time step, then the next patch of a random permutation."""
    patches = draw_permutation(seeds, "mask", grid.h * grid.w)
    steps = torch.arange(grid.t, device=patches.device) * (grid.h * grid.w)
    return rearrange(patches[..., None] + steps, "b s t -> b (s t)")


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


def draw_cuboids(seed: int, grid: Grid) -> Iterator[tuple[slice, slice, slice]]:
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
