"""The eps of LayerNorms: set by a config, written to files, used by every model."""

from dataclasses import replace

import pytest
import torch
from tiny_models import CLASSES, DECODER, ENCODER, VIDEOMAE, built, clips
from torch import nn

from vidstill.tasks.classification import ClassifierConfig
from vidstill.tasks.detection import DetectorConfig
from vidstill.utils.config_io import from_dict, to_dict
from vidstill.utils.types import InputError

ODD = replace(ENCODER, norm_eps=1e-12)
ODD_DECODER = replace(DECODER, norm_eps=1e-12, final_norm_eps=1e-5)
CLASSIFIER = ClassifierConfig(encoder=ODD, num_classes=CLASSES, norm_eps=1e-5)
PLAIN_CLASSIFIER = ClassifierConfig(encoder=ENCODER, num_classes=CLASSES)


@pytest.mark.parametrize(
    ("model", "eps", "final_eps"),
    [
        (VIDEOMAE.build(), 1e-6, None),
        (PLAIN_CLASSIFIER.build(), 1e-6, None),
        (ODD.build(), 1e-12, 1e-12),
        (DetectorConfig(encoder=ODD, num_actions=3).build(), 1e-12, None),
        (replace(VIDEOMAE, decoder=ODD_DECODER).build().decoder, 1e-12, 1e-5),
        (CLASSIFIER.build(), 1e-12, 1e-5),
    ],
    ids=["method", "classifier", "odd encoder", "detector", "odd decoder", "odd classifier"],
)
def test_norms_have_the_configured_eps(model, eps, final_eps):
    values = {name: part.eps for name, part in model.named_modules() if isinstance(part, nn.LayerNorm)}
    assert final_eps is None or values.pop("norm") == final_eps
    assert set(values.values()) == {eps}


def test_eps_is_added_to_the_variance():
    model = built(replace(ENCODER, norm_eps=0.3)).eval()
    features = model(clips(), layers=(2,))
    tokens = features.layers[2]
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    expected = centred / (tokens.var(dim=-1, unbiased=False, keepdim=True) + 0.3).sqrt()
    torch.testing.assert_close(features.tokens, expected * model.norm.weight + model.norm.bias)


def test_eps_can_be_written_and_read_and_a_file_without_it_means_the_default():
    for config in (ODD, ODD_DECODER, CLASSIFIER):
        assert from_dict(type(config), to_dict(config)) == config
    for config in (ENCODER, DECODER, PLAIN_CLASSIFIER):
        without = {name: value for name, value in to_dict(config).items() if not name.endswith("norm_eps")}
        assert from_dict(type(config), without) == config


@pytest.mark.parametrize("eps", [-1e-6, float("nan")])
@pytest.mark.parametrize(
    ("config", "field"), [(ENCODER, "norm_eps"), (DECODER, "final_norm_eps"), (CLASSIFIER, "norm_eps")]
)
def test_negative_eps_is_an_error(config, field, eps):
    with pytest.raises(InputError, match="norm_eps"):
        replace(config, **{field: eps})
