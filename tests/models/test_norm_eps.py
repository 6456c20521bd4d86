"""What LayerNorms add to a variance: said by a configuration, kept in files, honoured by every model."""

from dataclasses import replace

import pytest
import torch
from tiny_models import CLASSES, DECODER, ENCODER, VIDEOMAE, built, clips
from torch import nn

from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.tasks.classification import ClassifierConfig
from vidstill.tasks.detection import DetectorConfig
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError

ODD = replace(ENCODER, norm_eps=1e-12)
CLASSIFIER = ClassifierConfig(encoder=ODD, num_classes=CLASSES, norm_eps=1e-5)


def eps_of(module: nn.Module) -> dict[str, float]:
    return {name: part.eps for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}


def test_without_a_word_every_norm_has_the_familys() -> None:
    for model in (VIDEOMAE.build(), ClassifierConfig(encoder=ENCODER, num_classes=CLASSES).build()):
        assert set(eps_of(model).values()) == {1e-6}


def test_an_encoders_eps_is_that_of_its_blocks_and_of_its_last_norm() -> None:
    found = eps_of(ODD.build())
    assert "norm" in found
    assert set(found.values()) == {1e-12}
    assert set(eps_of(DetectorConfig(encoder=ODD, num_actions=3).build()).values()) == {1e-12}


def test_a_decoder_has_one_for_its_blocks_and_one_for_its_last_norm() -> None:
    decoder = replace(DECODER, norm_eps=1e-12, final_norm_eps=1e-5)
    found = eps_of(replace(VIDEOMAE, decoder=decoder).build().decoder)
    assert found.pop("norm") == 1e-5
    assert set(found.values()) == {1e-12}


def test_a_classifier_has_one_of_its_own_for_the_norm_after_the_mean() -> None:
    found = eps_of(CLASSIFIER.build())
    assert found.pop("norm") == 1e-5
    assert set(found.values()) == {1e-12}


def test_it_is_what_is_added_to_the_variance() -> None:
    model, clip = built(replace(ENCODER, norm_eps=0.3)).eval(), clips()
    last = model(clip, layers=(2,))
    tokens = last.layers[2]
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    by_hand = centred / (tokens.var(dim=-1, unbiased=False, keepdim=True) + 0.3).sqrt()
    torch.testing.assert_close(last.tokens, by_hand * model.norm.weight + model.norm.bias)


@pytest.mark.parametrize("config", [ODD, replace(DECODER, norm_eps=1e-12, final_norm_eps=1e-5), CLASSIFIER])
def test_it_survives_being_written_and_read(config: ViTConfig | DecoderConfig | ClassifierConfig) -> None:
    assert from_dict(type(config), to_dict(config)) == config


@pytest.mark.parametrize("config", [ENCODER, DECODER, ClassifierConfig(encoder=ENCODER, num_classes=CLASSES)])
def test_a_file_that_does_not_say_it_means_the_familys(config: ViTConfig | DecoderConfig | ClassifierConfig) -> None:
    plain = {name: value for name, value in to_dict(config).items() if not name.endswith("norm_eps")}
    assert from_dict(type(config), plain) == config


@pytest.mark.parametrize("eps", [-1e-6, float("nan")])
def test_a_negative_one_is_refused(eps: float) -> None:
    for build in (
        lambda: replace(ENCODER, norm_eps=eps).build(),
        lambda: replace(DECODER, final_norm_eps=eps),
        lambda: ClassifierConfig(encoder=ENCODER, num_classes=2, norm_eps=eps),
    ):
        with pytest.raises(InputError, match="norm_eps"):
            build()
