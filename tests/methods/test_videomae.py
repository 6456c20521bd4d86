"""VideoMAE against its equation, written out."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import GRID, VIDEOMAE, built, clips

from vidstill.methods.common.masking import TubeMask
from vidstill.methods.common.targets import compute_pixel_target, gather_pixels

CLIP = clips()
SEED = torch.tensor([11, 12])


def test_the_loss_is_the_mean_square_over_masked_tokens():
    method, mask = built(VIDEOMAE), VIDEOMAE.mask.draw(SEED, GRID)
    rebuilt = method.decoder(method.encoder(CLIP, mask.visible).tokens, mask.visible, mask.masked, GRID)
    target = compute_pixel_target(CLIP, VIDEOMAE.encoder, mask.masked, "per_channel")
    output = method(CLIP, seed=SEED)
    torch.testing.assert_close(output.loss, F.mse_loss(rebuilt, target))
    assert torch.equal(output.loss, output.parts["reconstruction"])


def test_raw_pixels_are_colours_in_0_to_1():
    config = replace(VIDEOMAE, target="raw")
    method, mask = built(config), config.mask.draw(SEED, GRID)
    with torch.no_grad():
        method.decoder.head.weight.zero_()
        method.decoder.head.bias.fill_(0.5)
    expected = (gather_pixels(CLIP, (2, 4, 4), mask.masked) - 0.5).square().mean()
    torch.testing.assert_close(method(CLIP, seed=SEED).loss, expected)


def test_a_method_that_hides_nothing_has_nothing_to_learn():
    output = built(replace(VIDEOMAE, mask=TubeMask(ratio=0.0)))(CLIP, seed=SEED)
    assert output.loss.item() == 0
    output.loss.backward()


def test_without_a_mask_and_without_seeds_nothing_is_drawn():
    with pytest.raises(ValueError, match="a mask, or the seeds"):
        built(VIDEOMAE)(CLIP)
