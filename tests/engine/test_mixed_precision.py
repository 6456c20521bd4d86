"""A model computes with copies of its parameters, and its gradients arrive in the parameters' precision."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vidstill.engine.distributed import Runtime
from vidstill.engine.mixed_precision import ParameterCast
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig

ENCODER = ViTConfig(dim=24, depth=3, heads=2)


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = nn.Linear(4, 2)
        self.tied = self.head
        self.unused = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x):
        for block in self.blocks:
            x = block(x) * self.frozen
        return self.tied(x)


class CastCounter(TorchDispatchMode):
    """Counts casts: `_to_copy`, and the copies of several tensors at once."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._to_copy.default, torch.ops.aten._foreach_copy_.default)
        return func(*args, **(kwargs or {}))


def test_inside_the_parameters_are_rounded_copies_and_outside_they_are_themselves():
    model = Tower()
    parameters = dict(model.named_parameters())
    cast = ParameterCast(model, torch.bfloat16)
    with cast.apply():
        assert {each.dtype for each in (model.head.weight, model.blocks[1].bias, model.frozen)} == {torch.bfloat16}
        assert model.tied.weight is model.head.weight
        assert torch.equal(model.head.weight, parameters["head.weight"].bfloat16())
    assert all(each is parameters[name] for name, each in model.named_parameters())


def test_gradients_are_those_of_the_rounded_model_in_float32():
    model = Tower()
    rounded = Tower().bfloat16()
    rounded.load_state_dict(model.state_dict())
    inputs = torch.randn(5, 4).bfloat16()
    with ParameterCast(model, torch.bfloat16).apply():
        model(inputs).float().square().sum().backward()
    rounded(inputs).float().square().sum().backward()
    for (name, parameter), expected in zip(model.named_parameters(), rounded.parameters(), strict=True):
        assert (parameter.grad is None) == (name in ("unused", "frozen"))
        if parameter.grad is not None:
            assert parameter.grad.dtype == torch.float32
            assert torch.equal(parameter.grad, expected.grad.float())


def test_gradients_of_several_uses_are_added_in_float32():
    model, inputs = nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 1 / 512]], dtype=torch.bfloat16)
    cast = ParameterCast(model, torch.bfloat16)
    for _ in range(3):
        with cast.apply():
            model(inputs).float().sum().backward()
    assert model.weight.grad.tolist() == [[3.0, 3 / 512]]  # 1 + 2**-9 has more bits than bfloat16


def test_an_error_inside_leaves_the_parameters_in_place():
    model = Tower()
    weight = model.head.weight
    with pytest.raises(ZeroDivisionError), ParameterCast(model, torch.bfloat16).apply():
        1 / 0  # noqa: B018
    assert model.head.weight is weight


def test_without_gradients_copies_are_made_once_until_a_parameter_changes():
    model = Tower()
    cast = ParameterCast(model, torch.bfloat16)
    with torch.inference_mode(), cast.apply():
        first = model.head.weight
    with torch.inference_mode(), cast.apply():
        assert model.head.weight is first
    with torch.no_grad():
        model.head.weight.fill_(7)
    with torch.inference_mode(), cast.apply():
        assert (model.head.weight == 7).all()
    model.head.weight.data = torch.zeros(2, 4)  # as an average of the weights is swapped in
    with torch.inference_mode(), cast.apply():
        assert not model.head.weight.any()


def test_fp32_uses_the_parameters_themselves():
    model = Tower()
    weight = model.head.weight
    with Runtime("fp32").compute(model):
        assert model.head.weight is weight


def test_a_step_casts_at_most_twice_for_each_block_and_a_few_times_besides():
    method = VideoMAEConfig(encoder=ENCODER, decoder=DecoderConfig(dim=24, depth=2, heads=2)).build()
    clip, seed = torch.rand(2, 3, 4, 32, 32), torch.arange(2)
    runtime = Runtime("bf16")
    with runtime.compute(method):
        method(clip, seed=seed).loss.backward()
    with CastCounter() as counter, runtime.compute(method):
        method(clip, seed=seed).loss.backward()
    assert counter.count <= 2 * (3 + 2) + 12
