"""Relative positions against the formula, written out pair by pair."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import ENCODER, GRID, built, clips

from vidstill.models.attention import compute_attention, compute_attention_logits
from vidstill.models.relative_positions import (
    RelativePositionEmbedding,
    compute_token_coordinates,
    resize_relative_table,
)
from vidstill.utils.types import Grid, InputError

CLIP = clips()
VISIBLE = torch.tensor([[0, 3, 7, 12, 23], [20, 2, 11, 13, 1]])
RELATIVE = replace(ENCODER, relative_positions=True, learned_grid=(2, 4, 3), class_token=True)
GENERATOR = torch.Generator().manual_seed(3)


def build_embedding(grid: Grid, width: int = 5) -> RelativePositionEmbedding:
    relative = RelativePositionEmbedding(width, grid)
    with torch.no_grad():
        for table in relative.parameters():
            table.copy_(torch.randn(table.shape, generator=GENERATOR))
    return relative


def compute_logits(relative, queries, keys, grid, indices, first):
    """Compute the formula pair by pair; the first tokens have no coordinates."""
    logits = torch.zeros(*queries.shape[:3], keys.shape[2])
    for clip in range(len(queries)):
        coordinates = [np.unravel_index(int(index), (grid.t, grid.h, grid.w)) for index in indices[clip]]
        for head in range(queries.shape[1]):
            for i, query in enumerate(queries[clip, head]):
                for j, key in enumerate(keys[clip, head]):
                    logit = query @ key / len(query) ** 0.5
                    if i >= first and j >= first:
                        (ti, hi, wi), (tj, hj, wj) = coordinates[i - first], coordinates[j - first]
                        logit = logit + query @ relative.t[ti - tj + grid.t - 1]
                        logit = logit + query @ relative.h[hi - hj + grid.h - 1]
                        logit = logit + query @ relative.w[wi - wj + grid.w - 1]
                    logits[clip, head, i, j] = logit
    return logits


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("visible", [None, VISIBLE], ids=["all", "some"])
def test_the_logits_are_those_of_the_formula(visible, first):
    indices = torch.arange(GRID.num_tokens).expand(2, -1) if visible is None else visible
    relative = build_embedding(GRID)
    queries, keys = torch.randn(2, 2, 2, first + indices.shape[1], 5, generator=GENERATOR)
    longer = relative(queries, keys, compute_token_coordinates(GRID, visible, CLIP.device))
    expected = compute_logits(relative, queries, keys, GRID, indices, first)
    torch.testing.assert_close(compute_attention_logits(*longer), expected)
    values = torch.randn_like(keys)
    torch.testing.assert_close(compute_attention(*longer, values), expected.softmax(dim=-1) @ values)


def test_an_encoder_attends_with_them():
    encoder = built(RELATIVE)
    features = encoder(CLIP, VISIBLE, layers=(1,), attention=(2,))
    attention = encoder.blocks[1].attn
    tokens = torch.cat([features.cls_layers[1], features.layers[1]], dim=1)
    queries, keys, _ = attention.project_heads(encoder.blocks[1].norm1(tokens))
    expected = compute_logits(attention.rel_pos, queries, keys, GRID, VISIBLE, 1)
    torch.testing.assert_close(features.attention[2].logits, expected)
    torch.testing.assert_close(encoder(CLIP, VISIBLE).tokens, features.tokens)
    last = [encoder(CLIP, VISIBLE, layers=(2,), intermediates_only=flag).layers[2] for flag in (True, False)]
    torch.testing.assert_close(*last)


def test_a_model_that_was_trained_without_them_is_unchanged_at_first():
    plain = built(replace(RELATIVE, relative_positions=False))
    encoder = RELATIVE.build()
    result = encoder.load_state_dict(plain.state_dict(), strict=False)
    assert len(result.missing_keys) == 3 * len(encoder.blocks)
    assert all(".rel_pos." in name for name in result.missing_keys)
    torch.testing.assert_close(encoder(CLIP).tokens, plain(CLIP).tokens)


def test_every_table_is_trained():
    encoder = built(RELATIVE)
    encoder(CLIP).tokens.square().sum().backward()
    assert all(table.grad.any() for block in encoder.blocks for table in block.attn.rel_pos.parameters())


def test_tables_have_the_authors_sizes():
    relative = RelativePositionEmbedding(64, Grid(8, 14, 14))
    sizes = {name: tuple(table.shape) for name, table in relative.named_parameters()}
    assert sizes == {"t": (15, 64), "h": (27, 64), "w": (27, 64)}
    assert not any(table.any() for table in relative.parameters())


def test_tables_follow_the_grid_linearly():
    table = torch.randn(27, 5, generator=GENERATOR)
    expected = F.interpolate(table.T[None], size=37, mode="linear", align_corners=False)[0].T
    assert torch.equal(resize_relative_table(table, 37), expected)
    assert resize_relative_table(table, 27) is table
    line = torch.arange(9.0)[:, None]  # distances -4 to 4
    torch.testing.assert_close(resize_relative_table(line, 17)[8], line[4])  # a distance of 0 stays at the centre
    assert built(RELATIVE)(clips(frames=8, rows=8, columns=20)).tokens.shape == (2, 4 * 2 * 5, 24)


def test_in_bfloat16_they_are_the_same_up_to_rounding():
    encoder = built(RELATIVE)
    exact, low = encoder(CLIP, VISIBLE).tokens, encoder.bfloat16()(CLIP.bfloat16(), VISIBLE).tokens
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), exact, rtol=0.05, atol=0.1)  # 8 bits


def test_relative_positions_without_their_grid_are_an_error():
    with pytest.raises(
        InputError, match="relative positions need the grid that they are learned on; give its learned-grid"
    ):
        replace(ENCODER, relative_positions=True).build()
