"""AdamW, what is not decayed, and rates that fall with depth."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW

from vidstill.types import within

_BLOCK = re.compile(r"(?:^|\.)encoder\.blocks\.(\d+)\.")
_ENTRY = re.compile(r"(?:^|\.)encoder\.(?:embed\.|positions(?:\.|$)|\w*token$)")  # what a clip meets before block 0


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """AdamW as the papers use it (Loshchilov and Hutter, arXiv:1711.05101); rates are for a batch of 256."""

    base_lr: float
    """The highest rate, for a batch of 256."""
    min_lr: float = 1e-5
    """The rate that the schedule ends with, for a batch of 256."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.05
    clip_norm: float | None = None
    """Longest gradient over all parameters together; None: as long as it is."""
    layer_decay: float | None = None
    """Each layer learns at this share of the rate of the next one (arXiv:2106.08254, A.1); None: all at one rate."""
    undecayed: tuple[str, ...] = ("positions", "mask_token", "class_token")
    """Last words of names that weight decay spares, besides biases and whatever has one dimension."""
    rate_per: Literal["videos", "clips"] = "videos"
    """What a batch of 256 counts: videos, or clips, where each video gives several (MVD's pre-training)."""

    def __post_init__(self) -> None:
        within(0, math.inf, base_lr=self.base_lr, min_lr=self.min_lr, eps=self.eps, weight_decay=self.weight_decay)
        within(0, math.inf, clip_norm=self.clip_norm)
        within(0, 1, layer_decay=self.layer_decay)
        for beta in self.betas:
            within(0, 1, below=True, beta=beta)

    def peak_and_final(self, *, videos: int, clips: int) -> tuple[float, float]:
        """The highest rate and the last one, for a step of so many videos and clips."""
        batch = videos if self.rate_per == "videos" else clips
        return self.base_lr * batch / 256, self.min_lr * batch / 256

    def build(self, module: nn.Module) -> AdamW:
        """The optimiser of what `module` trains.

        Each group's rate is set before a step: the schedule's, times its `lr_scale`.
        """
        groups = parameter_groups(
            module.named_parameters(),
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
            undecayed=self.undecayed,
        )
        device = next(p for _, p in groups[0]["params"]).device
        # on these CPUs, too, the fused kernel took a quarter of the loop's time
        return AdamW(groups, lr=0.0, betas=self.betas, eps=self.eps, fused=device.type in ("cpu", "cuda"))


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    weight_decay: float,
    layer_decay: float | None,
    undecayed: tuple[str, ...],
) -> list[dict[str, Any]]:
    """One group for each (layer, decayed or not), as torch's optimisers take them; frozen parameters are in none.

    Layer 0 is what a clip meets before the encoder's first block, layer k + 1 is block k, and whatever follows the
    last block (norm, head, decoder) is one layer more. A layer's `lr_scale` is `layer_decay` to the number of layers
    above it.
    """
    trained = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    depth = max((int(found[1]) + 1 for name, _ in trained if (found := _BLOCK.search(name))), default=0)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in trained:
        layer = depth + 1 if layer_decay is None else _layer(name, depth)
        decayed = not (parameter.ndim <= 1 or name.endswith(".bias") or name.rpartition(".")[2] in undecayed)
        new = {
            "params": [],
            "weight_decay": weight_decay if decayed else 0.0,
            "layer": layer,
            "lr_scale": 1.0 if layer_decay is None else layer_decay ** (depth + 1 - layer),
        }
        groups.setdefault((layer, decayed), new)["params"].append((name, parameter))
    return [groups[key] for key in sorted(groups)]


def _layer(name: str, depth: int) -> int:
    if found := _BLOCK.search(name):
        return int(found[1]) + 1
    return 0 if _ENTRY.search(name) else depth + 1
