"""Parameter groups, and a step of each optimizer against its formula."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vidstill.engine.optimizer import AdamWConfig, LARSConfig, SGDConfig
from vidstill.utils.types import InputError

ADAMW = AdamWConfig(base_lr=1.0)


def build_module(depth: int) -> nn.Module:
    """A module with our names: an encoder's `patch_embed`, `positions`, `cls_token`, blocks and norm; a head."""
    task = nn.ModuleDict({"encoder": nn.Module(), "head": nn.Linear(4, 2)})
    task["encoder"].patch_embed = nn.Linear(3, 4)
    task["encoder"].positions = nn.ParameterDict({"space": torch.zeros(5, 4), "time": torch.zeros(3, 4)})
    task["encoder"].cls_token = nn.Parameter(torch.zeros(1, 4))
    task["encoder"].blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))
    task["encoder"].norm = nn.LayerNorm(4)
    return task


def get_groups(module: nn.Module, config=ADAMW, **settings):
    groups = replace(config, **settings).get_param_groups(module)
    return {name: group for group in groups for name, _ in group["params"]}


@given(st.integers(1, 14), st.floats(0.1, 1.0))
def test_learning_rates_fall_by_the_same_factor_from_each_layer_to_the_one_below(depth, decay):
    groups = get_groups(build_module(depth), layer_decay=decay)
    assert groups["head.weight"]["lr_scale"] == groups["encoder.norm.bias"]["lr_scale"] == 1
    scales = [groups["encoder.patch_embed.weight"]["lr_scale"]]
    scales += [groups[f"encoder.blocks.{k}.weight"]["lr_scale"] for k in range(depth)] + [1.0]
    assert all(low == pytest.approx(decay * high) for low, high in pairwise(scales))
    stem = ("patch_embed.bias", "positions.space", "positions.time", "cls_token")
    assert {groups[f"encoder.{name}"]["layer"] for name in stem} == {0}


@given(st.integers(1, 6), st.sampled_from([None, 0.75]))
def test_every_trained_parameter_is_in_exactly_one_group(depth, decay):
    module = build_module(depth)
    module["encoder"].patch_embed.bias.requires_grad_(False)
    groups = replace(ADAMW, layer_decay=decay).get_param_groups(module)
    names = [name for group in groups for name, _ in group["params"]]
    assert sorted(names) == sorted(name for name, p in module.named_parameters() if p.requires_grad)
    assert len(groups) == (2 if decay is None else 2 * (depth + 2))


def test_prefix_of_the_names_changes_no_layer_and_blocks_of_decoders_belong_to_the_top_layer():
    module = build_module(3)
    module["decoder"] = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)])})
    module["decoder"].positions = nn.Parameter(torch.zeros(5, 4))
    groups = get_groups(module, layer_decay=0.5)
    assert groups["decoder.blocks.0.weight"]["lr_scale"] == groups["decoder.positions"]["lr_scale"] == 1
    for name, group in get_groups(nn.ModuleDict({"model": module}), layer_decay=0.5).items():
        assert group["layer"] == groups[name.removeprefix("model.")]["layer"]


def test_one_dimensional_parameters_and_exempt_names_are_not_decayed():
    matrices = {"encoder.patch_embed.weight", "encoder.blocks.0.weight", "head.weight"}
    stem = {"encoder.positions.space", "encoder.positions.time", "encoder.cls_token"}
    for exempt, decayed in [
        (ADAMW.no_weight_decay, matrices),
        ((), matrices | stem),
        (("positions",), matrices | {"encoder.cls_token"}),
        (("time", "head"), (matrices | stem) - {"encoder.positions.time", "head.weight"}),
        (("position", "encoder.cls_token"), matrices | stem),  # no parts of these names
    ]:
        groups = get_groups(build_module(1), no_weight_decay=exempt)
        assert {name for name, group in groups.items() if group["weight_decay"]} == decayed


def take_steps(config, *, steps: int = 1):
    """Yield each parameter's name, value, gradient, change, learning rate and decay in each step; one gradient."""
    module = build_module(2)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
            parameter.grad = torch.randn_like(parameter)
    optimizer = config.build(module)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["lr_scale"]
    groups = get_groups(module, config)
    for _ in range(steps):
        before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
        optimizer.step()
        for name, parameter in module.named_parameters():
            lr, decay = 0.1 * groups[name]["lr_scale"], groups[name]["weight_decay"]
            yield name, before[name], parameter.grad, parameter.detach() - before[name], lr, decay


