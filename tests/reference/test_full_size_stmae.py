"""Full-size ST-MAE gives the numbers of mae_st and of PySlowFast, with weights, clip and noise made by a recipe.

The recipe is that of `full_size`, but for the mask: of 1568 uniform numbers, those of the 156 tokens that are kept are
the lowest.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from foreign_layout import to_foreign, translate_state_dict
from full_size import fill, filled, hold, hold_numbers
from reference_mae import predictions, stmae_colours
from torch import Tensor, nn

from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.checkpoints.layouts.stmae import build_slowfast_rules, build_stmae_classifier_rules, build_stmae_rules
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.methods.common.masking import Mask
from vidstill.methods.stmae import STMAE, STMAEConfig, STMAEQuirks, build_stmae_vit_config
from vidstill.models.vit import BASE
from vidstill.tasks.classification import ClassifierConfig

pytestmark = pytest.mark.slow

ENCODER = build_stmae_vit_config(BASE)
SLOWFAST = STMAEConfig(encoder=ENCODER)
MAE_ST = STMAEConfig(
    encoder=ENCODER,
    decoder=replace(SLOWFAST.decoder, heads=16, positions="separable", class_token="own"),
    released=STMAEQuirks(frame_selection="linspace", weight_init="xavier"),
)
CLASSIFIER = ClassifierConfig(encoder=ENCODER, num_classes=400, norm="pretrained")


@cache
def clip() -> Tensor:
    return stmae_colours(
        torch.from_numpy(np.random.RandomState(0).standard_normal((2, 3, 16, 224, 224)).astype(np.float32))
    )


@cache
def shuffled() -> Tensor:
    return torch.from_numpy(np.random.RandomState(1).rand(2, 1568).astype(np.float32).argsort(axis=1))


def mask() -> Mask:
    return Mask(shuffled()[:, :156].sort(dim=1).values, shuffled()[:, 156:].sort(dim=1).values)


def fill_slowfast(module: nn.Module, names: Sequence[RenameRule]) -> None:
    """As `fill`; the norm that PySlowFast keeps among the decoder's blocks has a number for a name."""
    theirs = {name: filled(name, t) for name, t in to_foreign(module.state_dict(), names).items()}
    if "pred_head.transforms.0.4.weight" in theirs:
        theirs["pred_head.transforms.0.4.weight"] += 1
    load_state_dict_strict(module, translate_state_dict(theirs, names), "the recipe")


def parameters(config: STMAEConfig | ClassifierConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in config.build().parameters())


def test_models_have_the_authors_parameters() -> None:
    assert parameters(MAE_ST) == 99_898_880
    assert parameters(CLASSIFIER) == 86_702_224


def test_mae_st_has_its_authors_numbers() -> None:
    method: STMAE = MAE_ST.build().eval()
    fill(method, build_stmae_rules(ENCODER, MAE_ST.decoder))
    with torch.no_grad():
        seen = method.encoder(clip(), shuffled()[:, :156]).tokens  # in their order
        rebuilt = predictions(method, clip(), mask())
        loss = method(clip(), mask=mask()).loss
        pixels = replace(MAE_ST, target="input").build()
        pixels.load_state_dict(method.state_dict())
        loss_of_pixels = pixels(clip(), mask=mask()).loss
    hold(
        seen,
        shape=(2, 156, 768),
        mean="3.659074e-4",
        std=".999915",
        first=".049048 -.992679 -.807004",
        last=".648497",
    )
    hold(
        rebuilt,
        shape=(2, 1568, 768),
        mean="-6.446989e-3",
        std=".441607",
        first="-.601503 -.000778 -.134979",
        last="-.136681",
    )
    hold_numbers(torch.stack([loss, loss_of_pixels]), ["1.1940560", "1.1952897"], scale=1.0)


def test_mae_sts_classifier_has_its_authors_numbers() -> None:
    model = CLASSIFIER.build().eval()
    fill(model, build_stmae_classifier_rules(ENCODER))
    with torch.no_grad():
        logits = model(clip())
    hold(
        logits,
        shape=(2, 400),
        mean="-4.477381e-3",
        std=".509974",
        first=".188099 .330260 -.487824",
        last="-.051741",
    )


def test_slowfasts_pre_training_has_its_authors_numbers() -> None:
    method: STMAE = SLOWFAST.build().eval()
    fill_slowfast(method, build_slowfast_rules(ENCODER, SLOWFAST.decoder, separate_qkv=False))
    with torch.no_grad():
        seen = method.encoder(clip(), mask().visible)
        rebuilt = method.forward_decoder(clip(), seen, mask())
        target = method.compute_target(clip(), mask().masked)
        loss = method(clip(), mask=mask()).loss
    hold(
        rebuilt,
        shape=(2, 1412, 768),
        mean="1.676317e-2",
        std=".462402",
        first=".010281 .091269 -.287083",
        last="-.161312",
    )
    hold(target, shape=(2, 1412, 768), std=".999348", first="1.807000 -2.015358 .196236", last=".408082")
    hold_numbers(loss[None], ["1.2119832"], scale=1.0)


def test_slowfasts_classifier_has_its_authors_numbers() -> None:
    model = CLASSIFIER.build().eval()
    fill_slowfast(model, build_stmae_classifier_rules(ENCODER, separate_qkv=False, slowfast=True))
    with torch.no_grad():
        logs = model(clip()).log_softmax(dim=1)
    hold(logs.exp(), shape=(2, 400), std=".001669", first=".003283 .002158 .000628", last=".001044")
    hold(logs, shape=(2, 400), first="-5.718931 -6.138774 -7.372334", last="-6.865011")
