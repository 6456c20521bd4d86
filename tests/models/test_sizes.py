"""Parameters and GFLOPs of full-size models, counted without making them, against the papers' tables."""

import pytest
import torch
from torch import nn

from vidstill.methods.amd import AMDConfig
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, HUGE, LARGE, SMALL
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.flops import compute_model_cost

SIZES = {"S": SMALL, "B": BASE, "L": LARGE, "H": HUGE}
DECODERS = {
    "S": DecoderConfig(dim=192, depth=4, heads=3),
    "B": DecoderConfig(dim=384, depth=4, heads=6),
    "L": DecoderConfig(dim=512, depth=12, heads=8),
    "H": DecoderConfig(dim=640, depth=12, heads=8),
}


def on_meta(config) -> nn.Module:
    with torch.device("meta"):
        return config.build()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("size", "with_400_classes", "with_174_classes", "millions", "gflops"),
    [
        ("S", 22_033_936, 21_946_926, 22, 57),
        ("B", 86_534_800, 86_361_006, 87, 180),
        ("L", 304_270_736, 304_039_086, 305, 597),
        ("H", 632_119_440, 631_829_934, 633, 1192),
    ],
)
def test_a_classifier_has_the_published_parameters_and_gflops(
    size, with_400_classes, with_174_classes, millions, gflops
):
    found = compute_model_cost(ClassifierConfig(encoder=SIZES[size], num_classes=400), num_frames=16, size=(224, 224))
    assert found.num_parameters == with_400_classes
    # reported in whole millions, so that half a million may be rounding: 86.53 M is told as 87 M
    assert found.parameter_millions == pytest.approx(millions, rel=5e-3, abs=0.5)
    assert found.gflops == pytest.approx(gflops, rel=5e-3)
    other = parameters(on_meta(ClassifierConfig(encoder=SIZES[size], num_classes=174)))
    assert other == with_174_classes


@pytest.mark.parametrize(
    ("size", "encoder", "pretraining"),
    [
        ("S", 21_879_936, 24_029_376),
        ("B", 86_227_200, 94_210_944),
        ("L", 303_860_736, 342_996_992),
        ("H", 631_607_040, 692_487_296),
    ],
)
def test_a_pre_training_of_videomae_has_the_official_parameters(size, encoder, pretraining):
    method = on_meta(VideoMAEConfig(encoder=SIZES[size], decoder=DECODERS[size]))
    assert parameters(method.encoder) == encoder
    assert parameters(method) == pretraining


@pytest.mark.parametrize(
    ("size", "registered", "projections"), [("S", 75_200_704, 786_432), ("B", 146_168_704, 1_572_864)]
)
def test_a_pre_training_of_amd_has_the_official_parameters(size, registered, projections):
    method = on_meta(AMDConfig(encoder=SIZES[size], decoder=DECODERS[size]))
    unused_norms = 2 * 2 * 1024  # a weight and a bias for each of two generators: theirs has them, nothing reads them
    mask_tokens = 2 * 1024  # one for each generator: theirs has them too, but registers them nowhere
    assert parameters(method) == registered - unused_norms + mask_tokens
    assert parameters(method.generators) == 50_384_896 - unused_norms + mask_tokens
    assert parameters(method.projections) == projections
