"""Image MAE: its sizes, its initial weights, its class token and its picture of what it reconstructs."""

from dataclasses import replace

import pytest
import torch
from tiny_models import GRID, IMAGEMAE, built, clips

from vidstill.figures.reconstruction import reconstruct_clips
from vidstill.methods.common.masking import RandomMask
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.imagemae import ImageMAEConfig
from vidstill.models.vit import IMAGE_BASE, IMAGE_HUGE
from vidstill.utils.types import Grid

CLIP = clips()
SEED = torch.tensor([11, 12])


def test_the_decoder_uses_the_encoders_class_token():
    method, mask = built(IMAGEMAE), IMAGEMAE.mask.draw(SEED, GRID)
    features = method.encoder(CLIP, mask.visible)
    doubled = replace(features, cls_token=2 * features.cls_token)
    assert not torch.equal(*(method.forward_decoder(CLIP, each, mask) for each in (features, doubled)))


@pytest.mark.parametrize(
    ("encoder", "ratio", "tokens", "visible"),
    [(IMAGE_BASE, 0.75, 196, 49), (IMAGE_BASE, 0.5, 196, 98), (IMAGE_HUGE, 0.75, 256, 64)],
)
def test_as_many_patches_are_visible_as_in_the_official_runs(encoder, ratio, tokens, visible):
    assert ImageMAEConfig().mask == RandomMask(ratio=0.75, round_down="visible")
    grid = Grid.from_clip(torch.empty(1, 3, 1, 224, 224, device="meta"), encoder.tubelet)
    assert grid.num_tokens == tokens
    assert replace(ImageMAEConfig().mask, ratio=ratio).draw(SEED, grid).visible.shape == (2, visible)


def test_weights_start_within_xaviers_bounds_and_the_mask_token_is_not_truncated():
    encoder, decoder = replace(IMAGEMAE.encoder, dim=96), replace(IMAGEMAE.decoder, dim=512)
    method = ImageMAEConfig(encoder=encoder, decoder=decoder).build()
    for name, parameter in method.named_parameters():
        if name.endswith("weight") and parameter.ndim == 2:
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert 0.9 * bound < parameter.abs().max() <= bound, name
    assert not method.decoder.embed.bias.any()
    assert method.encoder.patch_embed.bias.any()
    assert method.decoder.trunk.mask_token.abs().max() > 0.04  # two standard deviations


def test_a_perfect_prediction_of_the_input_is_the_clip():
    method = built(replace(IMAGEMAE, target="input"))
    mask = IMAGEMAE.mask.draw(SEED, GRID)
    method.decoder.forward = lambda *_: compute_pixel_target(CLIP, IMAGEMAE.encoder, mask.masked, "input")
    torch.testing.assert_close(reconstruct_clips(method, CLIP, SEED).reconstruction, CLIP)
