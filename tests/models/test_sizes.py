"""Parameters and GFLOPs of full-size models, counted without making them, against the papers' tables."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from vidstill.methods.amd import AMDConfig
from vidstill.methods.imagemae import ImageMAEConfig
from vidstill.methods.stmae import build_stmae_vit_config
from vidstill.methods.videomae import VideoMAEConfig
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, HUGE, IMAGE_BASE, IMAGE_HUGE, IMAGE_LARGE, IMAGE_SMALL, LARGE, SMALL
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.flops import compute_model_cost

DECODERS = {
    SMALL: DecoderConfig(dim=192, depth=4, heads=3),
    BASE: DecoderConfig(dim=384, depth=4, heads=6),
    LARGE: DecoderConfig(dim=512, depth=12, heads=8),
    HUGE: DecoderConfig(dim=640, depth=12, heads=8),
}


def build_on_meta(config) -> nn.Module:
    with torch.device("meta"):
        return config.build()


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("encoder", "frames", "side", "millions", "gflops", "exact"),
    [
        (SMALL, 16, 224, 22, 57, 22_033_936),
        (BASE, 16, 224, 87, 180, 86_534_800),
        (LARGE, 16, 224, 305, 597, 304_270_736),
        (HUGE, 16, 224, 633, 1192, 632_119_440),
        # ST-MAE's, table 7; of 312 pixels, which are no whole number of patches, the authors use 304
        (build_stmae_vit_config(BASE), 16, 224, 87, 180, None),
        (build_stmae_vit_config(LARGE), 16, 224, 304, 598, None),
        (build_stmae_vit_config(HUGE), 16, 224, 632, 1193, None),
        (build_stmae_vit_config(LARGE), 40, 304, 304, 4757, None),
        (build_stmae_vit_config(HUGE), 32, 304, 632, 6382, None),
    ],
)
def test_a_classifier_of_videos_has_the_published_parameters_and_gflops(encoder, frames, side, millions, gflops, exact):
    config = ClassifierConfig(encoder=encoder, num_classes=400)
    cost = compute_model_cost(config, num_frames=frames, size=(side, side))
    # reported in whole millions, so that half a million may be rounding: 86.53 M is reported as 87 M
    assert cost.parameter_millions == pytest.approx(millions, rel=5e-3, abs=0.5)
    assert cost.gflops == pytest.approx(gflops, rel=5e-3)
    if exact:
        assert cost.num_parameters == exact
        other = count_parameters(build_on_meta(replace(config, num_classes=174)))
        assert exact - other == (400 - 174) * (encoder.dim + 1)


@pytest.mark.parametrize(
    ("size", "millions"), [(IMAGE_SMALL, 22), (IMAGE_BASE, 86), (IMAGE_LARGE, 304), (IMAGE_HUGE, 632)]
)
def test_a_classifier_of_imagenet_has_the_published_parameters(size, millions):
    side = 224 // size.tubelet[1]
    learned = replace(size, positions="learned", learned_grid=(1, side, side))
    count = count_parameters(build_on_meta(ClassifierConfig(encoder=learned, num_classes=1000)))
    assert count / 1e6 == pytest.approx(millions, abs=0.6)  # reported in whole millions: B's 86.6 as 86
    assert size != IMAGE_BASE or count == 86_567_656


def test_a_pre_training_of_image_mae_has_the_official_parameters():
    tables = 197 * (768 + 512)  # computed here, parameters in the official code
    assert count_parameters(build_on_meta(ImageMAEConfig())) == 111_907_840 - tables


@pytest.mark.parametrize(
    ("size", "encoder", "pretraining"),
    [
        (SMALL, 21_879_936, 24_029_376),
        (BASE, 86_227_200, 94_210_944),
        (LARGE, 303_860_736, 342_996_992),
        (HUGE, 631_607_040, 692_487_296),
    ],
)
def test_a_pre_training_of_videomae_has_the_official_parameters(size, encoder, pretraining):
    method = build_on_meta(VideoMAEConfig(encoder=size, decoder=DECODERS[size]))
    assert (count_parameters(method.encoder), count_parameters(method)) == (encoder, pretraining)


@pytest.mark.parametrize(
    ("size", "registered", "projections"), [(SMALL, 75_200_704, 786_432), (BASE, 146_168_704, 1_572_864)]
)
def test_a_pre_training_of_amd_has_the_official_parameters(size, registered, projections):
    method = build_on_meta(AMDConfig(encoder=size, decoder=DECODERS[size]))
    unused_norms = 2 * 2 * 1024  # a weight and a bias for each of two generators: theirs has them, nothing reads them
    mask_tokens = 2 * 1024  # one for each generator: theirs has them too, but registers them nowhere
    assert count_parameters(method) == registered - unused_norms + mask_tokens
    assert count_parameters(method.generators) == 50_384_896 - unused_norms + mask_tokens
    assert count_parameters(method.projections) == projections
