import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vidstill.engine.optimizer import AdamWConfig, LARSConfig, SGDConfig, build_param_groups
from vidstill.utils.types import InputError

UNDECAYED = AdamWConfig(base_lr=1.0).no_weight_decay


def encoder(depth: int) -> nn.Module:
    """A module with our names: an encoder's `patch_embed`, `positions`, `cls_token`, blocks and norm; a head."""
    task = nn.ModuleDict({"encoder": nn.Module(), "head": nn.Linear(4, 2)})
    task["encoder"].patch_embed = nn.Linear(3, 4)
    task["encoder"].positions = nn.ParameterDict({"space": torch.zeros(5, 4), "time": torch.zeros(3, 4)})
    task["encoder"].cls_token = nn.Parameter(torch.zeros(1, 4))
    task["encoder"].blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))
    task["encoder"].norm = nn.LayerNorm(4)
    return task


def by_name(module: nn.Module, **asked):
    asked = {"weight_decay": 0.05, "layer_decay": None, "no_weight_decay": UNDECAYED} | asked
    return {
        name: group for group in build_param_groups(module.named_parameters(), **asked) for name, _ in group["params"]
    }


@given(st.integers(1, 14), st.floats(0.1, 1.0))
def test_rates_fall_by_the_same_share_from_each_layer_to_the_one_below(depth, decay):
    groups = by_name(encoder(depth), layer_decay=decay)
    assert groups["head.weight"]["lr_scale"] == groups["encoder.norm.bias"]["lr_scale"] == 1
    scales = [groups["encoder.patch_embed.weight"]["lr_scale"]]
    scales += [groups[f"encoder.blocks.{k}.weight"]["lr_scale"] for k in range(depth)] + [1.0]
    assert all(low == pytest.approx(decay * high) for low, high in itertools.pairwise(scales))
    entry = ("patch_embed.bias", "positions.space", "positions.time", "cls_token")
    assert {groups[f"encoder.{name}"]["layer"] for name in entry} == {0}


@given(st.integers(1, 6), st.sampled_from([None, 0.75]))
def test_every_trained_parameter_is_in_exactly_one_group(depth, decay):
    module = encoder(depth)
    module["encoder"].patch_embed.bias.requires_grad_(False)
    groups = build_param_groups(
        module.named_parameters(), weight_decay=0.05, layer_decay=decay, no_weight_decay=UNDECAYED
    )
    names = [name for group in groups for name, _ in group["params"]]
    assert sorted(names) == sorted(name for name, p in module.named_parameters() if p.requires_grad)
    assert len(groups) == (2 if decay is None else 2 * (depth + 2))


def test_a_name_prefix_moves_no_layer():
    inner, outer = encoder(3), nn.ModuleDict({"model": encoder(3)})
    groups = by_name(outer, layer_decay=0.5)
    for name, group in by_name(inner, layer_decay=0.5).items():
        assert groups[f"model.{name}"]["layer"] == group["layer"]


def test_blocks_of_decoders_and_generators_belong_to_the_top_layer():
    task = encoder(2)
    task["decoder"] = nn.ModuleDict({"blocks": nn.ModuleList([nn.Linear(4, 4)])})
    task["decoder"].positions = nn.Parameter(torch.zeros(5, 4))
    groups = by_name(task, layer_decay=0.5)
    assert groups["decoder.blocks.0.weight"]["lr_scale"] == groups["decoder.positions"]["lr_scale"] == 1


def test_what_has_one_dimension_or_a_spared_word_in_its_name_is_not_decayed():
    matrices = {"encoder.patch_embed.weight", "encoder.blocks.0.weight", "head.weight"}
    entry = {"encoder.positions.space", "encoder.positions.time", "encoder.cls_token"}
    for undecayed, decayed in [
        (UNDECAYED, matrices),
        ((), matrices | entry),
        (("positions",), matrices | {"encoder.cls_token"}),
        (("time", "head"), (matrices | entry) - {"encoder.positions.time", "head.weight"}),
        (("position", "encoder.cls_token"), matrices | entry),  # no words of these names
    ]:
        groups = by_name(encoder(1), no_weight_decay=undecayed)
        assert {name for name, group in groups.items() if group["weight_decay"]} == decayed


