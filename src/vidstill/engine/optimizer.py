"""AdamW, SGD and LARS, with weight decay exemptions and layer-wise learning rate decay."""

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from vidstill.utils.types import check_range

_BLOCK_NAME = re.compile(r"(?:^|\.)encoder\.blocks\.(\d+)\.")
_STEM_NAME = re.compile(r"(?:^|\.)encoder\.(?:patch_embed\.|positions(?:\.|$)|cls_token$)")  # before block 0


@dataclass(frozen=True, kw_only=True)
class OptimConfig(ABC):
    """Settings of all optimizers; learning rates are for a batch of 256."""

    base_lr: float  # peak learning rate, for a batch of 256
    min_lr: float = 1e-5  # final learning rate, for a batch of 256; equal to `base_lr`: constant after the warm-up
    start_lr: float = 0.0  # learning rate at the start of the warm-up, for a batch of 256
    # whether the batch of 256 counts videos, or clips, of which a video may give several (MVD's pre-training)
    lr_scaling: Literal["videos", "clips"] = "videos"
    weight_decay: float  # decoupled from the gradient (AdamW), or added to it (SGD, LARS)
    # parts of parameter names that are exempt from weight decay, besides biases and one-dimensional parameters
    no_weight_decay: tuple[str, ...] = ("positions", "mask_token", "cls_token")
    max_grad_norm: float | None = None  # gradient norm to clip to, over all parameters; None: no clipping
    # factor of the learning rate from each layer to the one below (arXiv:2106.08254, A.1); None: no layer decay
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        check_range(0, math.inf, base_lr=self.base_lr, min_lr=self.min_lr, start_lr=self.start_lr)
        check_range(0, math.inf, weight_decay=self.weight_decay, max_grad_norm=self.max_grad_norm)
        check_range(0, 1, layer_decay=self.layer_decay)

    @abstractmethod
    def build(self, module: nn.Module) -> Optimizer:
        """Build the optimizer of a module's trainable parameters.

        Before each step, each group's learning rate is set to the schedule's, times its `lr_scale`.
        """

    def compute_lrs(self, *, num_videos: int, num_clips: int) -> tuple[float, float, float]:
        """Return start, peak and final learning rate, for a step of this many videos and clips."""
        batch = num_videos if self.lr_scaling == "videos" else num_clips
        return self.start_lr * batch / 256, self.base_lr * batch / 256, self.min_lr * batch / 256

    def get_param_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """Return one parameter group per layer and weight decay; frozen parameters are in none.

        Layer 0 is what precedes the encoder's first block, layer k + 1 is block k, and everything after the last block
        (norm, head, decoder) is one more layer. A layer's `lr_scale` is `layer_decay` to the power of the number of
        layers above it.
        """
        trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        top = 1 + max((int(match[1]) + 1 for name, _ in trained if (match := _BLOCK_NAME.search(name))), default=0)
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in trained:
            layer = top
            if self.layer_decay is not None and (match := _BLOCK_NAME.search(name)):
                layer = int(match[1]) + 1
            elif self.layer_decay is not None and _STEM_NAME.search(name):
                layer = 0
            is_decayed = parameter.ndim > 1 and not {"bias", *self.no_weight_decay} & set(name.split("."))
            group = {
                "params": [],
                "weight_decay": self.weight_decay if is_decayed else 0.0,
                "layer": layer,
                "lr_scale": 1.0 if self.layer_decay is None else self.layer_decay ** (top - layer),
            }
            groups.setdefault((layer, is_decayed), group)["params"].append((name, parameter))
        return [groups[key] for key in sorted(groups)]


@dataclass(frozen=True, kw_only=True)
class AdamWConfig(OptimConfig):
    """AdamW as the papers use it (Loshchilov and Hutter, arXiv:1711.05101)."""

    weight_decay: float = 0.05  # times the learning rate, taken from the weights in each step; higher regularizes more
    betas: tuple[float, float] = (0.9, 0.999)  # decay of the averages of the gradient and of its square

    def __post_init__(self) -> None:
        super().__post_init__()
        for beta in self.betas:
            check_range(0, 1, exclusive=True, beta=beta)

    def build(self, module: nn.Module) -> AdamW:
        groups = self.get_param_groups(module)
        # on CPUs, too, the fused kernel took a quarter of the loop's time
        return AdamW(groups, lr=0.0, betas=self.betas, fused=_has_fused_kernels(groups))


