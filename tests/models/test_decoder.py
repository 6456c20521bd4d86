"""The decoder: visible tokens first, then a mask token for each masked one; only the latter come out."""

import pytest
import torch
from reference_models import run_trunk
from tiny_models import DECODER, GRID

from vidstill.models.decoder import Decoder, DecoderConfig, DecoderTrunk
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import Features

VISIBLE = torch.tensor([[0, 3, 7], [1, 2, 23]])
MASKED = torch.tensor([[1, 5, 9, 22], [0, 3, 4, 8]])
TOKENS = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(0))
NARROW = TOKENS[..., :16]


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    decoder = DECODER.build(24, out_dim=96)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return decoder


def test_visible_and_mask_tokens_enter_with_their_position_embeddings(decoder):
    table = build_position_table("sinusoid", GRID, 16, TOKENS.device)
    tokens, output = run_trunk(decoder.trunk, NARROW, VISIBLE, MASKED, GRID)
    expected = torch.cat([NARROW + table[VISIBLE], decoder.trunk.mask_token + table[MASKED]], dim=1)
    assert torch.equal(tokens, expected)
    assert torch.equal(decoder.trunk(NARROW, VISIBLE, MASKED, GRID), output[:, 3:])


def test_predictions_do_not_depend_on_the_order_in_which_tokens_are_given(decoder):
    predictions = decoder.trunk(NARROW, VISIBLE, MASKED, GRID)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(decoder.trunk(NARROW, VISIBLE, MASKED[:, order], GRID), predictions[:, order])
    order = torch.tensor([1, 2, 0])
    torch.testing.assert_close(decoder.trunk(NARROW[:, order], VISIBLE[:, order], MASKED, GRID), predictions)


def test_the_decoder_embeds_runs_its_blocks_normalizes_and_predicts(decoder):
    features = Features(tokens=TOKENS, cls_token=TOKENS[:, :0])
    predictions = decoder(features, VISIBLE, MASKED, GRID)
    assert predictions.shape == (2, 4, 96)
    output = decoder.trunk(TOKENS @ decoder.embed.weight.T, VISIBLE, MASKED, GRID)
    torch.testing.assert_close(predictions, decoder.head(decoder.norm(output)))
    assert decoder(features, VISIBLE, MASKED[:, :0], GRID).shape == (2, 0, 96)


def test_the_initial_mask_token_is_truncated_at_one_standard_deviation():
    token = DecoderTrunk(DecoderConfig(dim=4096, depth=0, heads=1)).mask_token
    assert token.abs().max().item() <= 0.02
    assert token.std().item() == pytest.approx(0.02 * 0.5396, rel=0.05)  # of a truncated normal distribution
