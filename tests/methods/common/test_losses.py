"""Regression losses are torch's, in single precision or better, and 0 without tokens."""

import pytest
import torch
import torch.nn.functional as F

from vidstill.methods.common.losses import regression_loss

TORCH = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


@pytest.mark.parametrize("kind", TORCH)
def test_a_loss_is_torchs_mean(kind):
    generator = torch.Generator().manual_seed(0)
    prediction, target = (2 * torch.randn(2, 5, 7, generator=generator) for _ in range(2))
    torch.testing.assert_close(regression_loss(prediction, target, kind), TORCH[kind](prediction, target))


@pytest.mark.parametrize("kind", TORCH)
def test_a_loss_without_tokens_is_zero_and_has_a_gradient(kind):
    prediction = torch.empty(2, 0, 7, requires_grad=True)
    loss = regression_loss(prediction, torch.empty(2, 0, 7), kind)
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad.shape == prediction.shape


@pytest.mark.parametrize("kind", TORCH)
def test_a_loss_is_computed_in_single_precision_or_better(kind):
    prediction = torch.full((1, 4, 4096), 100.0, dtype=torch.float16)  # the squares' sum is beyond float16
    loss = regression_loss(prediction, torch.zeros_like(prediction), kind)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(TORCH[kind](torch.tensor(100.0), torch.tensor(0.0)).item())
    assert regression_loss(prediction.double(), torch.zeros_like(prediction), kind).dtype == torch.float64
