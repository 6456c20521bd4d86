"""Which tokens the student sees; drawn on the device, clip by clip, from the seeds that the samples carry.

Every drawer puts the tokens of a clip in an order and shows the first of them. A clip's mask is decided by its seed
alone; how many tokens are seen, by the ratio and the grid. Blocks in space and time are in `cuboids`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from vidstill.utils.rng import draw_permutation
from vidstill.utils.types import Grid, InputError, check_range

RoundDown = Literal["kept", "hidden"]
"""Which of the two numbers is rounded down: int(n · (1 - ratio)) kept, as in MAE, or int(ratio · n) hidden."""


@dataclass(frozen=True)
class Mask:
    """Token numbers, ascending in every clip; all clips have equally many of each kind."""

    visible: Int[Tensor, "b v"]
    masked: Int[Tensor, "b m"]  # hidden from the student
    teacher_only: Int[Tensor, "b e"] | None = None  # those of the masked that AMD's teacher sees

    @property
    def teacher_visible(self) -> Int[Tensor, "b u"]:
        """What the teacher sees: first the student's tokens, then its extra ones."""
        return self.visible if self.teacher_only is None else torch.cat([self.visible, self.teacher_only], dim=1)


@dataclass(frozen=True, kw_only=True)
class RandomMask:
    """Tokens are hidden anywhere (MAE, arXiv:2111.06377, section 3; ST-MAE's spacetime-agnostic, arXiv:2205.09113)."""

    ratio: float = 0.90  # of the tokens; MAE hides 0.75 of an image
    round_down: RoundDown = "kept"  # "hidden": the `random` of MVD and MaskAgain

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        seen = count_visible(self.ratio, grid.num_tokens, self.round_down, "tokens")
        return build_mask(draw_permutations(seeds, grid.num_tokens), seen)


@dataclass(frozen=True, kw_only=True)
class TubeMask:
    """The same places are hidden in every slot of time (VideoMAE, section 3.2)."""

    ratio: float = 0.90  # of the places of a slot; rounded down

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        seen = count_visible(self.ratio, grid.h * grid.w, "hidden", "places")
        return build_mask(_draw_tube_order(seeds, grid), grid.t * seen)


@dataclass(frozen=True, kw_only=True)
class NestedTubeMask:
    """Tubes at two ratios: what the student sees is a part of what the teacher sees (AMD, section 3.3, eq. 2)."""

    student_ratio: float = 0.90  # of the places of a slot that are hidden from it; rounded down
    teacher_ratio: float = 0.75  # the same for the teacher

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        student = grid.t * count_visible(self.student_ratio, grid.h * grid.w, "hidden", "places", "the student")
        teacher = grid.t * count_visible(self.teacher_ratio, grid.h * grid.w, "hidden", "places", "the teacher")
        if teacher < student:
            raise InputError(
                f"the teacher's mask ratio {self.teacher_ratio} is above the student's {self.student_ratio}; "
                "the teacher has to see all that the student sees"
            )
        order = _draw_tube_order(seeds, grid)
        mask = build_mask(order, student)
        return Mask(mask.visible, mask.masked, order[:, student:teacher].sort(dim=1).values)


@dataclass(frozen=True, kw_only=True)
class SpaceMask:
    """ST-MAE's space-only mask (arXiv:2205.09113, figure 4): tubes, of which int(n · (1 - ratio)) are kept.

    Where the released code counts tokens, not tubes, the last tube is kept in part: of 14 × 14 places and 8 slots, 19
    tubes and 4 tokens at 0.90. Which slots of it are kept is left to a sort among equals there; here, the earliest.
    """

    ratio: float = 0.90
    tube_rounding: Literal["released", "whole"] = "released"

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        if self.tube_rounding == "whole":
            seen = grid.t * count_visible(self.ratio, grid.h * grid.w, "kept", "places")
        else:
            seen = count_visible(self.ratio, grid.num_tokens, "kept", "tokens")
        return build_mask(_draw_tube_order(seeds, grid), seen)


