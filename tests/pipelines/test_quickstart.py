"""The quickstart: how its report explains the numbers, and that its settings make a fair comparison."""

import io
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from rich.console import Console

from vidstill.figures import quickstart as figures
from vidstill.figures.quickstart import ModelResult, QuickstartResult
from vidstill.recipes import quickstart as recipes
from vidstill.recipes.quickstart import DistillationMethod

RESULT = QuickstartResult(
    models=tuple(
        ModelResult(
            key=key,
            probe_top1=probe,
            top1={} if key == "teacher" else {"few": probe + 10, "many": probe + 20},
            num_params=1_234_567,
            flops=98_765_432,
            pretraining_seconds=0.0 if key == "scratch" else 61.4,
            finetuning_seconds=20.2,
        )
        for key, probe in (("scratch", 15.0), ("videomae", 20.0), ("amd", 40.0), ("teacher", 50.0))
    ),
    num_classes=12,
    num_labelled={"few": 600, "many": 2400},
    num_pretrain_clips=1800,
    num_test_clips=400,
    source="made:train=2400",
    method="amd",
)


def printed(width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(figures.make_terminal_table(RESULT), highlight=False)
    return file.getvalue()


def page() -> str:
    steps = [{"step": n, "loss": 1 / n, "parts": {"reconstruction": 1 / n, "direct": 2 / n}} for n in (1, 2, 3)]
    return figures.render_quickstart_page(
        RESULT,
        reconstruction="<img>",
        similarity_charts=figures.draw_similarity_charts({"scratch": [0.1, 0.2], "amd": [0.3, 0.4]}, "amd", steps),
        loss_charts=figures.draw_loss_charts({"amd": steps}, {"amd": steps}),
        facts={"command": "vidstill quickstart"},
    )


@pytest.mark.parametrize(("num_clips", "num_right"), [(400, 200), (3000, 1620), (25, 24), (25, 25), (25, 0)])
def test_the_interval_is_as_wide_as_wilsons_and_not_half_as_wide_again(num_clips, num_right):
    # Wilson's: those rates from which the observed one differs by at most 1.96 standard errors of their own
    rates = np.linspace(0, 1, 100_001)
    inside = rates[abs(rates - num_right / num_clips) <= 1.96 * np.sqrt(rates * (1 - rates) / num_clips) + 1e-12]
    wilson = 100 * (inside[-1] - inside[0]) / 2
    margin = replace(RESULT, num_test_clips=num_clips).compute_margin(100 * num_right / num_clips)
    assert wilson - 0.001 <= margin <= 1.4 * wilson


@pytest.mark.parametrize("number", ["15.0 ±3.5", "30.0 ±4.5", "60.0 ±4.8", "50.0 ±4.9", "1.23", "0.0988", "61", "–"])
def test_table_and_page_show_every_number(number):
    assert number in printed(80)
    assert number in page()


def test_the_table_fits_a_terminal_of_80_columns():
    lines = printed(80).splitlines()
    for model in RESULT.models:
        line = next(line for line in lines if figures.MODELS[model.key].name in line)
        assert line.rstrip().endswith(("61", "–"))  # its last column stands in the same line, not cut off
    assert "…" not in printed(80)


def test_table_and_page_explain_the_numbers():
    for text in (printed(2000), page()):
        assert "400 clips of 12 classes (chance is 8.3 %)" in text
        assert "fine-tuned with 600 and 2400" in text
        assert "+20.0 points from the one pre-trained on pixels: more than the 6.2 points" in text  # 1.96 · √(…)
        assert "Its teacher’s pre-training took 61 s." in text


def test_what_is_no_more_than_noise_is_said():
    models = tuple(replace(model, probe_top1=20.0) for model in RESULT.models)
    assert "+0.0 points from the one pre-trained on pixels: within the 5.5 points" in figures.describe_noise(
        replace(RESULT, models=models)
    )


def test_an_image_teacher_is_named():
    result = replace(RESULT, method="mvd", image_teacher_seconds=20.3)
    result = replace(
        result, models=tuple(replace(each, key={"amd": "mvd"}.get(each.key, each.key)) for each in result.models)
    )
    text = figures.describe_results(result)
    assert "Its teacher’s pre-training took 61 s. Its image teacher’s pre-training took 20 s." in text


def test_a_teacher_that_comes_with_the_package_is_named():
    models = tuple(replace(each, pretraining_seconds=0.0) for each in RESULT.models)
    assert "Its teacher comes with vidstill." in figures.describe_results(replace(RESULT, models=models))


def test_a_distillations_pixel_curve_is_explained_if_it_has_one():
    steps = [{"step": n, "loss": 1.0, "parts": {"reconstruction": 1.0}} for n in (1, 2)]
    features = [{"step": n, "loss": 1.0, "parts": {"image": 1.0}} for n in (1, 2)]
    with_pixels = figures.draw_loss_charts({"videomae": steps, "amd": steps}, {})
    without = figures.draw_loss_charts({"videomae": steps, "mvd": features}, {})
    assert "AMD: the pixel term of its loss." in with_pixels
    assert "MVD has no pixel loss." in without
    assert "pixel term" not in without


def test_the_page_is_small_and_has_its_charts():
    assert len(page()) < 100_000
    assert page().count("<svg") == 6


@pytest.mark.parametrize("name", get_args(DistillationMethod))
def test_the_students_have_the_same_encoder_and_budget(name):
    distilled = getattr(recipes, name)
    assert recipes.videomae.method.encoder == distilled.method.encoder == recipes.finetune.encoder
    assert recipes.teacher.method.encoder == recipes.finetune_teacher.encoder
    assert recipes.image_teacher.schedule == recipes.videomae.schedule
    for budget in ("clips", "schedule", "batch"):
        assert getattr(recipes.videomae, budget) == getattr(distilled, budget)
    assert replace(distilled.optim, base_lr=recipes.videomae.optim.base_lr) == recipes.videomae.optim  # it is chosen
    for budget in ("clips", "views", "optim", "schedule", "batch", "mixup", "random_erasing", "label_smoothing"):
        assert getattr(recipes.finetune, budget) == getattr(recipes.finetune_teacher, budget)


@pytest.mark.parametrize("name", get_args(DistillationMethod))
def test_every_loss_term_of_a_distillation_is_drawn_and_named(name):
    """The chart shows all terms that the method logs besides the pixels."""
    method = getattr(recipes, name).method.build()
    parts = method(torch.rand(2, 3, 8, 32, 32), seed=torch.arange(2)).parts
    steps = [{"step": n, "loss": 1.0, "parts": dict.fromkeys(parts, 1.0)} for n in (1, 2)]
    chart = figures.draw_similarity_charts({"scratch": [0.1, 0.2]}, name, steps)
    named, _, _ = figures.LOSS_PARTS[name]
    assert named.keys() == parts.keys() - {"reconstruction"}
    assert all(f">{label}<" in chart for label in named.values())
