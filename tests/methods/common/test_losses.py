import pytest
import torch
import torch.nn.functional as F

from vidstill.methods.common.losses import regression_loss

TORCH = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}


@pytest.mark.parametrize("kind", TORCH)
def test_a_distance_is_torchs_mean(kind):
    chance = torch.Generator().manual_seed(0)
    guess, target = (2 * torch.randn(2, 5, 7, generator=chance) for _ in range(2))
    torch.testing.assert_close(regression_loss(guess, target, kind), TORCH[kind](guess, target))


@pytest.mark.parametrize("kind", TORCH)
def test_a_distance_between_no_tokens_is_zero_and_has_a_gradient(kind):
    guess = torch.empty(2, 0, 7, requires_grad=True)
    loss = regression_loss(guess, torch.empty(2, 0, 7), kind)
    loss.backward()
    assert loss.item() == 0
    assert guess.grad.shape == guess.shape


@pytest.mark.parametrize("kind", TORCH)
def test_a_distance_is_taken_in_single_precision_or_better(kind):
    guess = torch.full((1, 4, 4096), 100.0, dtype=torch.float16)  # the squares' sum is beyond float16
    loss = regression_loss(guess, torch.zeros_like(guess), kind)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(TORCH[kind](torch.tensor(100.0), torch.tensor(0.0)).item())
    assert regression_loss(guess.double(), torch.zeros_like(guess), kind).dtype == torch.float64
