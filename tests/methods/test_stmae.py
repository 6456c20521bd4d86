"""ST-MAE: which frames are reconstructed, from which masks and initial weights."""

from dataclasses import replace

import pytest
import torch
from tiny_models import GRID, STMAE, built, clips

from vidstill.methods.common.masking import CuboidMask, FrameMask, RandomMask, SlotMask, SpaceMask
from vidstill.methods.common.targets import compute_pixel_target
from vidstill.methods.stmae import STMAEConfig, STMAEQuirks, build_stmae_vit_config, select_predicted_frames
from vidstill.models.vit import BASE, HUGE, LARGE
from vidstill.utils.types import InputError

CLIP = clips()
SEED = torch.tensor([11, 12])
ALL_TOKENS = torch.arange(GRID.num_tokens).expand(2, -1)
MAE_ST = replace(STMAE, released=STMAEQuirks(frame_selection="linspace"))


def test_the_target_is_a_normalized_frame_of_the_normalized_clip():
    method = built(STMAE)
    target = method.compute_target(CLIP, ALL_TOKENS)
    assert target.shape == (2, GRID.num_tokens, 4 * 4 * 3)
    slot, row, column = 1, 2, 1
    patch = (CLIP[:, :, 2 * slot, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] - 0.45) / 0.225
    patch = patch.permute(0, 2, 3, 1).reshape(2, -1)  # colours last
    expected = (patch - patch.mean(dim=1, keepdim=True)) / (patch.var(dim=1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(target[:, (slot * GRID.h + row) * GRID.w + column], expected)


def test_pixels_that_are_not_normalized_are_as_they_enter_the_encoder():
    method = built(replace(STMAE, target="input"))
    first = (CLIP[:, :, 0, :4, :4] - 0.45) / 0.225
    target = method.compute_target(CLIP, ALL_TOKENS)
    torch.testing.assert_close(target[:, 0], first.permute(0, 2, 3, 1).reshape(2, -1))


@pytest.mark.parametrize(
    ("config", "tubelet", "predicted", "frames", "expected"),
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
def test_the_predicted_frames_are_the_authors(config, tubelet, predicted, frames, expected):
    encoder = replace(config.encoder, tubelet=(tubelet, 4, 4))
    assert select_predicted_frames(frames, replace(config, encoder=encoder, predicted_frames=predicted)) == expected


@pytest.mark.parametrize("config", [STMAE, MAE_ST], ids=["stride", "linspace"])
def test_all_frames_can_be_predicted(config):
    method = built(replace(config, predicted_frames=2))
    expected = compute_pixel_target(CLIP, config.encoder, ALL_TOKENS, "per_patch")
    assert torch.equal(method.compute_target(CLIP, ALL_TOKENS), expected)
    assert method.decoder.head.out_features == config.encoder.pixels_per_token


@pytest.mark.parametrize("predicted", [0, 3])
@pytest.mark.parametrize(("config", "mend"), [(STMAE, "a divisor"), (MAE_ST, "1 to 2")])
def test_frames_that_a_tubelet_does_not_divide_into_are_an_error(config, mend, predicted):
    with pytest.raises(InputError, match=f"frames of each tubelet of 2 cannot be reconstructed; take {mend}"):
        replace(config, predicted_frames=predicted)


@pytest.mark.parametrize(
    "mask", [RandomMask(ratio=0.9), SpaceMask(ratio=0.75), FrameMask(ratio=0.5), CuboidMask(ratio=0.5), SlotMask()]
)
def test_every_mask_of_the_paper_gives_a_loss(mask):
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


# ---- Initial weights ------------------------------------------------------------------------------------------------

WIDE = replace(STMAE, encoder=replace(STMAE.encoder, dim=96, heads=4), decoder=replace(STMAE.decoder, dim=64, heads=4))
every_init = pytest.mark.parametrize("weight_init", ["slowfast", "xavier", "normal", "normal_released"])


def init_method(weight_init: str):
    torch.manual_seed(0)
    return replace(WIDE, released=STMAEQuirks(weight_init=weight_init)).build()


def assert_std(weight: torch.Tensor, std: float, rel: float = 0.05) -> None:
    """Of thousands of numbers, the measured one is off by a twentieth at most."""
    assert weight.std().item() == pytest.approx(std, rel=rel)


@every_init
def test_weights_have_the_released_standard_deviations(weight_init):
    method = init_method(weight_init)
    patch_embed, qkv = method.encoder.patch_embed.weight, method.encoder.blocks[0].attn.qkv.weight
    if weight_init == "xavier":
        assert_std(qkv, (2 / (96 + 96)) ** 0.5)  # of queries, keys and values one by one
        assert_std(method.decoder.embed.weight, (2 / (96 + 64)) ** 0.5)
        assert_std(patch_embed, (2 / (96 + 96)) ** 0.5)
        return
    assert_std(qkv, 0.02)
    assert_std(method.decoder.head.weight, 0.02)
    assert_std(patch_embed, 0.8796 if weight_init == "normal_released" else 0.02)  # 1, truncated at 2
    if weight_init == "slowfast":
        assert_std(method.decoder.embed.weight, 1 / (3 * 96) ** 0.5)  # torch's own


@every_init
def test_biases_have_the_released_values(weight_init):
    method = init_method(weight_init)
    is_torchs = {"encoder.patch_embed.bias"} | ({"decoder.embed.bias"} if weight_init == "slowfast" else set())
    for name, bias in method.named_parameters():
        if name.endswith(".bias") and name in is_torchs:
            assert 0 < bias.abs().max() <= 1 / 96**0.5, name  # of 96 inputs
        elif name.endswith(".bias"):
            value = 0.02 if weight_init == "slowfast" and name.startswith("encoder.") else 0.0
            assert (bias == value).all(), name


@every_init
def test_tokens_and_positions_have_a_std_of_a_fiftieth_and_norms_are_one(weight_init):
    method = init_method(weight_init)
    tables = (method.decoder.trunk.mask_token, method.encoder.cls_token, method.encoder.positions.space)
    numbers = torch.cat([table.flatten() for table in tables])
    assert_std(numbers, 0.02, rel=0.1)
    assert numbers.abs().max() > 0.04  # not truncated
    assert (method.encoder.norm.weight == 1).all()
