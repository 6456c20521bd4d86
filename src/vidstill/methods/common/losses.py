"""How far a guess is from its target."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Distance = Literal["l2", "l1", "smooth_l1"]
"""Squared, absolute, or squared below 1 and absolute above (beta 1)."""


def precise(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in its own precision where that is higher."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def distance(guess: Float[Tensor, "b n d"], target: Float[Tensor, "b n d"], kind: Distance) -> Float[Tensor, ""]:
    """The mean distance over clips, tokens and channels, in float32 or better; 0 where no token is hidden."""
    guess, target = precise(guess), precise(target)
    match kind:
        case "l2":
            total = F.mse_loss(guess, target, reduction="sum")
        case "l1":
            total = F.l1_loss(guess, target, reduction="sum")
        case "smooth_l1":
            total = F.smooth_l1_loss(guess, target, reduction="sum", beta=1.0)
    return total / max(guess.numel(), 1)
