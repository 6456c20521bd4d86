"""Which tokens the student sees; drawn on the device, clip by clip, from the seeds that the samples carry."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor

from vidstill.chance import shuffled
from vidstill.types import Grid, InputError


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
class TubeMask:
    """The same places are hidden in every slot of time (VideoMAE, section 3.2)."""

    ratio: float = 0.90  # of the places of a slot; rounded down

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        hidden = hidden_places(self.ratio, grid, "the student")
        order = _order(seeds, grid)
        seen = grid.h * grid.w - hidden
        return Mask(_tubes(order[:, :seen], grid), _tubes(order[:, seen:], grid))


@dataclass(frozen=True, kw_only=True)
class NestedTubeMask:
    """Tubes at two ratios: what the student sees is a part of what the teacher sees (AMD, section 3.3, eq. 2)."""

    student_ratio: float = 0.90  # of the places of a slot that are hidden from it; rounded down
    teacher_ratio: float = 0.75  # the same for the teacher

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        hidden = hidden_places(self.student_ratio, grid, "the student")
        never_seen = hidden_places(self.teacher_ratio, grid, "the teacher")
        if never_seen > hidden:
            raise InputError(
                f"the teacher's mask ratio {self.teacher_ratio} is above the student's {self.student_ratio}; "
                "the teacher has to see all that the student sees"
            )
        order = _order(seeds, grid)
        seen = grid.h * grid.w - hidden
        extra = order[:, seen : grid.h * grid.w - never_seen]
        return Mask(_tubes(order[:, :seen], grid), _tubes(order[:, seen:], grid), _tubes(extra, grid))


def hidden_places(ratio: float, grid: Grid, who: str) -> int:
    """How many of the places of a slot are hidden: the authors' int(ratio · places).

    Raises:
        InputError: the ratio is not in [0, 1).
    """
    if not 0 <= ratio < 1:
        raise InputError(f"a mask ratio of {ratio} for {who} is no share; take 0 up to, but below, 1")
    return int(ratio * grid.h * grid.w)


def _order(seeds: Int[Tensor, "b"] | None, grid: Grid) -> Int[Tensor, "b s"]:
    """The places of a slot, shuffled clip by clip: the first are seen, the last hidden."""
    if seeds is None:
        raise ValueError("neither a mask nor the seeds to draw one from were given")
    return shuffled(seeds, "mask", grid.h * grid.w)


def _tubes(places: Int[Tensor, "b s"], grid: Grid) -> Int[Tensor, "b k"]:
    """The tokens of the given places in every slot, ascending."""
    slots = torch.arange(grid.t, device=places.device) * (grid.h * grid.w)
    return rearrange(slots[:, None] + places.sort(dim=1).values[:, None], "b t s -> b (t s)")
