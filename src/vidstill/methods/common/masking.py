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

from vidstill.utils.rng import shuffled
from vidstill.utils.types import Grid, InputError, within

Counts = Literal["kept", "hidden"]
"""Which of the two numbers is rounded down: int(n · (1 - ratio)) kept, as in MAE, or int(ratio · n) hidden."""


@dataclass(frozen=True)
class Mask:
    """Token numbers, ascending in every clip; all clips have equally many of each kind."""

    visible: Int[Tensor, "b v"]
    masked: Int[Tensor, "b m"]  # hidden from the student
    extra: Int[Tensor, "b e"] | None = None  # those of the masked that AMD's teacher sees

    @property
    def teacher_visible(self) -> Int[Tensor, "b u"]:
        """What the teacher sees: first the student's tokens, then its extra ones."""
        return self.visible if self.extra is None else torch.cat([self.visible, self.extra], dim=1)


@dataclass(frozen=True, kw_only=True)
class RandomMask:
    """Tokens are hidden anywhere (MAE, arXiv:2111.06377, section 3; ST-MAE's spacetime-agnostic, arXiv:2205.09113)."""

    ratio: float = 0.90  # of the tokens; MAE hides 0.75 of an image
    counts: Counts = "kept"  # "hidden": the `random` of MVD and MaskAgain

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        seen = number_seen(self.ratio, grid.tokens, self.counts, "tokens")
        return first_seen(random_order(seeds, grid.tokens), seen)


@dataclass(frozen=True, kw_only=True)
class TubeMask:
    """The same places are hidden in every slot of time (VideoMAE, section 3.2)."""

    ratio: float = 0.90  # of the places of a slot; rounded down

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        seen = number_seen(self.ratio, grid.h * grid.w, "hidden", "places")
        return first_seen(_tube_by_tube(seeds, grid), grid.t * seen)


@dataclass(frozen=True, kw_only=True)
class NestedTubeMask:
    """Tubes at two ratios: what the student sees is a part of what the teacher sees (AMD, section 3.3, eq. 2)."""

    student_ratio: float = 0.90  # of the places of a slot that are hidden from it; rounded down
    teacher_ratio: float = 0.75  # the same for the teacher

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        student = grid.t * number_seen(self.student_ratio, grid.h * grid.w, "hidden", "places", "the student")
        teacher = grid.t * number_seen(self.teacher_ratio, grid.h * grid.w, "hidden", "places", "the teacher")
        if teacher < student:
            raise InputError(
                f"the teacher's mask ratio {self.teacher_ratio} is above the student's {self.student_ratio}; "
                "the teacher has to see all that the student sees"
            )
        order = _tube_by_tube(seeds, grid)
        mask = first_seen(order, student)
        return Mask(mask.visible, mask.masked, order[:, student:teacher].sort(dim=1).values)


@dataclass(frozen=True, kw_only=True)
class SpaceMask:
    """ST-MAE's space-only mask (arXiv:2205.09113, figure 4): tubes, of which int(n · (1 - ratio)) are kept.

    Where the released code counts tokens, not tubes, the last tube is kept in part: of 14 × 14 places and 8 slots, 19
    tubes and 4 tokens at 0.90. Which slots of it are kept is left to a sort among equals there; here, the earliest.
    """

    ratio: float = 0.90
    tubes: Literal["released", "whole"] = "released"

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        if self.tubes == "whole":
            seen = grid.t * number_seen(self.ratio, grid.h * grid.w, "kept", "places")
        else:
            seen = number_seen(self.ratio, grid.tokens, "kept", "tokens")
        return first_seen(_tube_by_tube(seeds, grid), seen)


