"""LARS: momentum in which every matrix moves in proportion to its length."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """LARS (You et al., arXiv:1708.03888) as MAE's authors probe with it, for batches of thousands.

        g = gradient + decay · w
        m = momentum · m + trust · |w| / |g| · g,    w = w − rate · m

    where the share of lengths is left out for what has one dimension (biases), and where w or g is zero. In the paper
    (algorithm 1) the rate stands inside of m, and the lengths of gradient and decay are summed.
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
        towards = gradient + group["weight_decay"] * weight
        if weight.ndim > 1:
            length, slope = weight.norm(), towards.norm()
            q = group["trust"] * length / slope
            towards *= torch.where((length > 0) & (slope > 0), q, 1.0)
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].mul_(group["momentum"]).add_(towards)
        weight.sub_(group["lr"] * state["momentum"])
