"""Frozen models that others learn from: in eval mode, without gradients, outside every checkpoint."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.vit import Looked, ViT, ViTConfig


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """A pre-trained encoder, and where its weights are."""

    model: ViTConfig
    weights: str = ""  # a run's folder or a file of weights


class Frozen(nn.Module):
    """An encoder that only looks: no parameter of it is listed, trained, saved or put into train mode.

    It moves between devices and precisions with the model that holds it.
    """

    def __init__(self, model: ViT):
        super().__init__()
        self.__dict__["model"] = model.eval().requires_grad_(False)  # past nn.Module's own bookkeeping

    @property
    def model(self) -> ViT:
        return self.__dict__["model"]

    @torch.no_grad()
    def look(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None = None,
        *,
        layers: Collection[int] = (),
        attention: Collection[int] = (),
    ) -> Looked:
        """What the wanted blocks give, counted from 1; those after the last one that is needed do not run."""
        return self.model.look(clip, visible, layers=layers, attention=attention)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        self.model._apply(fn)
        return super()._apply(fn, recurse)
