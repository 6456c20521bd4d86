"""Image MAE against its equation, its sizes, and its picture of what it rebuilds."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import GRID, IMAGEMAE, built, clips
from torch import nn

from vidstill.figures.reconstruction import reconstruct_clips
from vidstill.methods.common.masking import Mask, RandomMask
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.imagemae import ImageMAEConfig
from vidstill.models.vit import IMAGE_BASE, IMAGE_HUGE, IMAGE_LARGE, IMAGE_SMALL, patchify
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid, InputError, gather_tokens

CLIP = clips()
SEED = torch.tensor([11, 12])


def on_meta(config) -> nn.Module:
    with torch.device("meta"):
        return config.build()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_loss_is_the_mean_square_over_masked_tokens():
    method, mask = built(IMAGEMAE), IMAGEMAE.mask.draw(SEED, GRID)
    seen = method.encoder(CLIP, mask.visible)
    rebuilt = method.decoder(seen.tokens, mask.visible, mask.masked, GRID, seen.cls_token)
    target = compute_pixel_target(CLIP, IMAGEMAE.encoder, mask.masked, "per_patch")
    output = method(CLIP, seed=SEED)
    torch.testing.assert_close(output.loss, F.mse_loss(rebuilt, target))
    assert torch.equal(output.loss, output.parts["reconstruction"])


def test_pixels_that_are_not_normalised_are_those_that_enter_the_encoder():
    config = replace(IMAGEMAE, target="input")
    method, mask = built(config), config.mask.draw(SEED, GRID)
    with torch.no_grad():
        method.decoder.head.weight.zero_()
        method.decoder.head.bias.zero_()
    entering = method.encoder.normalize_input(patchify(CLIP, config.encoder.tubelet))
    torch.testing.assert_close(method(CLIP, seed=SEED).loss, gather_tokens(entering, mask.masked).square().mean())


def test_the_decoder_is_given_the_encoders_class_token():
    method, mask = built(IMAGEMAE), IMAGEMAE.mask.draw(SEED, GRID)
    seen = method.encoder(CLIP, mask.visible)
    rest = seen.tokens, mask.visible, mask.masked, GRID
    assert not torch.equal(method.decoder(*rest, seen.cls_token), method.decoder(*rest, 2 * seen.cls_token))


def test_an_encoder_without_the_class_token_that_the_decoder_takes_is_met_with_a_sentence():
    config = replace(IMAGEMAE, encoder=replace(IMAGEMAE.encoder, class_token=False))
    with pytest.raises(InputError, match="needs the encoder's class token, and the encoder has none"):
        built(config)(CLIP, seed=SEED)


def test_the_order_of_the_visible_tokens_is_of_no_account():
    method, mask = built(IMAGEMAE), IMAGEMAE.mask.draw(SEED, GRID)
    shuffled = Mask(mask.visible.flip(1), mask.masked.flip(1))
    torch.testing.assert_close(method(CLIP, mask=shuffled).loss, method(CLIP, mask=mask).loss)


@pytest.mark.parametrize(("encoder", "ratio", "tokens", "seen"), [
    (IMAGE_BASE, 0.75, 196, 49), (IMAGE_BASE, 0.5, 196, 98), (IMAGE_HUGE, 0.75, 256, 64),
])  # fmt: skip
def test_as_many_patches_of_an_image_are_seen_as_in_the_official_runs(encoder, ratio, tokens, seen):
    grid = Grid.from_clip(torch.empty(1, 3, 1, 224, 224, device="meta"), encoder.tubelet)
    mask = replace(ImageMAEConfig().mask, ratio=ratio).draw(SEED, grid)
    assert grid.num_tokens == tokens
    assert mask.visible.shape == (2, seen)


def test_three_patches_in_four_are_hidden_by_default():
    assert ImageMAEConfig().mask == RandomMask(ratio=0.75, round_down="visible")


def test_a_pre_training_has_the_official_parameters():
    tables = 197 * (768 + 512)  # computed here, but counted there
    assert parameters(on_meta(ImageMAEConfig())) == 111_907_840 - tables


@pytest.mark.parametrize(
    ("size", "millions"), [(IMAGE_SMALL, 22), (IMAGE_BASE, 86), (IMAGE_LARGE, 304), (IMAGE_HUGE, 632)]
)
def test_a_classifier_of_imagenet_has_the_published_parameters(size, millions):
    side = 224 // size.tubelet[1]
    learned = replace(size, positions="learned", learned_grid=(1, side, side))
    found = parameters(on_meta(ClassifierConfig(encoder=learned, num_classes=1000)))
    assert found / 1e6 == pytest.approx(millions, abs=0.6)  # told in whole millions: B's 86.6 as 86
    assert size != IMAGE_BASE or found == 86_567_656


def test_weights_start_within_xaviers_bounds_and_the_mask_token_is_not_cut_off():
    method = ImageMAEConfig(
        encoder=replace(IMAGEMAE.encoder, dim=96), decoder=replace(IMAGEMAE.decoder, dim=512)
    ).build()
    for name, parameter in method.named_parameters():
        if name.endswith("weight") and parameter.ndim == 2:
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert 0.9 * bound < parameter.abs().max() <= bound, name
    assert not method.decoder.embed.bias.any()
    assert method.encoder.patch_embed.bias.any()
    assert method.decoder.trunk.mask_token.abs().max() > 0.04  # two deviations


def test_a_perfect_guess_of_what_enters_the_encoder_is_the_picture():
    method = built(replace(IMAGEMAE, target="input"))
    mask = IMAGEMAE.mask.draw(SEED, GRID)
    method.decoder.forward = lambda *_: compute_pixel_target(CLIP, IMAGEMAE.encoder, mask.masked, "input")
    torch.testing.assert_close(reconstruct_clips(method, CLIP, SEED).reconstruction, CLIP)
