"""LARS: momentum in which every matrix moves in proportion to its length."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """LARS (You et al., arXiv:1708.03888, algorithm 1) as MAE's authors probe with it, for batches of thousands.

        m = momentum · m + q · (g + decay · w),    w = w − rate · m
        q = trust · |w| / (|g| + decay · |w|)

    where q is 1 for what has one dimension (biases), and where w or g is zero. The rate stands outside of m, in the
    paper inside.
    """

    def __init__(self, params: list[dict[str, Any]], *, lr: float, momentum: float, trust: float):
        super().__init__(params, {"lr": lr, "momentum": momentum, "trust": trust, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nobody asks it for a second loss
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        decay = group["weight_decay"]
        towards = gradient + decay * weight
        if weight.ndim > 1:
            length, slope = weight.norm(), gradient.norm()
            q = group["trust"] * length / (slope + decay * length)
            towards *= torch.where((length > 0) & (slope > 0), q, 1.0)
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].mul_(group["momentum"]).add_(towards)
        weight.sub_(group["lr"] * state["momentum"])
