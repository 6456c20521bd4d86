"""Full-size MaskAgain gives the numbers that its authors' code gave, by the recipe of `full_size`; printed digits."""

import pytest
import torch
from full_size import clip, fill, hold, hold_numbers, mask

from vidstill.checkpoints.layouts.maskagain import build_maskagain_rules
from vidstill.checkpoints.layouts.rename import build_vit_rules
from vidstill.methods.common.teacher import TeacherConfig
from vidstill.methods.maskagain import MaskAgain, MaskAgainConfig
from vidstill.methods.maskagain_losses import select_salient_tokens
from vidstill.models.vit import BASE, SMALL, ViTConfig

pytestmark = pytest.mark.slow


def filled_method(encoder: ViTConfig, prefix: str = "") -> MaskAgain:
    method = MaskAgainConfig(encoder=encoder, teacher=TeacherConfig(model=BASE)).build().eval()
    fill(method, build_maskagain_rules(encoder), prefix)
    teacher = method.teacher.model
    teacher.norm = torch.nn.Identity()  # the authors' has none, and none is looked at
    fill(teacher, build_vit_rules(BASE, "encoder.", ""))
    return method


def hold_losses(method: MaskAgain, *printed: str) -> None:
    with torch.no_grad():
        parts = method(clip(), mask=mask()).parts
    for name, digits in zip(("global", "local", "hint", "relation"), printed, strict=True):
        hold_numbers(parts[name][None], [digits], scale=0.0)


def test_a_base_student_has_the_authors_numbers() -> None:
    method = filled_method(BASE, prefix="student.")
    looked = method.forward_teacher(clip(), mask())
    output, attention = looked.layers[12], looked.attention[12]
    hold(output, shape=(2, 160, 768), mean=".2068744", std="1.701615", first="-4.106161", last="-1.222058")
    hold(
        attention.logits,
        shape=(2, 12, 160, 160),
        mean="-3.077061e-2",
        std=".3078120",
        first=".017171",
        last="-.125490",
    )
    hold(
        attention.values,
        shape=(2, 12, 160, 64),
        mean="-5.878525e-4",
        std=".5535813",
        first="-.349840",
        last="-.762505",
    )
    telling = select_salient_tokens(output, 10)
    assert telling[0].sort().values[:3].tolist() == [14, 55, 65]
    assert telling.numel() == 20
    hold_losses(method, ".20872964", ".20116507", "5.05995798", ".56324744")


def test_a_small_student_has_the_authors_numbers() -> None:
    hold_losses(filled_method(SMALL), ".03778588", ".03646629", "3.23404741", ".46977568")
