"""What a foreign file does not say is taken from what is asked for, or the family's; and what may be left out."""

from dataclasses import replace

import pytest
import torch
from foreign_files import FILES, LEARNED
from foreign_layout import to_foreign
from tiny_models import ENCODER, METHODS, VIDEOMAE, built

from vidstill.checkpoints.convert import ConversionReport, import_checkpoint
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.infer_encoder import infer_num_heads
from vidstill.checkpoints.layouts.rename import build_classifier_rules
from vidstill.checkpoints.layouts.stmae import build_stmae_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, HUGE, LARGE, ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError

WIDE = replace(ENCODER, dim=128, heads=2)


def read(theirs, hint=None, **options) -> tuple[ViTConfig, ConversionReport]:
    weights, ledger = import_checkpoint(Checkpoint(theirs, source="theirs.pth"), hint, **options)
    return from_dict(ViTConfig, weights.metadata["encoder"]), ledger


def of_videomae(encoder: ViTConfig):
    return to_foreign(built(replace(VIDEOMAE, encoder=encoder)).state_dict(), build_videomae_rules(encoder))


def of_classifier(encoder: ViTConfig):
    return to_foreign(
        built(ClassifierConfig(encoder=encoder, num_classes=5)).state_dict(), build_classifier_rules(encoder)
    )


@pytest.mark.parametrize(
    ("dim", "heads"), [(192, 3), (BASE.dim, BASE.heads), (LARGE.dim, 16), (HUGE.dim, 16), (1408, 16)]
)
def test_the_familys_widths_say_their_heads(dim, heads):
    assert infer_num_heads(dim, None)[0] == heads


def test_heads_are_as_they_are_asked_for_and_otherwise_of_64_channels():
    found, ledger = read(of_videomae(WIDE), replace(WIDE, heads=4))
    assert found.heads == 4
    assert any("4 heads, as in the recipe" in note for note in ledger.notes)
    found, ledger = read(of_videomae(WIDE))
    assert found.heads == 2
    assert any("2 heads of 64 channels, as usual in the family" in note for note in ledger.notes)


def test_a_width_of_no_family_asks_for_its_heads():
    with pytest.raises(InputError, match=r"theirs.pth: its encoder has a width of 24, .* name a recipe of this width"):
        read(of_videomae(ENCODER))


@pytest.mark.parametrize("bias", ["qv", "qkv", "none"])
def test_the_biases_of_attention_are_as_the_file_has_them(bias):
    encoder = replace(WIDE, attention_bias=bias)
    assert read(of_videomae(encoder))[0].attention_bias == bias


def test_branch_factors_are_found_and_their_first_value_is_the_recipes():
    scaled = replace(WIDE, layer_scale=1e-5)
    assert read(of_videomae(scaled), scaled)[0].layer_scale == 1e-5
    assert read(of_videomae(scaled))[0].layer_scale > 0


def test_without_a_table_the_kind_of_positions_is_the_recipes_or_videomaes_and_noted():
    theirs = of_classifier(WIDE)
    found, ledger = read(theirs, replace(WIDE, positions="sincos3d"))
    assert found.positions == "sincos3d"
    assert any("sincos3d (MVD's), as in the recipe" in note for note in ledger.notes)
    found, ledger = read(theirs)
    assert found.positions == "sinusoid"
    assert any("classifiers of MVD look the same" in note for note in ledger.notes)


def test_a_learned_table_of_16_frames_says_its_own_grid():
    encoder = replace(WIDE, positions="learned", learned_grid=(8, 3, 3))
    found, ledger = read(of_classifier(encoder))
    assert (found.positions, found.learned_grid) == ("learned", (8, 3, 3))
    assert any("assumed to be of 8 × 3 × 3 tokens" in note for note in ledger.notes)


def test_a_learned_table_that_does_not_say_its_grid_asks_for_it():
    theirs = of_classifier(replace(WIDE, positions="learned", learned_grid=(2, 4, 3)))
    with pytest.raises(InputError, match="'pos_embed' is of 24 tokens, and does not say of which grid; name a recipe"):
        read(theirs)


def test_codes_that_were_computed_may_be_learned_from_then_on():
    image = FILES["mae"].encoder
    found, _ = read(FILES["mae"].tensors(), replace(image, positions="learned", learned_grid=(1, 4, 3)))
    assert found.positions == "sincos2d"


