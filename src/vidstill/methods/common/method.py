"""What a pre-training method and its config must have: the interface between methods/ and whatever trains them."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.masking import CuboidMask, FrameMask, Mask, RandomMask, SlotMask, SpaceMask, TubeMask
from vidstill.models.vit import ViT, ViTConfig
from vidstill.utils.types import Grid, Output

Clips = Float[Tensor, "b 3 t h w"]
"""Colours in [0, 1]."""


@runtime_checkable
class MaskConfig(Protocol):
    """A dataclass with the method `draw(seeds, grid) -> Mask`. See masking.py."""

    def draw(self, seeds: Int[Tensor, "b"], grid: Grid) -> Mask:
        """Draw one mask per seed."""


AnyMask = RandomMask | TubeMask | SpaceMask | FrameMask | SlotMask | CuboidMask | MaskConfig
"""What most methods draw: a mask of masking.py, or one of the user's own."""


@runtime_checkable
class MethodConfig(Protocol):
    """A frozen dataclass. Its fields of type `TeacherConfig` are the method's teachers (see teacher.py).

    If the loss relates clips to one another, `group_clips` says how many belong together (see `plan_training`).
    """

    @property
    def encoder(self) -> ViTConfig: ...
    @property
    def mask(self) -> MaskConfig: ...
    def build(self) -> "Method": ...


class Method(nn.Module, ABC):
    """A pre-training method; a run writes its `encoder`."""

    config: MethodConfig
    encoder: ViT

    def forward(
        self,
        clip: Clips,
        label: Tensor | None = None,
        seed: Int[Tensor, "b"] | None = None,
        *,
        mask: Mask | None = None,
    ) -> Output:
        """Return the loss of a batch.

        Args:
            clip: Colours in [0, 1].
            label: Ignored; every task is called with what the loader yields.
            seed: One per clip; the mask is drawn from them.
            mask: Used instead of a drawn one.
        """
        return self.compute_loss(clip, mask or self.draw_mask(clip, seed))

    def draw_mask(self, clip: Clips, seed: Int[Tensor, "b"] | None) -> Mask:
        """Draw the configured mask."""
        if seed is None:
            raise ValueError("a method needs a mask, or the seeds to draw one from")
        return self.config.mask.draw(seed, self.encoder.grid(clip))

    @abstractmethod
    def compute_loss(self, clip: Clips, mask: Mask) -> Output:
        """Return the loss of a batch under a mask."""
