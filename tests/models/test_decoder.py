"""The decoder: seen tokens first, then a mask token for each wanted place; only the latter come out."""

import pytest
import torch
from tiny_models import DECODER, GRID, built

from vidstill.models.decoder import Decoder, DecoderConfig, DecoderTrunk
from vidstill.models.position_embeddings import build_position_table

VISIBLE = torch.tensor([[0, 3, 7], [1, 2, 23]])
WANTED = torch.tensor([[1, 5, 9, 22], [0, 3, 4, 8]])
SEEN = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))


class Built:
    """A decoder's configuration with the `build` that the test helper calls."""

    def build(self) -> Decoder:
        return DECODER.build(24, out_dim=96)


def infill() -> DecoderTrunk:
    return built(Built()).trunk


def test_seen_and_mask_tokens_enter_with_the_code_of_their_places():
    filler = infill()
    table = build_position_table("sinusoid", GRID, 16, SEEN.device)
    joined = filler.concat_tokens(SEEN, VISIBLE, WANTED, GRID)
    assert joined.shape == (2, 7, 16)
    for clip in range(2):
        for number, place in enumerate(VISIBLE[clip]):
            assert torch.equal(joined[clip, number], SEEN[clip, number] + table[place])
        for number, place in enumerate(WANTED[clip], start=3):
            assert torch.equal(joined[clip, number], filler.mask_token[0] + table[place])


def test_a_guess_belongs_to_its_place_in_whatever_order_places_are_named():
    filler, order = infill(), torch.tensor([2, 0, 3, 1])
    guesses = filler(SEEN, VISIBLE, WANTED, GRID)
    torch.testing.assert_close(filler(SEEN, VISIBLE, WANTED[:, order], GRID), guesses[:, order])


def test_the_order_of_the_seen_tokens_does_not_matter():
    filler, order = infill(), torch.tensor([1, 2, 0])
    guesses = filler(SEEN, VISIBLE, WANTED, GRID)
    torch.testing.assert_close(filler(SEEN[:, order], VISIBLE[:, order], WANTED, GRID), guesses)


def test_the_decoder_narrows_fills_norms_and_maps():
    decoder = built(Built())
    wide = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(1))
    guesses = decoder(wide, VISIBLE, WANTED, GRID)
    assert guesses.shape == (2, 4, 96)
    filled = decoder.trunk(wide @ decoder.embed.weight.T, VISIBLE, WANTED, GRID)
    torch.testing.assert_close(guesses, decoder.head(decoder.norm(filled)))


def test_nothing_is_guessed_where_nothing_is_hidden():
    nothing = torch.empty(2, 0, dtype=torch.long)
    assert built(Built())(torch.ones(2, 3, 24), VISIBLE, nothing, GRID).shape == (2, 0, 96)


def test_the_mask_token_starts_within_one_deviation_of_nothing():
    token = DecoderTrunk(DecoderConfig(dim=4096, depth=0, heads=1)).mask_token
    assert token.abs().max().item() <= 0.02
    # the deviation of a normal law that is cut off at one deviation
    assert token.std().item() == pytest.approx(0.02 * 0.5396, rel=0.05)
