"""Blocks against the same arithmetic written out, and against torch's own attention."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from vidstill.models.layers import (
    Attention,
    Block,
    TransformerConfig,
    init_xavier_weights,
)
from vidstill.utils.types import InputError

CONFIG = TransformerConfig(dim=24, depth=1, heads=3)
TOKENS = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1))


def build_block(config=CONFIG, drop_path=0.0) -> Block:
    torch.manual_seed(0)
    block = Block(config, drop_path)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return block


def attend_by_head(attention: Attention, tokens: torch.Tensor) -> torch.Tensor:
    """Compute softmax(q k / sqrt(d)) v head by head, then the projection."""
    bias = torch.cat([attention.q_bias, torch.zeros(24), attention.v_bias])
    queries, keys, values = (tokens @ attention.qkv.weight.T + bias).split(24, dim=-1)
    width, heads = 24 // attention.heads, []
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        weights = (queries[..., part] @ keys[..., part].mT / math.sqrt(width)).softmax(dim=-1)
        heads.append(weights @ values[..., part])
    return torch.cat(heads, dim=-1) @ attention.proj.weight.T + attention.proj.bias


def test_a_block_computes_what_the_paper_writes():
    block = build_block(replace(CONFIG, layer_scale=0.1))
    normalized = F.layer_norm(TOKENS, (24,), block.norm1.weight, block.norm1.bias, 1e-6)
    tokens = TOKENS + block.gamma_1 * attend_by_head(block.attn, normalized)
    hidden = F.gelu(block.mlp.fc1(F.layer_norm(tokens, (24,), block.norm2.weight, block.norm2.bias, 1e-6)))
    torch.testing.assert_close(block(TOKENS), tokens + block.gamma_2 * block.mlp.fc2(hidden))


def test_keys_have_no_bias_and_attention_without_biases_is_attention_with_biases_of_zero():
    biased, plain = Attention(CONFIG), Attention(replace(CONFIG, attention_bias="none"))
    names = {"qkv.weight", "proj.weight", "proj.bias"}
    assert {name for name, _ in biased.named_parameters()} == names | {"q_bias", "v_bias"}
    assert {name for name, _ in plain.named_parameters()} == names
    biased.load_state_dict(plain.state_dict() | {"q_bias": torch.zeros(24), "v_bias": torch.zeros(24)})
    torch.testing.assert_close(plain(TOKENS), biased(TOKENS))


def test_the_attention_map_is_what_the_block_attends_with():
    block = build_block()
    attention = block.compute_attention_map(TOKENS)
    output = rearrange(attention.logits.softmax(dim=-1) @ attention.values, "b heads n d -> b n (heads d)")
    torch.testing.assert_close(block.attn.proj(output), block.attn(block.norm1(TOKENS)))


def test_heads_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(InputError, match="5 heads do not divide a width of 24"):
        Attention(replace(CONFIG, heads=5))


def test_drop_path_drops_whole_branches_and_leaves_the_expectation():
    rate, clips = 0.3, 4000
    block = build_block(drop_path=rate).train()
    with torch.no_grad():  # attention gives 1 and the MLP 0
        for layer, value in ((block.attn.proj, 1.0), (block.mlp.fc2, 0.0)):
            layer.weight.zero_()
            layer.bias.fill_(value)
    torch.manual_seed(0)
    branches = block(torch.zeros(clips, 1, 24))
    is_active = branches[:, 0, 0] != 0
    assert branches[is_active].unique().tolist() == pytest.approx([1 / (1 - rate)])
    assert (branches == branches[:, :, :1]).all()
    error = 5 * math.sqrt(rate * (1 - rate) / clips)
    assert is_active.double().mean().item() == pytest.approx(1 - rate, abs=error)
    assert branches.double().mean().item() == pytest.approx(1, abs=error / (1 - rate))
    assert torch.equal(build_block(drop_path=0.9).eval()(TOKENS), build_block()(TOKENS))  # nothing in eval mode


@pytest.mark.parametrize(("depth", "rates"), [(1, [0.0]), (2, [0.0, 0.2]), (5, [0.0, 0.05, 0.1, 0.15, 0.2])])
def test_drop_path_rises_linearly_with_depth(depth, rates):
    blocks = replace(CONFIG, depth=depth, drop_path=0.2).build_blocks()
    assert [block.drop_path for block in blocks] == pytest.approx(rates)


def test_initial_weights_are_xavier_uniform_and_biases_zero():
    torch.manual_seed(0)
    block = Block(replace(CONFIG, dim=96))
    init_xavier_weights(block)
    for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        bound = math.sqrt(6 / (linear.in_features + linear.out_features))
        assert linear.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert linear.bias is None or not linear.bias.any()
    assert not block.attn.q_bias.any()
    assert not block.attn.v_bias.any()
