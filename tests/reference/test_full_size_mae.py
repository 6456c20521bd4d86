"""Full-size models of the MAE family (image MAE, DMAE, ST-MAE) give the numbers of their authors' code.

Weights and clip are made by the recipe of `full_size`. Of a token's uniform numbers, those of the tokens that are kept
are the lowest. ST-MAE's numbers are mae_st's and PySlowFast's.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign_layout import to_foreign, translate_state_dict
from full_size import clip, count_parameters, fill, filled, hold, hold_numbers
from reference_mae import mask_by, predictions, stmae_colours
from torch import Tensor, nn

from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.rename import RenameRule, build_vit_rules
from vidstill.checkpoints.layouts.stmae import build_slowfast_rules, build_stmae_classifier_rules, build_stmae_rules
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.methods.common.masking import Mask
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.dmae import DMAEConfig
from vidstill.methods.imagemae import ImageMAEConfig
from vidstill.methods.stmae import STMAE, STMAEConfig, STMAEQuirks, build_stmae_vit_config
from vidstill.models.vit import BASE, IMAGE_BASE, IMAGE_SMALL, Features
from vidstill.tasks.classification import ClassifierConfig

slow = pytest.mark.slow


def draw_noise(tokens: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(1).rand(2, tokens).astype(np.float32))


# ---- Image MAE and DMAE ----------------------------------------------------------------------------------------------


def image_mask() -> Mask:
    return mask_by(draw_noise(196), 0.75)


def visible() -> Tensor:
    """The visible tokens in the authors' order."""
    return draw_noise(196).argsort(dim=1)[:, :49]


@slow
def test_mae_base_has_the_authors_numbers() -> None:
    method = ImageMAEConfig().build().eval()
    fill(method, build_mae_rules(IMAGE_BASE))
    assert visible()[0, :5].tolist() == [2, 98, 149, 106, 38]
    with torch.no_grad():
        encoded = method.encoder(clip(1), visible())
        reconstruction = predictions(method, clip(1), image_mask())
        loss = method(clip(1), mask=image_mask()).loss
        plain = ImageMAEConfig(target="input").build()
        plain.load_state_dict(method.state_dict())
        raw = plain(clip(1), mask=image_mask()).loss
    latent = torch.cat([encoded.cls_token, encoded.tokens], dim=1)
    hold(latent, (2, 50, 768), "4.59932e-4", ".999669", "-1.224017 .318371 1.127864", "1.099136")
    hold(reconstruction, (2, 196, 768), "-6.766337e-3", ".445988", ".451910 .667839 .488680", "-.006400")
    hold_numbers(torch.stack([loss, raw]), ["1.1931018", "1.1934233"], scale=1.0)


@slow
def test_dmae_small_has_the_authors_numbers() -> None:
    config = DMAEConfig(encoder=IMAGE_SMALL, teacher=TeacherConfig(model=IMAGE_BASE), layer_pairs=((9, 9),))
    method = config.build().eval()
    fill(method, build_mae_rules(IMAGE_SMALL))
    fill(method.teacher.model, build_vit_rules(IMAGE_BASE, "", ""))

    def features(encoded: Features) -> Tensor:
        return torch.cat([encoded.cls_layers[9], encoded.layers[9]], dim=1)

    with torch.no_grad():
        student = method.encoder(clip(1), visible(), layers=(9,))
        teacher = method.teacher(clip(1), visible(), layers=(9,))
        parts = method(clip(1), mask=image_mask()).parts
        prediction, target = method.projections[0](features(student)), features(teacher)
        squared = F.mse_loss(F.normalize(prediction, dim=-1), F.normalize(target, dim=-1))
        reconstruction = predictions(method, clip(1), image_mask())
    hold(features(teacher), (2, 50, 768), ".4493595", "1.433745", "-1.504780", "3.153282")
    hold(features(student), (2, 50, 384), ".4442210", ".958163", ".435574", "1.312029")
    hold(reconstruction, (2, 196, 768), "-6.342458e-3", ".444225", ".370362", ".038240")
    hold_numbers(parts["reconstruction"][None], ["1.1927717"], scale=1.0)
    hold_numbers(parts["alignment"][None], [".04114741"], scale=0.04)
    hold_numbers(squared[None], [".002656612"], scale=0.002)


# ---- ST-MAE ----------------------------------------------------------------------------------------------------------

