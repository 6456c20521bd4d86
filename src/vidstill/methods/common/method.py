"""What every pre-training method is: a module that is trained on clips under a mask."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.masking import Mask
from vidstill.models.vit import ViT
from vidstill.utils.types import Output

Clips = Float[Tensor, "b 3 t h w"]
"""Colours in [0, 1]."""


class Method(nn.Module):
    """A pre-training method; a run writes its `encoder`.

    Its `config` is a frozen dataclass with an `encoder`, a `mask` that is drawn from seeds (see masking.py), and
    `build()`, which makes the method. Its fields of type `TeacherConfig` are the method's teachers (see teacher.py). If
    the loss relates clips to one another, `group_clips` says how many belong together (see `plan_training`).
    """

    config: Any
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
        mask: Mask = self.config.mask.draw(seed, self.encoder.grid(clip))
        return mask

    def compute_loss(self, clip: Clips, mask: Mask) -> Output:
        """Return the loss of a batch under a mask."""
        raise NotImplementedError
