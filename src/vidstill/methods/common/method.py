"""What a pre-training method and its config must have: the interface between methods/ and whatever trains them."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.masking import Mask
from vidstill.models.vit import ViT, ViTConfig
from vidstill.utils.types import Grid, Output

Clips = Float[Tensor, "b 3 t h w"]
"""Colours in [0, 1]."""

PerClip = Int[Tensor, "b"] | None
"""A label or a seed for each clip."""


@runtime_checkable
class MaskConfig(Protocol):
    """Which tokens are masked: see masking.py and block_masking.py."""

    def draw(self, seeds: Int[Tensor, "b"] | None, grid: Grid) -> Mask:
        """Draw one mask per seed."""


@runtime_checkable
class MethodConfig(Protocol):
    """A frozen dataclass. Its fields of type `TeacherConfig` are the method's teachers (see teacher.py).

    If the loss relates clips to one another, `group_clips` says how many belong together (see `plan_training`).
    """

    @property
    def encoder(self) -> ViTConfig: ...

    @property
    def mask(self) -> MaskConfig: ...

    def build(self) -> nn.Module:
        """Build the `Method`."""


@runtime_checkable
class Method(Protocol):
    """An `nn.Module` that is trained on clips; its `encoder` is what a run writes."""

    encoder: ViT

    def forward(self, clip: Clips, label: PerClip = None, seed: PerClip = None, *, mask: Mask | None = None) -> Output:
        """Return the loss of a batch.

        Args:
            clip: Colours in [0, 1].
            label: Ignored; every task is called with what the loader yields.
            seed: One per clip; the mask is drawn from them.
            mask: Used instead of a drawn one.
        """
