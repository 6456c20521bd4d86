"""Relative positions against the formula, written out pair by pair."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import ENCODER, GRID, built, clips

from vidstill.models.layers import compute_attention, compute_attention_logits
from vidstill.models.relative_positions import (
    RelativePositionEmbedding,
    compute_token_coordinates,
    resize_relative_table,
)
from vidstill.utils.types import Grid, InputError

CLIP = clips()
VISIBLE = torch.tensor([[0, 3, 7, 12, 23], [20, 2, 11, 13, 1]])
RELATIVE = replace(ENCODER, relative_positions=True, learned_grid=(2, 4, 3), class_token=True)
CHANCE = torch.Generator().manual_seed(3)


def tables(grid: Grid, width: int = 5) -> RelativePositionEmbedding:
    relative = RelativePositionEmbedding(width, grid)
    with torch.no_grad():
        for table in relative.parameters():
            table.copy_(torch.randn(table.shape, generator=CHANCE))
    return relative


def pair_by_pair(relative, queries, keys, grid, places, first):
    """The logits as the formula says; the first tokens stand nowhere."""
    logits = torch.zeros(*queries.shape[:3], keys.shape[2])
    for clip in range(len(queries)):
        stand = [divmod(int(place), grid.h * grid.w) for place in places[clip]]
        stand = [(slot, *divmod(place, grid.w)) for slot, place in stand]
        for head in range(queries.shape[1]):
            for i, query in enumerate(queries[clip, head]):
                for j, key in enumerate(keys[clip, head]):
                    logit = query @ key / len(query) ** 0.5
                    if i >= first and j >= first:
                        (ti, hi, wi), (tj, hj, wj) = stand[i - first], stand[j - first]
                        logit = logit + query @ relative.t[ti - tj + grid.t - 1]
                        logit = logit + query @ relative.h[hi - hj + grid.h - 1]
                        logit = logit + query @ relative.w[wi - wj + grid.w - 1]
                    logits[clip, head, i, j] = logit
    return logits


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("visible", [None, VISIBLE], ids=["all", "some"])
def test_the_logits_are_those_of_the_formula(visible, first):
    places = torch.arange(GRID.num_tokens).expand(2, -1) if visible is None else visible
    relative = tables(GRID)
    queries, keys = torch.randn(2, 2, 2, first + places.shape[1], 5, generator=CHANCE)
    longer = relative(queries, keys, compute_token_coordinates(GRID, visible, CLIP.device))
    expected = pair_by_pair(relative, queries, keys, GRID, places, first)
    torch.testing.assert_close(compute_attention_logits(*longer), expected)
    values = torch.randn_like(keys)
    torch.testing.assert_close(compute_attention(*longer, values), expected.softmax(dim=-1) @ values)


def test_an_encoder_attends_with_them():
    encoder = built(RELATIVE)
    seen = encoder(CLIP, VISIBLE, layers=(1,), attention=(2,))
    attention = encoder.blocks[1].attn
    tokens = torch.cat([seen.cls_layers[1], seen.layers[1]], dim=1)
    queries, keys, _ = attention.project_qkv(encoder.blocks[1].norm1(tokens)).unbind()
    expected = pair_by_pair(attention.rel_pos, queries, keys, GRID, VISIBLE, 1)
    torch.testing.assert_close(seen.attention[2].logits, expected)
    torch.testing.assert_close(encoder(CLIP, VISIBLE).tokens, seen.tokens)
    torch.testing.assert_close(
        encoder(CLIP, VISIBLE, layers=(2,), intermediates_only=True).layers[2],
        encoder(CLIP, VISIBLE, layers=(2,)).layers[2],
    )


def test_all_tokens_by_name_are_the_whole_clip():
    encoder = built(RELATIVE)
    everything = torch.arange(GRID.num_tokens).expand(2, -1)
    torch.testing.assert_close(encoder(CLIP, everything).tokens, encoder(CLIP).tokens)


def test_the_order_in_which_tokens_are_named_moves_none_of_them():
    encoder, order = built(RELATIVE), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(encoder(CLIP, VISIBLE[:, order]).tokens, encoder(CLIP, VISIBLE).tokens[:, order])


def test_a_model_that_was_trained_without_them_is_the_same_at_first():
    plain = built(replace(RELATIVE, relative_positions=False))
    encoder = RELATIVE.build()
    left = encoder.load_state_dict(plain.state_dict(), strict=False)
    assert len(left.missing_keys) == 3 * len(encoder.blocks)
    assert all(".rel_pos." in name for name in left.missing_keys)
    torch.testing.assert_close(encoder(CLIP).tokens, plain(CLIP).tokens)


def test_every_table_is_trained():
    encoder = built(RELATIVE)
    encoder(CLIP).tokens.square().sum().backward()
    assert all(table.grad.any() for block in encoder.blocks for table in block.attn.rel_pos.parameters())


def test_tables_have_the_authors_sizes():
    relative = RelativePositionEmbedding(64, Grid(8, 14, 14))
    assert {name: tuple(table.shape) for name, table in relative.named_parameters()} == {
        "t": (15, 64),
        "h": (27, 64),
        "w": (27, 64),
    }
    assert not any(table.any() for table in relative.parameters())


def test_tables_follow_the_grid_linearly():
    table = torch.randn(27, 5, generator=CHANCE)
    expected = F.interpolate(table.T[None], size=37, mode="linear", align_corners=False)[0].T
    assert torch.equal(resize_relative_table(table, 37), expected)
    assert resize_relative_table(table, 27) is table
    line = torch.arange(9.0)[:, None]  # distances -4 to 4
    torch.testing.assert_close(resize_relative_table(line, 17)[8], line[4])  # no distance stays in the middle
    assert built(RELATIVE)(clips(frames=8, rows=8, columns=20)).tokens.shape == (2, 4 * 2 * 5, 24)


def test_in_bfloat16_they_are_the_same_but_for_rounding():
    encoder = built(RELATIVE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = encoder(CLIP, VISIBLE).tokens
    torch.testing.assert_close(low.float(), encoder(CLIP, VISIBLE).tokens, rtol=0.05, atol=0.1)  # 8 bits
    assert encoder.bfloat16()(CLIP.bfloat16(), VISIBLE).tokens.dtype == torch.bfloat16


def test_relative_positions_without_their_grid_are_met_with_a_sentence():
    with pytest.raises(
        InputError, match="relative positions need the grid that they are learned on; give its learned-grid"
    ):
        replace(ENCODER, relative_positions=True).build()
