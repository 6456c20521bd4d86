"""What a foreign file does not say comes from the hint or the family's usual values; and what may be left out."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from foreign_files import FILES, MAE_ST, classifier, make_checkpoint
from tiny_models import ENCODER, VIDEOMAE
from torch import Tensor

from vidstill.checkpoints.convert import ConversionReport, import_checkpoint
from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.export import export_state_dict
from vidstill.checkpoints.layouts.infer_encoder import infer_num_heads
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, HUGE, LARGE, ViTConfig
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError

WIDE = replace(ENCODER, dim=128, heads=2)


def infer(tensors: dict[str, Tensor], hint=None, **options) -> tuple[ViTConfig, ConversionReport]:
    native, report = import_checkpoint(Checkpoint(tensors, source="foreign.pth"), hint, **options)
    return from_dict(ViTConfig, native.metadata["encoder"]), report


def build_tensors(config: Any, layout: str = "videomae") -> dict[str, Tensor]:
    return export_state_dict(make_checkpoint(config), layout)


def build_pretraining(encoder: ViTConfig) -> dict[str, Tensor]:
    return build_tensors(replace(VIDEOMAE, encoder=encoder))


@pytest.mark.parametrize(
    ("dim", "heads"), [(192, 3), (BASE.dim, BASE.heads), (LARGE.dim, 16), (HUGE.dim, 16), (1408, 16)]
)
def test_the_widths_of_the_family_say_their_heads(dim, heads):
    assert infer_num_heads(dim, None)[0] == heads


GREY = replace(WIDE, heads=4, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2), norm_eps=1e-5)
SCALED = replace(WIDE, layer_scale=1e-5)
LEARNED = replace(WIDE, positions="learned", learned_grid=(8, 3, 3))
SINCOS = replace(WIDE, positions="sincos3d")
NO_BIASES = replace(WIDE, attention_bias="none")
STMAE_WIDE = replace(MAE_ST.encoder, dim=64, heads=1, learned_grid=(2, 3, 3))
STMAE = replace(MAE_ST, encoder=STMAE_WIDE, decoder=replace(MAE_ST.decoder, learned_grid=(2, 3, 3)))


@pytest.mark.parametrize(
    ("tensors", "hint", "expected", "note"),
    [
        (build_pretraining(WIDE), GREY, GREY, "4 heads, as in the recipe"),
        (build_pretraining(WIDE), None, WIDE, "2 heads of 64 channels, as usual in the family"),
        (build_pretraining(WIDE), None, WIDE, "ImageNet's, norm eps is 1e-06"),
        (build_pretraining(NO_BIASES), None, NO_BIASES, ""),
        (build_pretraining(SCALED), SCALED, SCALED, ""),
        (build_pretraining(SCALED), None, replace(SCALED, layer_scale=0.1), ""),
        (build_tensors(classifier(WIDE)), SINCOS, SINCOS, "sincos3d (MVD's), as in the recipe"),
        (build_tensors(classifier(WIDE)), None, WIDE, "classifiers of MVD look the same"),
        (build_tensors(classifier(LEARNED)), None, LEARNED, "assumed to be of 8 × 3 × 3 tokens"),
        (build_tensors(STMAE, "stmae"), None, STMAE_WIDE, "the layout's, mean 0.45"),
    ],
)
def test_the_encoder_is_inferred_from_the_file_then_the_hint_then_the_family(tensors, hint, expected, note):
    encoder, report = infer(tensors, hint)
    assert encoder == expected
    assert any(note in each for each in report.notes)


def test_fixed_positions_may_become_learned_ones():
    case = FILES["mae"]
    hint = replace(case.encoder, positions="learned", learned_grid=(1, 4, 3))
    assert infer(case.tensors(), hint)[0].positions == "sincos2d"


def test_a_width_of_no_family_and_a_grid_that_no_table_says_need_a_hint():
    with pytest.raises(InputError, match=r"foreign.pth: its encoder has a width of 24, .* name a recipe of this width"):
        infer(build_pretraining(ENCODER))
    tensors = build_tensors(classifier(replace(WIDE, positions="learned", learned_grid=(2, 4, 3))))
    with pytest.raises(InputError, match="'pos_embed' is of 24 tokens, and does not say of which grid; name a recipe"):
        infer(tensors)


def test_the_decoder_is_in_the_metadata():
    native, _ = import_checkpoint(Checkpoint(build_pretraining(ENCODER)), ENCODER)
    assert from_dict(DecoderConfig, native.metadata["decoder"]) == replace(VIDEOMAE.decoder, heads=1)


def test_tensors_that_authors_never_save_are_missing_with_a_reason():
    _, report = infer(FILES["maskagain"].tensors(), ENCODER)
    missing = {entry.native_name: entry.reason for entry in report.filter_by_status("missing")}
    reason = "a student of MaskAgain has no final norm"
    assert missing == {"encoder.norm.weight": reason, "encoder.norm.bias": reason}
    amd = {name: each for name, each in FILES["amd"].tensors().items() if "generator_mask_tokens" not in name}
    _, report = infer(amd, ENCODER)
    missing_names = {entry.native_name for entry in report.filter_by_status("missing")}
    assert missing_names == {"generators.0.mask_token", "generators.1.mask_token"}
    assert {entry.reason for entry in report.filter_by_status("ignored")} == {"created by AMD's code, but never used"}


def test_parts_of_a_native_tensor_are_named_as_parts():
    _, report = infer(FILES["mae_st"].tensors(), FILES["mae_st"].encoder)
    name = "encoder.blocks.0.attn.qkv.weight"
    parts = [entry for entry in report.filter_by_status("reshaped") if entry.native_name == name]
    assert [(entry.foreign_name, entry.reason) for entry in parts] == [
        (f"blocks.0.attn.{letter}.weight", f"part {number} of 3") for number, letter in enumerate("qkv", 1)
    ]


@pytest.mark.parametrize("key", ["ema.", "ema.decay", "*decay"])
def test_an_unexplained_tensor_is_left_out_if_allowed(key):
    tensors = build_pretraining(ENCODER) | {"ema.decay": torch.ones(1)}
    with pytest.raises(InputError, match=r"1 tensor \(ema.decay\) that nothing explains; .* --ignore-keys ema.decay"):
        infer(tensors, ENCODER)
    _, report = infer(tensors, ENCODER, ignore_keys=(key,))
    ignored = [(entry.foreign_name, entry.reason) for entry in report.filter_by_status("ignored")]
    assert ignored == [("ema.decay", "left out by --ignore-keys")]


def test_a_tensor_that_is_needed_is_not_left_out():
    checkpoint = Checkpoint(build_pretraining(ENCODER))
    native, _ = import_checkpoint(checkpoint, ENCODER, ignore_keys=("encoder.",))
    assert "encoder.norm.bias" in native.tensors


def test_foreign_metadata_stay_with_the_tensors():
    metadata = {"epoch": 3, "notes": ["an optimizer: left out"]}
    checkpoint = Checkpoint(build_pretraining(ENCODER), source="foreign.pth", foreign_metadata=metadata)
    native, report = import_checkpoint(checkpoint, ENCODER)
    assert native.foreign_metadata["epoch"] == 3
    assert report.notes[-1] == "an optimizer: left out"
