"""Classification: encoder → mean over the tokens → norm → head."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.data.transforms.color_jitter import ColorJitter
from vidstill.data.transforms.mixup import MixupCutmix, smooth_labels
from vidstill.data.transforms.random_erasing import RandomErasing
from vidstill.models.layers import NORM_EPS, init_normal_weights
from vidstill.models.vit import ViT, ViTConfig
from vidstill.utils.rng import draw_permutation
from vidstill.utils.types import Grid, Output, check_range


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    encoder: ViTConfig
    num_classes: int
    # mean: the mean over the tokens, then the norm; first: the final norm, then the class token (MAE), or without one
    # token 0 (an unused option of VideoMAE); mean_after_first: the mean without token 0 (as released by mae_st)
    pooling: Literal["mean", "first", "mean_after_first"] = "mean"
    # norm after the mean: a new one, or the pre-trained encoder's final norm (ST-MAE)
    norm: Literal["fresh", "pretrained"] = "fresh"
    norm_eps: float = NORM_EPS  # epsilon of the norm after the mean (transformers' VideoMAE has torch's 1e-5)
    dropout: float = 0.0  # dropout probability before the head
    head_init_scale: float = 0.001  # of the head's initial weights; small, so that the loss starts at log(classes)
    # initial weights of the blocks, trained from scratch. normal: the authors', std 0.02, too small for narrow models
    # (a width of 96 did not learn: docs/quickstart.md); xavier: as in pre-training; torch: torch's own, also for the
    # head's bias, and a class token and position embeddings of zero (mae_st)
    weight_init: Literal["normal", "xavier", "torch"] = "normal"
    multi_label: bool = False  # clips may have several labels; each class gets its own probability

    def __post_init__(self) -> None:
        check_range(0, math.inf, norm_eps=self.norm_eps)

    def build(self) -> "Classifier":
        return Classifier(self)


class Classifier(nn.Module):
    """The fine-tuning model of all methods; the class token takes no part in a mean."""

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        first = config.pooling == "first"
        self.encoder = config.encoder.build(final_norm=first)
        self.norm = nn.Identity() if first else nn.LayerNorm(config.encoder.dim, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.encoder.dim, config.num_classes)
        match config.weight_init:
            case "normal":
                init_normal_weights(self.encoder.blocks)
            case "torch":
                _init_like_torch(self.encoder)
        bias = self.head.bias.detach().clone()
        init_normal_weights(self.head)
        with torch.no_grad():
            self.head.weight.mul_(config.head_init_scale)
            if config.weight_init == "torch":
                self.head.bias.copy_(bias)

    def forward(
        self, clip: Float[Tensor, "b 3 t h w"], visible: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b classes"]:
        """Return the logits of clips of colours in [0, 1], from the visible tokens, or from all of them."""
        return self.head(self.dropout(self.forward_features(clip, visible)))

    def forward_features(
        self, clip: Float[Tensor, "b 3 t h w"], visible: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b d"]:
        """Return the input of the head: one vector per clip."""
        features = self.encoder(clip, visible)
        if self.config.pooling == "first":
            return torch.cat([features.cls_token, features.tokens], dim=1)[:, 0]
        tokens = features.tokens if self.config.pooling == "mean" else features.tokens[:, 1:]
        return self.norm(tokens.mean(dim=1))


def _init_like_torch(encoder: ViT) -> None:
    for module in encoder.blocks.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    for table in (encoder.cls_token, *encoder.positions.parameters()):
        if table is not None:
            nn.init.zeros_(table)


class ClassificationTask(nn.Module):
    """Train a classifier by cross-entropy; colour jitter, erasing, mixing and masking happen on the device.

    With several labels it is binary cross-entropy, the mean over the classes.

    Args:
        mask_ratio: Random share of the tokens that is masked at the start of the run; it falls to 0 by a cosine over
            all steps (ST-MAE, appendix B.3). Nothing is masked in eval mode.
    """

    def __init__(
        self,
        model: Classifier,
        *,
        mixup: MixupCutmix | None,
        random_erasing: RandomErasing | None,
        label_smoothing: float,
        mask_ratio: float = 0.0,
        color_jitter: ColorJitter | None = None,
    ):
        super().__init__()
        check_range(0, 1, exclusive=True, mask_ratio=mask_ratio)
        self.model, self.label_smoothing, self.mask_ratio = model, label_smoothing, mask_ratio
        self.mixup, self.color_jitter, self.random_erasing = mixup, color_jitter, random_erasing
        self.begin_step(0.0)

    @property
    def has_static_shapes(self) -> bool:
        """Whether every step has equally many tokens, as compiled code needs."""
        return self.mask_ratio == 0

    def begin_step(self, progress: float) -> None:
        """Set the mask ratio of a step from the progress of the run, 0 to 1."""
        self.current_mask_ratio = self.mask_ratio * 0.5 * (1 + math.cos(math.pi * progress))

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        label: Int[Tensor, "b"] | Float[Tensor, "b classes"],
        seed: Int[Tensor, "b"],
    ) -> Output:
        config = self.model.config
        visible = self.draw_visible(seed, self.model.encoder.grid(clip))
        if self.color_jitter is not None:
            clip = self.color_jitter.apply(clip, seed)
        if self.random_erasing is not None:
            clip = self.random_erasing.apply(clip, seed, config.encoder.mean, config.encoder.std)
        target, smoothing = label, self.label_smoothing
        if self.mixup is not None:
            clip, target = self.mixup.apply(clip, label, seed, config.num_classes, smoothing)
            smoothing = 0.0  # the targets are smoothed
        elif config.multi_label:
            target = smooth_labels(label, config.num_classes, smoothing)
        logits = self.model(clip, visible).float()
        if config.multi_label:
            return Output(F.binary_cross_entropy_with_logits(logits, target))
        return Output(F.cross_entropy(logits, target, label_smoothing=smoothing))

    def draw_visible(self, seed: Int[Tensor, "b"], grid: Grid) -> Int[Tensor, "b v"] | None:
        """Return the visible tokens of this step, at least one per clip; None: all."""
        if not (self.training and self.current_mask_ratio):
            return None
        num_visible = max(1, int(grid.num_tokens * (1 - self.current_mask_ratio)))
        return draw_permutation(seed, "mask", grid.num_tokens)[:, :num_visible].sort(dim=1).values