@dataclass(frozen=True, kw_only=True)
class FrameMask:
    """Whole slots of time are hidden: ST-MAE's time-only mask (arXiv:2205.09113, figure 4)."""

    ratio: float = 0.75  # of the slots; rounded to the nearest number, a half to the even one

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        _check_ratio(self.ratio)
        seen = grid.t - round(grid.t * self.ratio)
        _check_visible(seen, self.ratio, grid.t, "slots")
        slots = draw_permutations(seeds, grid.t)
        places = torch.arange(grid.h * grid.w, device=slots.device)
        order = rearrange(slots[..., None] * (grid.h * grid.w) + places, "b t s -> b (t s)")
        return build_mask(order, seen * grid.h * grid.w)


@dataclass(frozen=True, kw_only=True)
class SlotMask:
    """Equally many places are hidden in every slot of time, in each slot others (ST-MAE's released code has it)."""

    ratio: float = 0.90  # of the places of a slot; what is kept is rounded down

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        places = grid.h * grid.w
        seen = count_visible(self.ratio, places, "kept", "places")
        anywhere = draw_permutations(seeds, grid.num_tokens)
        by_slot = anywhere.gather(1, (anywhere // places).argsort(dim=1, stable=True))
        return build_mask(rearrange(by_slot, "b (t s) -> b (s t)", t=grid.t), grid.t * seen)


@dataclass(frozen=True, kw_only=True)
class ContextMask:
    """The beginning of the clip is seen; of the rest, tokens are hidden anywhere (MaskAgain's released `time`)."""

    ratio: float = 0.85  # of the tokens after the beginning; rounded down
    context_ratio: float = 0.25  # the share of the clip's tokens that its beginning is; rounded down

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        _check_ratio(self.ratio)
        check_range(0, 1, exclusive=True, context=self.context_ratio)
        beginning = int(grid.t * self.context_ratio * (grid.h * grid.w))
        hidden = int(self.ratio * (grid.num_tokens - beginning))
        anywhere = draw_permutations(seeds, grid.num_tokens)
        order = anywhere.gather(1, (anywhere >= beginning).int().argsort(dim=1, stable=True))
        return build_mask(order, grid.num_tokens - hidden)


def count_visible(ratio: float, n: int, round_down: RoundDown, noun: str, role: str = "the student") -> int:
    """How many of `n` tokens, places, … (`of`: the word for them) are seen at a mask ratio; in double precision.

    Raises:
        InputError: the ratio is not in [0, 1), or nothing would be seen.
    """
    _check_ratio(ratio, role)
    seen = int(n * (1 - ratio)) if round_down == "kept" else n - int(ratio * n)
    _check_visible(seen, ratio, n, noun, role)
    return seen


def draw_permutations(seeds: Int[Tensor, "b"] | None, n: int) -> Int[Tensor, "b n"]:
    """0 … n-1, shuffled clip by clip: drawers that count alike hide the same tokens of an image."""
    return draw_permutation(require_seeds(seeds), "mask", n)


def require_seeds(seeds: Int[Tensor, "b"] | None) -> Int[Tensor, "b"]:
    """The seeds, which a method may go without only where it is given a mask."""
    if seeds is None:
        raise ValueError("neither a mask nor the seeds to draw one from were given")
    return seeds


def build_mask(order: Int[Tensor, "b n"], num_visible: int) -> Mask:
    """The mask that shows the first `measure_visibility` tokens of each clip's order and hides the others."""
    return Mask(order[:, :num_visible].sort(dim=1).values, order[:, num_visible:].sort(dim=1).values)


def _draw_tube_order(seeds: Int[Tensor, "b"] | None, grid: Grid) -> Int[Tensor, "b n"]:
    """All tokens: a place in every slot, from the first to the last, then the next place of a random order."""
    places = draw_permutations(seeds, grid.h * grid.w)
    slots = torch.arange(grid.t, device=places.device) * (grid.h * grid.w)
    return rearrange(places[..., None] + slots, "b s t -> b (s t)")


def _check_ratio(ratio: float, role: str = "the student") -> None:
    if not 0 <= ratio < 1:
        raise InputError(f"a mask ratio of {ratio} for {role} is no share; take 0 up to, but below, 1")


def _check_visible(num_visible: int, ratio: float, n: int, noun: str, role: str = "the student") -> None:
    if num_visible == 0:
        raise InputError(
            f"a mask ratio of {ratio} hides all {n} {noun} from {role}; take a lower one, or a larger clip"
        )