def test_step_of_adamw_follows_its_formula():
    for _, weight, gradient, change, lr, decay in take_steps(replace(ADAMW, layer_decay=0.5, betas=(0.8, 0.9))):
        # after one step both moments are the gradient's own, so that AdamW moves by the gradient's sign
        torch.testing.assert_close(change, -lr * decay * weight - lr * gradient / (gradient.abs() + 1e-8))


def test_step_of_sgd_follows_its_formula():
    m: dict[str, torch.Tensor] = {}  # a change is a difference of weights, which are rounded near 1e-7 of themselves
    for name, weight, gradient, change, lr, decay in take_steps(SGDConfig(base_lr=1.0, weight_decay=0.1), steps=3):
        update = gradient + decay * weight
        m[name] = 0.9 * m.get(name, 0.0) + update
        torch.testing.assert_close(change, -lr * (update + 0.9 * m[name]), rtol=1e-4, atol=1e-6)


def test_step_of_lars_follows_its_formula():
    m: dict[str, torch.Tensor] = {}
    config = LARSConfig(base_lr=1.0, trust_coefficient=0.02, weight_decay=0.3, layer_decay=0.5)
    for name, weight, gradient, change, lr, decay in take_steps(config, steps=3):
        assert decay == (0.3 if weight.ndim > 1 and not set(config.no_weight_decay) & set(name.split(".")) else 0)
        update = gradient + decay * weight
        q = 0.02 * weight.norm() / update.norm() if weight.ndim > 1 else 1.0
        m[name] = 0.9 * m.get(name, 0.0) + q * update
        torch.testing.assert_close(change, -lr * m[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 2.0), (2.0, -1.0)])  # the latter undoes the decay
def test_lars_without_a_norm_is_momentum(weight, gradient):
    module = nn.Linear(3, 2, bias=False)
    optimizer = LARSConfig(base_lr=1.0, weight_decay=0.5).build(module)
    optimizer.param_groups[0]["lr"] = 0.1
    nn.init.constant_(module.weight, weight)
    module.weight.grad = torch.full_like(module.weight, gradient)
    optimizer.step()
    torch.testing.assert_close(module.weight.detach(), torch.full((2, 3), weight - 0.1 * (gradient + 0.5 * weight)))


@pytest.mark.parametrize("config", [SGDConfig(base_lr=1.0, weight_decay=0.1), LARSConfig(base_lr=1.0)])
def test_parameter_without_a_gradient_is_unchanged(config):
    module = nn.Linear(3, 2)
    before, optimizer = module.weight.detach().clone(), config.build(module)
    optimizer.param_groups[0]["lr"] = 1.0
    module.bias.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (AdamWConfig, {"base_lr": math.nan}, "base_lr is nan"),
        (AdamWConfig, {"betas": (0.9, 1.0)}, "beta is 1.0"),
        (AdamWConfig, {"start_lr": -1.0}, "start_lr is -1.0"),
        (SGDConfig, {"weight_decay": -1.0}, "weight_decay is -1.0"),
        (SGDConfig, {"momentum": 1.0}, "momentum is 1.0"),
        (LARSConfig, {"momentum": -0.1}, "momentum is -0.1"),
        (LARSConfig, {"trust_coefficient": -1.0}, "trust_coefficient is -1.0"),
        (LARSConfig, {"layer_decay": 1.5}, "layer_decay is 1.5"),
    ],
)
def test_number_that_no_optimizer_can_use_is_an_error(kind, settings, message):
    with pytest.raises(InputError, match=message):
        kind(**{"base_lr": 1.0, "weight_decay": 0.0} | settings)


def test_learning_rates_are_for_a_batch_of_256():
    config = AdamWConfig(base_lr=1.5e-4, min_lr=1e-5, start_lr=1e-6)  # VideoMAE B on K400, but for start_lr
    assert config.compute_lrs(num_videos=2048, num_clips=8192) == pytest.approx((8e-6, 1.2e-3, 8e-5))
    by_clip = replace(config, lr_scaling="clips")
    assert by_clip.compute_lrs(num_videos=2048, num_clips=8192) == pytest.approx((3.2e-5, 4.8e-3, 3.2e-4))