@dataclass(frozen=True, kw_only=True)
class FrameMask:
    """Whole slots of time are hidden: ST-MAE's time-only mask (arXiv:2205.09113, figure 4)."""

    ratio: float = 0.75  # of the slots; rounded to the nearest number, a half to the even one

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        _hold_to_share(self.ratio)
        seen = grid.t - round(grid.t * self.ratio)
        _hold_to_something(seen, self.ratio, grid.t, "slots")
        slots = random_order(seeds, grid.t)
        places = torch.arange(grid.h * grid.w, device=slots.device)
        order = rearrange(slots[..., None] * (grid.h * grid.w) + places, "b t s -> b (t s)")
        return first_seen(order, seen * grid.h * grid.w)


@dataclass(frozen=True, kw_only=True)
class SlotMask:
    """Equally many places are hidden in every slot of time, in each slot others (ST-MAE's released code has it)."""

    ratio: float = 0.90  # of the places of a slot; what is kept is rounded down

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        places = grid.h * grid.w
        seen = number_seen(self.ratio, places, "kept", "places")
        anywhere = random_order(seeds, grid.tokens)
        by_slot = anywhere.gather(1, (anywhere // places).argsort(dim=1, stable=True))
        return first_seen(rearrange(by_slot, "b (t s) -> b (s t)", t=grid.t), grid.t * seen)


@dataclass(frozen=True, kw_only=True)
class ContextMask:
    """The beginning of the clip is seen; of the rest, tokens are hidden anywhere (MaskAgain's released `time`)."""

    ratio: float = 0.85  # of the tokens after the beginning; rounded down
    context: float = 0.25  # the share of the clip's tokens that its beginning is; rounded down

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        _hold_to_share(self.ratio)
        within(0, 1, below=True, context=self.context)
        beginning = int(grid.t * self.context * (grid.h * grid.w))
        hidden = int(self.ratio * (grid.tokens - beginning))
        anywhere = random_order(seeds, grid.tokens)
        order = anywhere.gather(1, (anywhere >= beginning).int().argsort(dim=1, stable=True))
        return first_seen(order, grid.tokens - hidden)


def number_seen(ratio: float, n: int, counts: Counts, of: str, who: str = "the student") -> int:
    """How many of `n` tokens, places, … (`of`: the word for them) are seen at a mask ratio; in double precision.

    Raises:
        InputError: the ratio is not in [0, 1), or nothing would be seen.
    """
    _hold_to_share(ratio, who)
    seen = int(n * (1 - ratio)) if counts == "kept" else n - int(ratio * n)
    _hold_to_something(seen, ratio, n, of, who)
    return seen


def random_order(seeds: Int[Tensor, "b"] | None, n: int) -> Int[Tensor, "b n"]:
    """0 … n-1, shuffled clip by clip: drawers that count alike hide the same tokens of an image."""
    return shuffled(given(seeds), "mask", n)


def given(seeds: Int[Tensor, "b"] | None) -> Int[Tensor, "b"]:
    """The seeds, which a method may go without only where it is given a mask."""
    if seeds is None:
        raise ValueError("neither a mask nor the seeds to draw one from were given")
    return seeds


def first_seen(order: Int[Tensor, "b n"], seen: int) -> Mask:
    """The mask that shows the first `seen` tokens of each clip's order and hides the others."""
    return Mask(order[:, :seen].sort(dim=1).values, order[:, seen:].sort(dim=1).values)


def _tube_by_tube(seeds: Int[Tensor, "b"] | None, grid: Grid) -> Int[Tensor, "b n"]:
    """All tokens: a place in every slot, from the first to the last, then the next place of a random order."""
    places = random_order(seeds, grid.h * grid.w)
    slots = torch.arange(grid.t, device=places.device) * (grid.h * grid.w)
    return rearrange(places[..., None] + slots, "b s t -> b (s t)")


def _hold_to_share(ratio: float, who: str = "the student") -> None:
    if not 0 <= ratio < 1:
        raise InputError(f"a mask ratio of {ratio} for {who} is no share; take 0 up to, but below, 1")


def _hold_to_something(seen: int, ratio: float, n: int, of: str, who: str = "the student") -> None:
    if seen == 0:
        raise InputError(f"a mask ratio of {ratio} hides all {n} {of} from {who}; take a lower one, or a larger clip")
