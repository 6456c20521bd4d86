"""A process's precision, noise and gradients."""

import pytest
import torch
from torch import nn

from vidstill.engine.distributed import Runtime
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError

on_cpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="asks what a machine without a GPU does")


@on_cpu
def test_fp16_on_a_cpu_is_an_error():
    with pytest.raises(InputError, match=r"fp16 needs a GPU .* take bf16 or fp32"):
        Runtime("fp16")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_matrix_products_and_not_of_weights_and_gradients(precision, dtype):
    runtime = Runtime(precision)
    model, inputs = runtime.prepare(nn.Linear(4, 4)), torch.ones(2, 4, device=runtime.device)
    with runtime.compute(model):
        out = model(inputs.to(dtype))
        runtime.backward(out.float().mean(), 1)
    assert out.dtype == dtype
    assert model.weight.dtype == model.weight.grad.dtype == torch.float32
    assert model(inputs).dtype == torch.float32


def test_a_model_of_another_library_computes_in_the_precision_by_autocast():
    model = nn.Linear(4, 4)
    with Runtime("bf16").autocast():
        assert model(torch.ones(2, 4)).dtype == torch.bfloat16
    with Runtime("fp32").autocast():
        assert model(torch.ones(2, 4)).dtype == torch.float32


def test_microbatch_has_the_same_noise_on_every_process():
    def draw_noise(rank, world, micro):
        runtime = Runtime("fp32")
        runtime.rank, runtime.world_size = rank, world
        runtime.seed_microbatch(seed=5, step=7, microbatch=micro)
        return torch.rand(9).tolist()

    assert draw_noise(rank=1, world=2, micro=0) == draw_noise(rank=0, world=1, micro=1)
    assert draw_noise(rank=1, world=2, micro=1) == draw_noise(rank=3, world=4, micro=0)
    assert draw_noise(rank=0, world=2, micro=0) != draw_noise(rank=1, world=2, micro=0)


def test_noise_is_that_of_torch_manual_seed(monkeypatch):
    torch.manual_seed(derive_sample_seed(5, 7, 0))
    expected = torch.rand(9)
    monkeypatch.setattr(torch, "manual_seed", pytest.fail)  # it takes longer than a small model's step
    runtime = Runtime("fp32")
    runtime.seed_microbatch(seed=5, step=7, microbatch=0)
    assert torch.equal(torch.rand(9), expected)


@pytest.mark.parametrize("max_norm", [None, 0.5, 1e9])
def test_gradients_are_clipped_to_the_maximum_norm_and_the_norm_before_is_returned(max_norm):
    runtime = Runtime("fp32")
    model = runtime.prepare(nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    runtime.backward(7 * model(torch.ones(4, 3, device=runtime.device)).pow(2).sum(), 1)
    before = [p.grad.clone() for p in model.parameters()]
    expected = torch.cat([grad.flatten() for grad in before]).norm()
    torch.testing.assert_close(runtime.clip_grad_norm(list(model.parameters()), optimizer, max_norm), expected)
    scale = min(1.0, (max_norm or 1e9) / expected.item())
    for grad, parameter in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, grad * scale)