ENCODER = build_stmae_vit_config(BASE)
SLOWFAST = STMAEConfig(encoder=ENCODER)
MAE_ST = STMAEConfig(
    encoder=ENCODER,
    decoder=replace(SLOWFAST.decoder, heads=16, positions="separable", class_token="own"),
    released=STMAEQuirks(frame_selection="linspace", weight_init="xavier"),
)
CLASSIFIER = ClassifierConfig(encoder=ENCODER, num_classes=400, norm="pretrained")


@cache
def stmae_clip() -> Tensor:
    numbers = np.random.RandomState(0).standard_normal((2, 3, 16, 224, 224)).astype(np.float32)
    return stmae_colours(torch.from_numpy(numbers))


@cache
def shuffled() -> Tensor:
    return draw_noise(1568).argsort(dim=1)


def mask() -> Mask:
    return Mask(shuffled()[:, :156].sort(dim=1).values, shuffled()[:, 156:].sort(dim=1).values)


def fill_slowfast(module: nn.Module, names: Sequence[RenameRule]) -> None:
    """As `fill`; the norm that PySlowFast keeps among the decoder's blocks has a number for a name."""
    expected = {name: filled(name, t) for name, t in to_foreign(module.state_dict(), names).items()}
    if "pred_head.transforms.0.4.weight" in expected:
        expected["pred_head.transforms.0.4.weight"] += 1
    load_state_dict_strict(module, translate_state_dict(expected, names), "the recipe")


@slow
def test_models_have_the_authors_parameters() -> None:
    assert count_parameters(MAE_ST) == 99_898_880
    assert count_parameters(CLASSIFIER) == 86_702_224


@slow
def test_mae_st_has_its_authors_numbers() -> None:
    method: STMAE = MAE_ST.build().eval()
    fill(method, build_stmae_rules(ENCODER, MAE_ST.decoder))
    with torch.no_grad():
        encoded = method.encoder(stmae_clip(), shuffled()[:, :156]).tokens  # in their order
        reconstruction = predictions(method, stmae_clip(), mask())
        loss = method(stmae_clip(), mask=mask()).loss
        pixels = replace(MAE_ST, target="input").build()
        pixels.load_state_dict(method.state_dict())
        loss_of_pixels = pixels(stmae_clip(), mask=mask()).loss
    hold(encoded, (2, 156, 768), "3.659074e-4", ".999915", ".049048 -.992679 -.807004", ".648497")
    hold(reconstruction, (2, 1568, 768), "-6.446989e-3", ".441607", "-.601503 -.000778 -.134979", "-.136681")
    hold_numbers(torch.stack([loss, loss_of_pixels]), ["1.1940560", "1.1952897"], scale=1.0)


@slow
def test_slowfasts_pre_training_has_its_authors_numbers() -> None:
    method: STMAE = SLOWFAST.build().eval()
    fill_slowfast(method, build_slowfast_rules(ENCODER, SLOWFAST.decoder, separate_qkv=False))
    with torch.no_grad():
        encoded = method.encoder(stmae_clip(), mask().visible)
        reconstruction = method.forward_decoder(stmae_clip(), encoded, mask())
        target = method.compute_target(stmae_clip(), mask().masked)
        loss = method(stmae_clip(), mask=mask()).loss
    hold(reconstruction, (2, 1412, 768), "1.676317e-2", ".462402", ".010281 .091269 -.287083", "-.161312")
    hold(target, (2, 1412, 768), None, ".999348", "1.807000 -2.015358 .196236", ".408082")
    hold_numbers(loss[None], ["1.2119832"], scale=1.0)


@slow
def test_st_maes_classifiers_have_their_authors_numbers() -> None:
    model = CLASSIFIER.build().eval()
    with torch.no_grad():
        fill(model, build_stmae_classifier_rules(ENCODER))
        hold(model(stmae_clip()), (2, 400), "-4.477381e-3", ".509974", ".188099 .330260 -.487824", "-.051741")
        fill_slowfast(model, build_stmae_classifier_rules(ENCODER, separate_qkv=False, slowfast=True))
        logs = model(stmae_clip()).log_softmax(dim=1)
    hold(logs.exp(), (2, 400), None, ".001669", ".003283 .002158 .000628", ".001044")
    hold(logs, (2, 400), None, None, "-5.718931 -6.138774 -7.372334", "-6.865011")
