"""Image MAE and DMAE of full size give the numbers that their authors' code gave with the recipe of `full_size`."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from full_size import clip, fill, hold, hold_numbers
from reference_mae import mask_by, predictions
from torch import Tensor

from vidstill.checkpoints.layouts.mae import build_mae_rules
from vidstill.checkpoints.layouts.rename import build_classifier_rules, build_vit_rules
from vidstill.methods.common.masking import Mask
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.dmae import DMAEConfig
from vidstill.methods.imagemae import ImageMAEConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import IMAGE_BASE, IMAGE_SMALL, Features
from vidstill.tasks.classification import ClassifierConfig
from vidstill.utils.types import Grid

pytestmark = pytest.mark.slow


def noise() -> Tensor:
    return torch.from_numpy(np.random.RandomState(1).rand(2, 196).astype(np.float32))


def mask() -> Mask:
    return mask_by(noise(), 0.75)


def kept() -> Tensor:
    """The visible tokens in the authors' order."""
    return noise().argsort(dim=1)[:, :49]


def test_the_position_table_has_the_authors_numbers() -> None:
    table = build_position_table("sincos2d", Grid(1, 14, 14), 768, torch.device("cpu")).double()
    entries = table[[0, 1, 1, 15, 15, 195], [0, 0, 192, 384, 576, 767]]  # theirs has a row of the class token before
    hold_numbers(entries, ["0", ".84147096", ".54030228", ".84147096", ".54030228", ".99999905"], scale=0.06)
    hold_numbers(table.sum()[None], ["69594.4938"], scale=1.0)


def test_mae_base_has_the_authors_numbers() -> None:
    method = ImageMAEConfig().build().eval()
    fill(method, build_mae_rules(IMAGE_BASE))
    assert kept()[0, :5].tolist() == [2, 98, 149, 106, 38]
    with torch.no_grad():
        seen = method.encoder(clip(1), kept())
        rebuilt = predictions(method, clip(1), mask())
        loss = method(clip(1), mask=mask()).loss
        plain = ImageMAEConfig(target="input").build()
        plain.load_state_dict(method.state_dict())
        raw = plain(clip(1), mask=mask()).loss
    hold(
        torch.cat([seen.cls_token, seen.tokens], dim=1),
        shape=(2, 50, 768),
        mean="4.59932e-4",
        std=".999669",
        first="-1.224017 .318371 1.127864",
        last="1.099136",
    )
    hold(
        rebuilt,
        shape=(2, 196, 768),
        mean="-6.766337e-3",
        std=".445988",
        first=".451910 .667839 .488680",
        last="-.006400",
    )
    hold_numbers(torch.stack([loss, raw]), ["1.1931018", "1.1934233"], scale=1.0)


@pytest.mark.parametrize(
    ("pooling", "printed"),
    [
        ("mean", ("-4.379554e-3", ".554022", "-.106136 -.745311 .498920", "-.568319")),
        ("first", ("-2.919704e-3", ".536116", ".074929 .025539 -.112918", ".029788")),
    ],
)
def test_a_base_classifier_has_the_authors_numbers(pooling: str, printed: tuple[str, ...]) -> None:
    mean, std, first, last = printed
    model = ClassifierConfig(encoder=IMAGE_BASE, num_classes=1000, pooling=pooling).build().eval()
    fill(model, build_classifier_rules(IMAGE_BASE))
    with torch.no_grad():
        logits = model(clip(1))
    hold(logits, shape=(2, 1000), mean=mean, std=std, first=first, last=last)


def test_dmae_small_has_the_authors_numbers() -> None:
    config = DMAEConfig(encoder=IMAGE_SMALL, teacher=TeacherConfig(model=IMAGE_BASE), layer_pairs=((9, 9),))
    method = config.build().eval()
    fill(method, build_mae_rules(IMAGE_SMALL))
    fill(method.teacher.model, build_vit_rules(IMAGE_BASE, "", ""))
    with torch.no_grad():
        student = method.encoder(clip(1), kept(), layers=(9,))
        teacher = method.teacher(clip(1), kept(), layers=(9,))
        parts = method(clip(1), mask=mask()).parts
        guess, target = method.projections[0](features(student)), features(teacher)
        squared = F.mse_loss(F.normalize(guess, dim=-1), F.normalize(target, dim=-1))
        rebuilt = predictions(method, clip(1), mask())
    hold(features(teacher), shape=(2, 50, 768), mean=".4493595", std="1.433745", first="-1.504780", last="3.153282")
    hold(features(student), shape=(2, 50, 384), mean=".4442210", std=".958163", first=".435574", last="1.312029")
    hold(rebuilt, shape=(2, 196, 768), mean="-6.342458e-3", std=".444225", first=".370362", last=".038240")
    hold_numbers(parts["reconstruction"][None], ["1.1927717"], scale=1.0)
    hold_numbers(parts["alignment"][None], [".04114741"], scale=0.04)
    hold_numbers(squared[None], [".002656612"], scale=0.002)


def features(looked: Features) -> Tensor:
    return torch.cat([looked.cls_layers[9], looked.layers[9]], dim=1)