def moved(config, *, steps: int = 1):
    """Every weight's way in so many steps at rate 0.1, one at a time, with the same gradient in each."""
    module = encoder(2)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
            parameter.grad = torch.randn_like(parameter)
    optimizer = config.build(module)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["lr_scale"]
    groups = by_name(module, weight_decay=config.weight_decay, layer_decay=config.layer_decay)
    for _ in range(steps):
        before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
        optimizer.step()
        for name, parameter in module.named_parameters():
            rate, decay = 0.1 * groups[name]["lr_scale"], groups[name]["weight_decay"]
            yield name, before[name], parameter.grad, parameter.detach() - before[name], rate, decay


def test_one_step_of_a_group_is_adamw_at_the_group_s_own_rate():
    config = AdamWConfig(base_lr=1.0, layer_decay=0.5, betas=(0.8, 0.9))
    for _, weight, gradient, way, rate, decay in moved(config):
        # after one step both moments are the gradient's own, so that AdamW moves by the gradient's sign
        torch.testing.assert_close(way, -rate * decay * weight - rate * gradient / (gradient.abs() + 1e-8))


def test_a_step_of_sgd_looks_ahead_along_its_momentum():
    m: dict[str, torch.Tensor] = {}  # a way is a difference of weights, which are rounded near 1e-7 of themselves
    for name, weight, gradient, way, rate, decay in moved(SGDConfig(base_lr=1.0, weight_decay=0.1), steps=3):
        towards = gradient + decay * weight
        m[name] = 0.9 * m.get(name, 0.0) + towards
        torch.testing.assert_close(way, -rate * (towards + 0.9 * m[name]), rtol=1e-4, atol=1e-6)


def test_a_step_of_lars_moves_a_matrix_in_proportion_to_its_length_and_a_bias_as_momentum_does():
    m: dict[str, torch.Tensor] = {}
    for name, weight, gradient, way, rate, decay in moved(LARSConfig(base_lr=1.0, trust_coefficient=0.02), steps=3):
        q = 0.02 * weight.norm() / gradient.norm() if weight.ndim > 1 else 1.0
        assert decay == 0
        m[name] = 0.9 * m.get(name, 0.0) + q * gradient
        torch.testing.assert_close(way, -rate * m[name], rtol=1e-4, atol=1e-6)


def test_weight_decay_is_a_part_of_the_slope_that_lars_scales():
    for name, weight, gradient, way, rate, decay in moved(LARSConfig(base_lr=1.0, weight_decay=0.3, layer_decay=0.5)):
        assert decay == (0.3 if weight.ndim > 1 and not set(UNDECAYED) & set(name.split(".")) else 0)
        slope = gradient + decay * weight
        q = 0.001 * weight.norm() / slope.norm() if weight.ndim > 1 else 1.0
        torch.testing.assert_close(way, -rate * q * slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("weight", "gradient"), [(0.0, 2.0), (2.0, -1.0)])  # the latter undoes the decay
def test_where_a_length_is_zero_lars_is_momentum(weight, gradient):
    module = nn.Linear(3, 2, bias=False)
    optimizer = LARSConfig(base_lr=1.0, weight_decay=0.5).build(module)
    optimizer.param_groups[0]["lr"] = 0.1
    nn.init.constant_(module.weight, weight)
    module.weight.grad = torch.full_like(module.weight, gradient)
    optimizer.step()
    torch.testing.assert_close(module.weight.detach(), torch.full((2, 3), weight - 0.1 * (gradient + 0.5 * weight)))


@pytest.mark.parametrize("config", [SGDConfig(base_lr=1.0, weight_decay=0.1), LARSConfig(base_lr=1.0)])
def test_what_has_no_gradient_stays(config):
    module = nn.Linear(3, 2)
    before, optimizer = module.weight.detach().clone(), config.build(module)
    optimizer.param_groups[0]["lr"] = 1.0
    module.bias.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize(
    ("kind", "asked", "sentence"),
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
def test_numbers_that_no_optimiser_can_use_are_named(kind, asked, sentence):
    with pytest.raises(InputError, match=sentence):
        kind(**{"base_lr": 1.0, "weight_decay": 0.0} | asked)


def test_rates_are_for_a_batch_of_256():
    config = AdamWConfig(base_lr=1.5e-4, min_lr=1e-5, start_lr=1e-6)
    # VideoMAE B on K400, but for the first rate
    assert config.compute_lrs(num_videos=2048, num_clips=8192) == pytest.approx((8e-6, 1.2e-3, 8e-5))
    by_clip = dataclasses.replace(config, lr_scaling="clips")
    assert by_clip.compute_lrs(num_videos=2048, num_clips=8192) == pytest.approx((3.2e-5, 4.8e-3, 3.2e-4))
