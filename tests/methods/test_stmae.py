"""ST-MAE against its equation, written out: which frames are rebuilt, of which masks, from which start."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_models import GRID, STMAE, built, clips

from vidstill.methods.common.block_masking import CuboidMask
from vidstill.methods.common.masking import FrameMask, RandomMask, SlotMask, SpaceMask
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.stmae import STMAEConfig, STMAEQuirks, build_stmae_vit_config, select_predicted_frames
from vidstill.models.vit import BASE, HUGE, LARGE
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.flops import compute_model_cost
from vidstill.utils.types import InputError

CLIP = clips()
SEED = torch.tensor([11, 12])
EVERYTHING = torch.arange(GRID.num_tokens).expand(2, -1)
MAE_ST = replace(STMAE, released=STMAEQuirks(frame_selection="linspace"))


def test_the_loss_is_the_mean_square_over_one_frame_of_each_masked_tubelet():
    method, mask = built(STMAE), STMAE.mask.draw(SEED, GRID)
    seen = method.encoder(CLIP, mask.visible)
    rebuilt = method.decoder(seen.tokens, mask.visible, mask.masked, GRID, seen.cls_token)
    assert rebuilt.shape == (2, 18, 4 * 4 * 3)
    output = method(CLIP, seed=SEED)
    torch.testing.assert_close(output.loss, F.mse_loss(rebuilt, method.compute_target(CLIP, mask.masked)))
    assert torch.equal(output.loss, output.parts["reconstruction"])


def test_the_target_is_a_normalised_frame_of_the_normalised_clip():
    method = built(STMAE)
    target = method.compute_target(CLIP, EVERYTHING)
    slot, row, column = 1, 2, 1
    piece = (CLIP[:, :, 2 * slot, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] - 0.45) / 0.225
    piece = piece.permute(0, 2, 3, 1).reshape(2, -1)  # colours last
    expected = (piece - piece.mean(dim=1, keepdim=True)) / (piece.var(dim=1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(target[:, (slot * GRID.h + row) * GRID.w + column], expected)


def test_pixels_that_are_not_normalised_are_as_they_enter_the_encoder():
    method = built(replace(STMAE, target="input"))
    first = (CLIP[:, :, 0, :4, :4] - 0.45) / 0.225
    torch.testing.assert_close(method.compute_target(CLIP, EVERYTHING)[:, 0], first.permute(0, 2, 3, 1).reshape(2, -1))


@pytest.mark.parametrize(
    ("config", "tubelet", "each", "frames", "expected"),
    [
        (STMAE, 2, 1, 16, [0, 2, 4, 6, 8, 10, 12, 14]),
        (MAE_ST, 2, 1, 16, [0, 2, 4, 6, 8, 10, 12, 15]),
        (MAE_ST, 2, 1, 4, [0, 3]),
        (MAE_ST, 4, 2, 8, [0, 2, 4, 7]),
        (STMAE, 4, 2, 8, [0, 2, 4, 6]),
        (MAE_ST, 4, 3, 8, [0, 1, 2, 4, 5, 7]),
        (MAE_ST, 2, 1, 2, [0]),
        (MAE_ST, 2, 2, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (STMAE, 2, 2, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_the_frames_that_are_rebuilt_are_the_authors(config, tubelet, each, frames, expected):
    encoder = replace(config.encoder, tubelet=(tubelet, 4, 4))
    assert select_predicted_frames(frames, replace(config, encoder=encoder, predicted_frames=each)) == expected


@pytest.mark.parametrize("config", [STMAE, MAE_ST], ids=["stride", "linspace"])
def test_all_frames_are_rebuilt_where_they_are_asked_for(config):
    method = built(replace(config, predicted_frames=2))
    assert torch.equal(
        method.compute_target(CLIP, EVERYTHING), compute_pixel_target(CLIP, config.encoder, EVERYTHING, "per_patch")
    )
    assert method.decoder.head.out_features == config.encoder.pixels_per_token


@pytest.mark.parametrize("each", [0, 3])
def test_frames_that_a_tubelet_does_not_divide_into_are_met_with_a_sentence(each):
    with pytest.raises(InputError, match="frames of each tubelet of 2 cannot be reconstructed; take a divisor"):
        replace(STMAE, predicted_frames=each)
    with pytest.raises(InputError, match="frames of each tubelet of 2 cannot be reconstructed; take 1 to 2"):
        replace(MAE_ST, predicted_frames=each)


@pytest.mark.parametrize(
    "mask", [RandomMask(ratio=0.9), SpaceMask(ratio=0.75), FrameMask(ratio=0.5), CuboidMask(ratio=0.5), SlotMask()]
)
def test_it_learns_from_every_mask_of_the_paper(mask):
    output = built(replace(STMAE, mask=mask))(CLIP, seed=SEED)
    output.loss.backward()
    assert output.loss > 0


def test_the_published_sizes_are_the_defaults():
    config = STMAEConfig()
    assert config.encoder == build_stmae_vit_config(LARGE)
    for size in (BASE, LARGE, HUGE):
        encoder = build_stmae_vit_config(size)
        assert (encoder.dim, encoder.depth, encoder.heads) == (size.dim, size.depth, size.heads)
        assert encoder.tubelet == (2, 16, 16)
    assert (config.decoder.dim, config.decoder.depth, config.decoder.heads) == (512, 4, 8)
    with torch.device("meta"):
        method = config.build()
    assert method.decoder.head.out_features == 16 * 16 * 3
    assert method.decoder.trunk.positions.joint.shape == (1568, 512)


@pytest.mark.parametrize(
    ("size", "frames", "side", "millions", "gflops"),
    [
        (BASE, 16, 224, 87, 180),
        (LARGE, 16, 224, 304, 598),
        (HUGE, 16, 224, 632, 1193),
        (LARGE, 40, 304, 304, 4757),  # of 312 pixels, which are no whole number of patches, the authors use 304
        (HUGE, 32, 304, 632, 6382),
    ],
    ids=["B", "L", "H", "L, 40 frames", "H, 32 frames"],
)
def test_a_classifier_costs_what_the_paper_says(size, frames, side, millions, gflops):
    found = compute_model_cost(
        ClassifierConfig(encoder=build_stmae_vit_config(size), num_classes=400), num_frames=frames, size=(side, side)
    )
    assert found.parameter_millions == pytest.approx(millions, rel=5e-3, abs=0.5)  # table 7, in whole millions
    assert found.gflops == pytest.approx(gflops, rel=5e-3)


# ---- How it starts --------------------------------------------------------------------------------------------------

WIDE = replace(
    STMAE,
    encoder=replace(STMAE.encoder, dim=96, heads=4),
    decoder=replace(STMAE.decoder, dim=64, heads=4),
)


def started(start: str):
    torch.manual_seed(0)
    return replace(WIDE, released=STMAEQuirks(weight_init=start)).build()


def deviation(weight: torch.Tensor) -> float:
    """Chance moves it by a twentieth at most where it is of thousands of numbers."""
    return weight.std().item()


@pytest.mark.parametrize("start", ["slowfast", "normal", "normal_released"])
def test_normal_weights_have_a_deviation_of_a_fiftieth(start):
    method = started(start)
    for weight in (method.encoder.blocks[0].attn.qkv.weight, method.decoder.head.weight):
        assert deviation(weight) == pytest.approx(0.02, rel=0.05)
    released = start == "normal_released"  # 1, cut off at 2
    assert deviation(method.encoder.patch_embed.weight) == pytest.approx(0.8796 if released else 0.02, rel=0.05)


def test_slowfasts_biases_are_a_fiftieth_in_the_encoder_and_zero_in_the_decoder():
    method = started("slowfast")
    for name, bias in method.named_parameters():
        if name.endswith(".bias") and name not in ("encoder.patch_embed.bias", "decoder.embed.bias"):
            assert (bias == (0.02 if name.startswith("encoder.") else 0.0)).all(), name
    assert deviation(method.decoder.embed.weight) == pytest.approx(1 / (3 * 96) ** 0.5, rel=0.05)  # torch's own


@pytest.mark.parametrize("start", ["xavier", "normal", "normal_released"])
def test_mae_sts_biases_are_zero_but_for_the_embeddings(start):
    method = started(start)
    for name, bias in method.named_parameters():
        if name.endswith(".bias"):
            assert bias.any() == (name == "encoder.patch_embed.bias"), name
    assert method.encoder.patch_embed.bias.abs().max() <= 1 / 96**0.5  # torch's own, of 96 pixels


def test_mae_sts_xavier_weights_take_queries_keys_and_values_apart():
    method = started("xavier")
    assert deviation(method.encoder.blocks[0].attn.qkv.weight) == pytest.approx((2 / (96 + 96)) ** 0.5, rel=0.05)
    assert deviation(method.decoder.embed.weight) == pytest.approx((2 / (96 + 64)) ** 0.5, rel=0.05)
    assert deviation(method.encoder.patch_embed.weight) == pytest.approx((2 / (96 + 96)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("start", ["slowfast", "xavier", "normal", "normal_released"])
def test_tokens_and_positions_start_at_a_fiftieth_and_norms_at_one(start):
    method = started(start)
    infill, encoder = method.decoder.trunk, method.encoder
    tables = torch.cat([infill.mask_token.flatten(), encoder.cls_token.flatten(), encoder.positions.space.flatten()])
    assert deviation(tables) == pytest.approx(0.02, rel=0.1)
    assert tables.abs().max() > 0.04  # not cut off
    assert (encoder.norm.weight == 1).all()
