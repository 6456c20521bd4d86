import dataclasses
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vidstill.engine.optim import AdamWConfig, parameter_groups

UNDECAYED = AdamWConfig(base_lr=1.0).undecayed


def encoder(depth: int) -> nn.Module:
    """Something with our names: `encoder.embed`, `encoder.positions`, `encoder.blocks.k`, `encoder.norm`, `head`."""
    task = nn.ModuleDict({"encoder": nn.Module(), "head": nn.Linear(4, 2)})
    task["encoder"].embed = nn.Linear(3, 4)
    task["encoder"].positions = nn.Parameter(torch.zeros(5, 4))
    task["encoder"].blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(depth))
    task["encoder"].norm = nn.LayerNorm(4)
    return task


def by_name(module: nn.Module, **asked):
    asked = {"weight_decay": 0.05, "layer_decay": None, "undecayed": UNDECAYED} | asked
    return {
        name: group for group in parameter_groups(module.named_parameters(), **asked) for name, _ in group["params"]
    }


@given(st.integers(1, 14), st.floats(0.1, 1.0))
def test_rates_fall_by_the_same_share_from_each_layer_to_the_one_below(depth, decay):
    groups = by_name(encoder(depth), layer_decay=decay)
    assert groups["head.weight"]["lr_scale"] == groups["encoder.norm.bias"]["lr_scale"] == 1
    scales = [groups["encoder.embed.weight"]["lr_scale"]]
    scales += [groups[f"encoder.blocks.{k}.weight"]["lr_scale"] for k in range(depth)] + [1.0]
    assert all(low == pytest.approx(decay * high) for low, high in itertools.pairwise(scales))
    assert groups["encoder.positions"]["layer"] == groups["encoder.embed.bias"]["layer"] == 0


@given(st.integers(1, 6), st.sampled_from([None, 0.75]))
def test_every_trained_parameter_is_in_exactly_one_group(depth, decay):
    module = encoder(depth)
    module["encoder"].embed.bias.requires_grad_(False)
    groups = parameter_groups(module.named_parameters(), weight_decay=0.05, layer_decay=decay, undecayed=UNDECAYED)
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
    assert by_name(task, layer_decay=0.5)["decoder.blocks.0.weight"]["lr_scale"] == 1


def test_what_has_one_dimension_or_a_spared_name_is_not_decayed():
    groups = by_name(encoder(1))
    decayed = {name for name, group in groups.items() if group["weight_decay"]}
    assert decayed == {"encoder.embed.weight", "encoder.blocks.0.weight", "head.weight"}
    assert by_name(encoder(1), undecayed=())["encoder.positions"]["weight_decay"] == 0.05


def test_one_step_of_a_group_is_adamw_at_the_group_s_own_rate():
    config = AdamWConfig(base_lr=1.0, layer_decay=0.5, betas=(0.8, 0.9))
    module = encoder(2)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = config.build(module)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["lr_scale"]
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    groups = by_name(module, layer_decay=0.5)
    for name, parameter in module.named_parameters():
        rate, decay = 0.1 * groups[name]["lr_scale"], groups[name]["weight_decay"]
        # after one step both moments are the gradient's own, so that AdamW moves by the gradient's sign
        moved = before[name] * (1 - rate * decay) - rate * parameter.grad / (parameter.grad.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), moved)


def test_peak_and_final_are_for_a_batch_of_256():
    config = AdamWConfig(base_lr=1.5e-4, min_lr=1e-5)
    assert config.peak_and_final(videos=2048, clips=8192) == pytest.approx((1.2e-3, 8e-5))  # VideoMAE B on K400
    by_clip = dataclasses.replace(config, rate_per="clips")
    assert by_clip.peak_and_final(videos=2048, clips=8192) == pytest.approx((4.8e-3, 3.2e-4))
