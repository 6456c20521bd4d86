"""Encoder → mean over the tokens → norm → head: what pre-training is for."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.data.erasing import Erasing
from vidstill.data.mixing import Mixing
from vidstill.models.layers import NORM_EPS
from vidstill.models.vit import ViTConfig
from vidstill.types import Output


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    encoder: ViTConfig
    classes: int
    # The mean over the tokens, then the norm; or the final norm, then the class token (MAE), where there is none token 0
    # (an unused option of VideoMAE); or the mean without token 0 (released: mae_st's where there is no class token).
    pooling: Literal["mean", "first", "mean_after_first"] = "mean"
    dropout: float = 0.0  # before the head
    head_scale: float = 0.001  # the head starts this much smaller, so that the loss starts at log(classes)
    # Blocks of a model from scratch: the authors' normal weights of deviation 0.02, which are too small for narrow
    # models to begin with (a width of 96 stayed at chance: docs/quickstart.md), or the Xavier weights of pre-training.
    start: Literal["normal", "xavier"] = "normal"

    def build(self) -> "Classifier":
        return Classifier(self)


class Classifier(nn.Module):
    """The fine-tuning model of the whole family; a class token has no part in a mean."""

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        first = config.pooling == "first"
        self.encoder = config.encoder.build(final_norm=first)
        self.norm = nn.Identity() if first else nn.LayerNorm(config.encoder.dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.encoder.dim, config.classes)
        for part in (self.encoder.blocks, self.head) if config.start == "normal" else (self.head,):
            _initialise(part)
        with torch.no_grad():
            self.head.weight.mul_(config.head_scale)
            self.head.bias.mul_(config.head_scale)

    def forward(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b classes"]:
        """Logits of clips of colours in [0, 1]."""
        return self.head(self.dropout(self.features(clip)))

    def features(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b d"]:
        """What enters the head: one vector a clip."""
        seen = self.encoder(clip)
        if self.config.pooling == "first":
            return torch.cat([seen.classes, seen.tokens], dim=1)[:, 0]
        tokens = seen.tokens if self.config.pooling == "mean" else seen.tokens[:, 1:]
        return self.norm(tokens.mean(dim=1))


def _initialise(module: nn.Module) -> None:
    """The authors' start of a fine-tuning: normal weights of deviation 0.02, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02, a=-2.0, b=2.0)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


class ClassificationTask(nn.Module):
    """Trains a classifier on labelled clips: erased and mixed on the device, then cross-entropy."""

    def __init__(self, model: Classifier, *, mixing: Mixing | None, erasing: Erasing | None, smoothing: float):
        super().__init__()
        self.model = model
        self.mixing = mixing
        self.erasing = erasing
        self.smoothing = smoothing

    def forward(self, clip: Float[Tensor, "b 3 t h w"], label: Int[Tensor, "b"], seed: Int[Tensor, "b"]) -> Output:
        config = self.model.config
        if self.erasing is not None:
            clip = self.erasing.apply(clip, seed, config.encoder.mean, config.encoder.std)
        if self.mixing is None:
            loss = F.cross_entropy(self.model(clip).float(), label, label_smoothing=self.smoothing)
        else:
            clip, target = self.mixing.apply(clip, label, seed, config.classes, self.smoothing)
            loss = F.cross_entropy(self.model(clip).float(), target)
        return Output(loss)
