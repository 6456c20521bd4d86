"""Blocks against the same arithmetic written out, and against torch's own attention."""

import math

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from tiny_models import built

from vidstill.models.init import init_xavier_weights
from vidstill.models.layers import (
    Attention,
    Block,
    BlockConfig,
    build_blocks,
    compute_attention,
    compute_attention_logits,
)
from vidstill.utils.types import InputError

CONFIG = BlockConfig(dim=24, heads=3)
TOKENS = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1))


class Built:
    """A block's configuration with the `build` that the test helper calls."""

    def __init__(self, config=CONFIG, drop_path=0.0):
        self.config, self.drop_path = config, drop_path

    def build(self):
        return Block(self.config, self.drop_path)


def by_hand(attention: Attention, tokens: torch.Tensor) -> torch.Tensor:
    """Head by head: softmax(q k / sqrt(d)) v, then the projection."""
    bias = torch.cat([attention.q_bias, torch.zeros(24), attention.v_bias])
    queries, keys, values = (tokens @ attention.qkv.weight.T + bias).split(24, dim=-1)
    width, heads = 24 // attention.heads, []
    for head in range(attention.heads):
        part = slice(head * width, (head + 1) * width)
        weights = (queries[..., part] @ keys[..., part].mT / math.sqrt(width)).softmax(dim=-1)
        heads.append(weights @ values[..., part])
    return torch.cat(heads, dim=-1) @ attention.proj.weight.T + attention.proj.bias


def test_a_block_is_what_the_paper_writes():
    block = built(Built(BlockConfig(dim=24, heads=3, layer_scale=0.1)))
    tokens = TOKENS + block.gamma_1 * by_hand(block.attn, F.layer_norm(TOKENS, (24,), *weights(block.norm1)))
    hidden = F.gelu(block.mlp.fc1(F.layer_norm(tokens, (24,), *weights(block.norm2))))
    torch.testing.assert_close(block(TOKENS), tokens + block.gamma_2 * block.mlp.fc2(hidden))


def weights(norm):
    return norm.weight, norm.bias, 1e-6


def test_keys_have_no_bias():
    names = dict(Attention(CONFIG).named_parameters())
    assert set(names) == {"qkv.weight", "q_bias", "v_bias", "proj.weight", "proj.bias"}


def test_the_attention_map_is_what_the_block_attends_with():
    block = built(Built())
    found = block.compute_attention_map(TOKENS)
    attended = rearrange(found.logits.softmax(dim=-1) @ found.values, "b heads n d -> b n (heads d)")
    torch.testing.assert_close(block.attn.proj(attended), block.attn(block.norm1(TOKENS)))


def test_plain_products_in_bfloat16_are_the_fused_kernel_up_to_bfloat16():
    chance = torch.Generator().manual_seed(0)
    exact = [torch.randn(2, 3, 50, 16, generator=chance) for _ in range(3)]
    rounded = [x.bfloat16() for x in exact]
    fused = F.scaled_dot_product_attention(*rounded)
    truth = F.scaled_dot_product_attention(*(x.double() for x in rounded))
    # bfloat16 has 8 bits; the values are about 1, their average is no larger
    torch.testing.assert_close(compute_attention(*rounded).double(), truth, rtol=0, atol=4 * 2.0**-8)
    torch.testing.assert_close(compute_attention(*rounded), fused, rtol=0, atol=4 * 2.0**-8)
    torch.testing.assert_close(
        compute_attention(*exact), compute_attention_logits(*exact[:2]).softmax(dim=-1) @ exact[2]
    )


def test_a_width_that_does_not_divide_into_heads_is_met_with_a_sentence():
    with pytest.raises(InputError, match="5 heads do not divide a width of 24"):
        Attention(BlockConfig(dim=24, heads=5))


def test_dropped_branches_leave_the_expectation_as_it_is():
    rate, clips = 0.3, 4000
    block = built(Built(drop_path=rate)).train()
    change = torch.ones(clips, 1, 24)
    torch.manual_seed(0)
    dropped = block._scale_and_drop(change, None)
    kept = dropped[:, 0, 0] != 0
    assert dropped[kept].unique().tolist() == pytest.approx([1 / (1 - rate)])
    assert (dropped == dropped[:, :, :1]).all()  # the whole branch of a clip, or nothing of it
    error = 5 * math.sqrt(rate * (1 - rate) / clips)
    assert kept.double().mean().item() == pytest.approx(1 - rate, abs=error)
    assert dropped.double().mean().item() == pytest.approx(1, abs=error / (1 - rate))


def test_nothing_is_dropped_in_eval_mode():
    dropping, plain = built(Built(drop_path=0.9)), built(Built())
    dropping.load_state_dict(plain.state_dict())
    assert torch.equal(dropping.eval()(TOKENS), plain(TOKENS))


@pytest.mark.parametrize(("depth", "rates"), [(1, [0.0]), (2, [0.0, 0.2]), (5, [0.0, 0.05, 0.1, 0.15, 0.2])])
def test_the_rate_of_dropped_branches_rises_linearly_with_depth(depth, rates):
    assert [block.drop_path for block in build_blocks(CONFIG, depth, 0.2)] == pytest.approx(rates)


def test_weights_start_xavier_uniform_and_biases_at_zero():
    torch.manual_seed(0)
    blocks = build_blocks(BlockConfig(dim=96, heads=3), 1)
    init_xavier_weights(blocks)
    block = blocks[0]
    for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        bound = math.sqrt(6 / (linear.in_features + linear.out_features))
        assert linear.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert linear.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        assert linear.bias is None or not linear.bias.any()
    assert not block.attn.q_bias.any()
    assert not block.attn.v_bias.any()


def test_attention_without_biases_is_attention_whose_biases_are_zero():
    config = BlockConfig(dim=24, heads=2, attention_bias="none")
    bare, tokens = Attention(config), torch.randn(2, 5, 24)
    assert {name for name, _ in bare.named_parameters()} == {"qkv.weight", "proj.weight", "proj.bias"}
    biased = Attention(BlockConfig(dim=24, heads=2))
    biased.load_state_dict(bare.state_dict() | {"q_bias": torch.zeros(24), "v_bias": torch.zeros(24)})
    torch.testing.assert_close(bare(tokens), biased(tokens))
