"""AdamW, SGD and LARS: what is not decayed, and rates that fall with depth."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from vidstill.utils.types import check_range

_BLOCK_NAME = re.compile(r"(?:^|\.)encoder\.blocks\.(\d+)\.")
_STEM_NAME = re.compile(
    r"(?:^|\.)encoder\.(?:patch_embed\.|positions(?:\.|$)|cls_token$)"
)  # what a clip meets before block 0


@dataclass(frozen=True, kw_only=True)
class OptimConfig(ABC):
    """What all optimisers have in common; rates are for a batch of 256."""

    base_lr: float
    """The highest rate, for a batch of 256."""
    min_lr: float = 1e-5
    """The rate that the schedule ends with, for a batch of 256; `base_lr`: the rate stays where the warm-up ends."""
    start_lr: float = 0.0
    """The rate that the warm-up starts with, for a batch of 256."""
    lr_scaling: Literal["videos", "clips"] = "videos"
    """What a batch of 256 counts: videos, or clips, where each video gives several (MVD's pre-training)."""
    weight_decay: float
    no_weight_decay: tuple[str, ...] = ("positions", "mask_token", "cls_token")
    """Words of dotted names that weight decay spares, besides biases and whatever has one dimension."""
    max_grad_norm: float | None = None
    """Longest gradient over all parameters together; None: as long as it is."""
    layer_decay: float | None = None
    """Each layer learns at this share of the rate of the next one (arXiv:2106.08254, A.1); None: all at one rate."""

    def __post_init__(self) -> None:
        check_range(0, math.inf, base_lr=self.base_lr, min_lr=self.min_lr, start_lr=self.start_lr)
        check_range(0, math.inf, weight_decay=self.weight_decay, clip_norm=self.max_grad_norm)
        check_range(0, 1, layer_decay=self.layer_decay)

    @abstractmethod
    def build(self, module: nn.Module) -> Optimizer:
        """The optimiser of what `module` trains.

        Each group's rate is set before a step: the schedule's, times its `lr_scale`.
        """

    def compute_lrs(self, *, num_videos: int, num_clips: int) -> tuple[float, float, float]:
        """The first rate, the highest and the last one, for a step of so many videos and clips."""
        batch = num_videos if self.lr_scaling == "videos" else num_clips
        return self.start_lr * batch / 256, self.base_lr * batch / 256, self.min_lr * batch / 256

    def get_param_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        return build_param_groups(
            module.named_parameters(),
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
            no_weight_decay=self.no_weight_decay,
        )


@dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimConfig):
    """AdamW as the papers use it (Loshchilov and Hutter, arXiv:1711.05101)."""

    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(0, math.inf, eps=self.eps)
        for beta in self.betas:
            check_range(0, 1, exclusive=True, beta=beta)

    def build(self, module: nn.Module) -> AdamW:
        groups = self.get_param_groups(module)
        device = next(p for _, p in groups[0]["params"]).device
        # on these CPUs, too, the fused kernel took a quarter of the loop's time
        return AdamW(groups, lr=0.0, betas=self.betas, eps=self.eps, fused=device.type in ("cpu", "cuda"))


@dataclass(frozen=True, kw_only=True)
class SGDConfig(OptimConfig):
    """SGD with Nesterov's momentum, as ST-MAE is fine-tuned on SSv2 and AVA (arXiv:2205.09113, table 6)."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(0, 1, exclusive=True, momentum=self.momentum)

    def build(self, module: nn.Module) -> SGD:
        return SGD(self.get_param_groups(module), lr=0.0, momentum=self.momentum, nesterov=True)


class LARS(Optimizer):
    """LARS (You et al., arXiv:1708.03888) as MAE's authors probe with it, for batches of thousands.

        g = gradient + decay · w
        m = momentum · m + trust · |w| / |g| · g,    w = w − rate · m

    where the share of lengths is left out for what has one dimension (biases), and where w or g is zero. In the paper
    (algorithm 1) the rate stands inside of m, and the lengths of gradient and decay are summed.
    """

    def __init__(self, params: list[dict[str, Any]], *, lr: float, momentum: float, trust_coefficient: float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust_coefficient, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nobody asks it for a second loss
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update_parameter(weight, weight.grad, group)

    def _update_parameter(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        towards = gradient + group["weight_decay"] * parameter
        if parameter.ndim > 1:
            length, slope = parameter.norm(), towards.norm()
            q = group["trust"] * length / slope
            towards *= torch.where((length > 0) & (slope > 0), q, 1.0)
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(group["momentum"]).add_(towards)
        parameter.sub_(group["lr"] * state["momentum"])


@dataclass(frozen=True, kw_only=True)
class LARSConfig(OptimConfig):
    """LARS as MAE's linear probe uses it (arXiv:2111.06377, appendix A.1)."""

    weight_decay: float = 0.0
    momentum: float = 0.9
    trust_coefficient: float = 0.001
    """A matrix's step at rate 1, as a share of its length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(0, 1, exclusive=True, momentum=self.momentum)
        check_range(0, math.inf, trust=self.trust_coefficient)

    def build(self, module: nn.Module) -> LARS:
        return LARS(
            self.get_param_groups(module), lr=0.0, momentum=self.momentum, trust_coefficient=self.trust_coefficient
        )


AnyOptimConfig = AdamWConfig | SGDConfig | LARSConfig


def build_param_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    weight_decay: float,
    layer_decay: float | None,
    no_weight_decay: tuple[str, ...],
) -> list[dict[str, Any]]:
    """One group for each (layer, decayed or not), as torch's optimisers take them; frozen parameters are in none.

    Layer 0 is what a clip meets before the encoder's first block, layer k + 1 is block k, and whatever follows the
    last block (norm, head, decoder) is one layer more. A layer's `lr_scale` is `layer_decay` to the number of layers
    above it.
    """
    trained = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
    depth = max((int(found[1]) + 1 for name, _ in trained if (found := _BLOCK_NAME.search(name))), default=0)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in trained:
        layer = depth + 1 if layer_decay is None else _find_layer(name, depth)
        decayed = parameter.ndim > 1 and not {"bias", *no_weight_decay} & set(name.split("."))
        new = {
            "params": [],
            "weight_decay": weight_decay if decayed else 0.0,
            "layer": layer,
            "lr_scale": 1.0 if layer_decay is None else layer_decay ** (depth + 1 - layer),
        }
        groups.setdefault((layer, decayed), new)["params"].append((name, parameter))
    return [groups[key] for key in sorted(groups)]


def _find_layer(name: str, depth: int) -> int:
    if found := _BLOCK_NAME.search(name):
        return int(found[1]) + 1
    return 0 if _STEM_NAME.search(name) else depth + 1
