"""The rename tables: official names and shapes, there and back."""

from dataclasses import replace

import pytest
import torch
from foreign_layout import to_foreign, translate_state_dict
from tiny_models import AMD, CLASSES, ENCODER, METHODS, VIDEOMAE, as_images, built

from vidstill.checkpoints.layouts.amd import build_amd_rules
from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.maskagain import build_maskagain_rules
from vidstill.checkpoints.layouts.mvd import build_mvd_rules
from vidstill.checkpoints.layouts.rename import build_classifier_rules
from vidstill.checkpoints.layouts.stmae import build_slowfast_rules, build_stmae_rules
from vidstill.checkpoints.layouts.videomae import build_videomae_rules
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE
from vidstill.tasks.classification import ClassifierConfig

LEARNED = replace(ENCODER, positions="learned", learned_grid=(2, 4, 3), layer_scale=0.1)
MAE, SLOWFAST, MAE_ST = as_images(METHODS["imagemae"]), METHODS["stmae"], METHODS["stmae-mae_st"]
LAYOUTS = {
    "videomae": (VIDEOMAE, build_videomae_rules(ENCODER)),
    "amd": (AMD, build_amd_rules(ENCODER, [1, 2])),
    "maskagain": (METHODS["maskagain-projected"], build_maskagain_rules(ENCODER)),
    "mvd": (METHODS["mvd"], build_mvd_rules(METHODS["mvd"].encoder)),
    "mae": (MAE, build_mae_rules(MAE.encoder)),
    "dmae": (as_images(METHODS["dmae"]), build_mae_rules(MAE.encoder)),
    "slowfast": (SLOWFAST, build_slowfast_rules(SLOWFAST.encoder, SLOWFAST.decoder)),
    "mae_st": (MAE_ST, build_stmae_rules(MAE_ST.encoder, MAE_ST.decoder)),
    "mae_st, fused": (MAE_ST, build_stmae_rules(MAE_ST.encoder, MAE_ST.decoder, separate_qkv=False)),
    "classifier": (ClassifierConfig(encoder=ENCODER, num_classes=CLASSES), build_classifier_rules(ENCODER)),
    "first token": (
        ClassifierConfig(encoder=ENCODER, num_classes=CLASSES, pooling="first"),
        build_classifier_rules(ENCODER),
    ),
    "learned": (ClassifierConfig(encoder=LEARNED, num_classes=CLASSES), build_classifier_rules(LEARNED)),
}
every_layout = pytest.mark.parametrize(("config", "names"), LAYOUTS.values(), ids=LAYOUTS)


@every_layout
def test_a_model_goes_into_their_layout_and_comes_back_the_same(config, names):
    module, other = built(config, seed=0), built(config, seed=1)
    theirs = to_foreign(module.state_dict(), names)
    assert sum(t.numel() for t in theirs.values()) == sum(t.numel() for t in module.state_dict().values())
    load_state_dict_strict(other, translate_state_dict(theirs, names), "the file")
    for name, tensor in module.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    again = to_foreign(other.state_dict(), names)
    assert list(again) == list(theirs)
    assert all(torch.equal(again[name], tensor) for name, tensor in theirs.items())


def test_the_base_pre_training_has_the_official_names_and_shapes():
    config = VideoMAEConfig(encoder=BASE, decoder=DecoderConfig(dim=384, depth=4, heads=6))
    with torch.device("meta"):
        method = config.build()
    found = {name: tuple(t.shape) for name, t in to_foreign(method.state_dict(), build_videomae_rules(BASE)).items()}

    def block(prefix: str, d: int) -> dict[str, tuple[int, ...]]:
        vectors = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "attn.q_bias", "attn.v_bias")
        vectors += ("attn.proj.bias", "mlp.fc2.bias")
        matrices = {"attn.qkv.weight": (3 * d, d), "attn.proj.weight": (d, d), "mlp.fc1.bias": (4 * d,)}
        matrices |= {"mlp.fc1.weight": (4 * d, d), "mlp.fc2.weight": (d, 4 * d)}
        return {f"{prefix}.{name}": shape for name, shape in (matrices | dict.fromkeys(vectors, (d,))).items()}

    official: dict[str, tuple[int, ...]] = {
        "mask_token": (1, 1, 384),
        "encoder.patch_embed.proj.weight": (768, 3, 2, 16, 16),
        "encoder.patch_embed.proj.bias": (768,),
        "encoder.norm.weight": (768,),
        "encoder.norm.bias": (768,),
        "encoder_to_decoder.weight": (384, 768),
        "decoder.norm.weight": (384,),
        "decoder.norm.bias": (384,),
        "decoder.head.weight": (1536, 384),
        "decoder.head.bias": (1536,),
    }
    for number in range(12):
        official |= block(f"encoder.blocks.{number}", 768)
    for number in range(4):
        official |= block(f"decoder.blocks.{number}", 384)
    assert found == official
    assert len(found) == 218


def test_amds_unused_norms_are_passed_over():
    names = build_amd_rules(ENCODER, [1, 2])
    assert translate_state_dict({"generators.1.norm.weight": torch.ones(32)}, names) == {}