def test_colours_and_eps_are_the_recipes_or_the_layouts_and_noted():
    grey = ((0.4, 0.4, 0.4), (0.2, 0.2, 0.2))
    found, _ = read(of_videomae(WIDE), replace(WIDE, mean=grey[0], std=grey[1], norm_eps=1e-5))
    assert (found.mean, found.std, found.norm_eps) == (*grey, 1e-5)
    found, ledger = read(of_videomae(WIDE))
    assert (found.mean, found.norm_eps) == (BASE.mean, 1e-6)
    assert any("ImageNet's, norm eps is 1e-06" in note for note in ledger.notes)


def test_st_maes_files_have_st_maes_colours():
    config = METHODS["stmae-mae_st"]
    encoder = replace(config.encoder, dim=64, heads=1, learned_grid=(2, 3, 3))
    decoder = replace(config.decoder, learned_grid=(2, 3, 3))
    module = built(replace(config, encoder=encoder, decoder=decoder))
    found, _ = read(to_foreign(module.state_dict(), build_stmae_rules(encoder, decoder)))
    assert found == encoder
    assert found.mean == (0.45, 0.45, 0.45)


def test_a_decoder_is_told_of():
    weights, _ = import_checkpoint(Checkpoint(of_videomae(ENCODER)), ENCODER)
    assert from_dict(DecoderConfig, weights.metadata["decoder"]) == replace(VIDEOMAE.decoder, heads=1)


def test_a_last_norm_that_maskagain_never_had_is_missing_with_a_reason():
    _, ledger = read(FILES["maskagain"].tensors(), ENCODER)
    missing = {entry.native_name: entry.reason for entry in ledger.filter_by_status("missing")}
    assert missing == dict.fromkeys(
        ("encoder.norm.weight", "encoder.norm.bias"), "a student of MaskAgain has no final norm"
    )


def test_what_amd_never_saves_and_never_uses_is_said():
    theirs = FILES["amd"].tensors()
    for place in (0, 1):
        del theirs[f"generator_mask_tokens.{place}"]
    _, ledger = read(theirs, ENCODER)
    assert {entry.native_name for entry in ledger.filter_by_status("missing")} == {
        f"generators.{place}.mask_token" for place in (0, 1)
    }
    assert {entry.reason for entry in ledger.filter_by_status("ignored")} == {"created by AMD's code, but never used"}


def test_parts_of_ours_are_named_as_parts():
    _, ledger = read(FILES["mae_st"].tensors(), FILES["mae_st"].encoder)
    parts = [
        entry
        for entry in ledger.filter_by_status("reshaped")
        if entry.native_name == "encoder.blocks.0.attn.qkv.weight"
    ]
    assert [(entry.foreign_name, entry.reason) for entry in parts] == [
        (f"blocks.0.attn.{letter}.weight", f"part {place} of 3") for place, letter in enumerate("qkv", 1)
    ]


@pytest.mark.parametrize("allowed", ["ema.", "ema.decay", "*decay"])
def test_what_nothing_explains_is_left_out_where_it_is_allowed(allowed):
    theirs = of_videomae(ENCODER) | {"ema.decay": torch.ones(1)}
    with pytest.raises(InputError, match=r"1 tensor \(ema.decay\) that nothing explains; .* --ignore-keys ema.decay"):
        read(theirs, ENCODER)
    _, ledger = read(theirs, ENCODER, ignore_keys=(allowed,))
    assert [(entry.foreign_name, entry.reason) for entry in ledger.filter_by_status("ignored")] == [
        ("ema.decay", "left out by --ignore-keys")
    ]


def test_what_is_needed_is_not_left_out_though_it_is_allowed():
    weights, _ = import_checkpoint(Checkpoint(of_videomae(ENCODER)), ENCODER, ignore_keys=("encoder.",))
    assert "encoder.norm.bias" in weights.tensors


def test_what_was_read_beside_the_tensors_stays_with_them():
    weights = Checkpoint(
        of_videomae(ENCODER), source="theirs.pth", foreign_metadata={"epoch": 3, "notes": ["an optimizer: left out"]}
    )
    ours, ledger = import_checkpoint(weights, ENCODER)
    assert ours.foreign_metadata["epoch"] == 3
    assert ledger.notes[-1] == "an optimizer: left out"


def test_learned_positions_come_with_their_factors():
    found, _ = read(FILES["classifier, learned"].tensors(), LEARNED)
    assert to_dict(found) == to_dict(LEARNED)
