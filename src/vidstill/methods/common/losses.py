"""Regression losses between predictions and targets."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

RegressionLoss = Literal["l2", "l1", "smooth_l1"]
"""Squared, absolute, or squared below 1 and absolute above (beta 1)."""


def upcast_to_float32(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in its own precision if that is higher."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def regression_loss(
    prediction: Float[Tensor, "b n d"], target: Float[Tensor, "b n d"], kind: RegressionLoss
) -> Float[Tensor, ""]:
    """Return the mean over clips, tokens and channels, in float32 or better; 0 without tokens.

    Args:
        prediction: Has gradients.
        target: Of the same shape.
        kind: The loss of a single difference.
    """
    prediction, target = upcast_to_float32(prediction), upcast_to_float32(target)
    match kind:
        case "l2":
            total = F.mse_loss(prediction, target, reduction="sum")
        case "l1":
            total = F.l1_loss(prediction, target, reduction="sum")
        case "smooth_l1":
            total = F.smooth_l1_loss(prediction, target, reduction="sum", beta=1.0)
    return total / max(prediction.numel(), 1)