@dataclass(frozen=True, kw_only=True)
class SGDConfig(OptimConfig):
    """SGD with Nesterov's momentum, as ST-MAE is fine-tuned on SSv2 and AVA (arXiv:2205.09113, table 6)."""

    momentum: float = 0.9  # share of the last step that is added to the next

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(0, 1, exclusive=True, momentum=self.momentum)

    def build(self, module: nn.Module) -> SGD:
        groups = self.get_param_groups(module)
        optimizer = SGD(groups, lr=0.0, momentum=self.momentum, nesterov=True, fused=_has_fused_kernels(groups))
        optimizer.register_step_pre_hook(_begin_momentum)
        return optimizer


def _has_fused_kernels(groups: list[dict[str, Any]]) -> bool:
    """Return whether torch has kernels for the parameters' device which discard a step by themselves."""
    return next(p for _, p in groups[0]["params"]).device.type in ("cpu", "cuda")


def _begin_momentum(optimizer: Optimizer, *_: object) -> None:
    """Let the momentum begin with 0: torch's fused kernel would leave it undefined if the first step is discarded."""
    for group in optimizer.param_groups:
        for weight in group["params"]:
            if weight.grad is not None and optimizer.state[weight].get("momentum_buffer") is None:
                optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


class LARS(Optimizer):
    """LARS (You et al., arXiv:1708.03888) as in MAE's linear probe, for batches of thousands.

        g = gradient + decay · w
        m = momentum · m + trust · |w| / |g| · g,    w = w − lr · m

    without the factor trust · |w| / |g| for one-dimensional parameters (biases), and if w or g is zero. In the paper
    (algorithm 1) the learning rate is inside of m, and the norms of gradient and decay are summed.

    Like torch's fused optimizers it changes nothing if its attribute `found_inf`, a tensor, is 1.
    """

    _step_supports_amp_scaling = True  # as torch's fused optimizers say it

    def __init__(self, params: list[dict[str, Any]], *, lr: float, momentum: float, trust: float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure is supported
        device = self.param_groups[0]["params"][0].device
        is_discarded = getattr(self, "found_inf", torch.zeros((), device=device)) > 0
        for group in self.param_groups:
            for weight in filter(lambda weight: weight.grad is not None, group["params"]):
                update = weight.grad + group["weight_decay"] * weight
                if weight.ndim > 1:
                    weight_norm, update_norm = weight.norm(), update.norm()
                    factor = group["trust"] * weight_norm / update_norm
                    update *= torch.where((weight_norm > 0) & (update_norm > 0), factor, 1.0)
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = (state["momentum"] * group["momentum"]).add_(update)
                weight.sub_(torch.where(is_discarded, 0.0, group["lr"] * momentum))
                state["momentum"] = torch.where(is_discarded, state["momentum"], momentum)


@dataclass(frozen=True, kw_only=True)
class LARSConfig(OptimConfig):
    """LARS as MAE's linear probe uses it (arXiv:2111.06377, appendix A.1)."""

    weight_decay: float = 0.0  # times the weight, added to its gradient
    momentum: float = 0.9  # share of the last step that is added to the next
    trust_coefficient: float = 0.001  # norm of a matrix's step at learning rate 1, relative to the matrix's norm

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(0, 1, exclusive=True, momentum=self.momentum)
        check_range(0, math.inf, trust_coefficient=self.trust_coefficient)

    def build(self, module: nn.Module) -> LARS:
        groups = self.get_param_groups(module)
        return LARS(groups, lr=0.0, momentum=self.momentum, trust=self.trust_coefficient)


AnyOptimConfig = AdamWConfig | SGDConfig | LARSConfig
