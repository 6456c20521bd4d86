"""The papers' settings: rates, epochs, decay and sizes are those that papers, scripts and the authors' models have."""

import pytest
import torch
from recipe_plans import plan

from vidstill.recipes.recipe import find_recipe


@pytest.mark.parametrize(
    ("name", "videos", "peak", "final"),
    [  # the papers' and scripts' tables of settings
        ("videomae.base_k400", 2048, 1.2e-3, 8e-5),
        ("videomae.base_k400_800e", 2048, 1.2e-3, 8e-5),
        ("amd.base_k400", 512, 2.4e-3, 2e-5),
        ("amd.small_ssv2", 512, 2.4e-3, 2e-5),
        ("amd.ablation_default", 512, 2.4e-3, 2e-5),
        ("mvd.small_k400", 1024, 6e-4, 4e-4),
        ("mvd.base_k400", 1024, 6e-4, 4e-4),
        ("mvd.base_k400_from_large", 1024, 6e-4, 4e-4),
        ("mvd.large_k400", 512, 3e-4, 2e-4),
        ("mvd.large_k400_800e", 512, 3e-4, 2e-5),
        ("mvd.huge_k400", 512, 3e-4, 2e-5),
        ("maskagain.base_k400", 512, 3e-4, 2e-5),
        ("maskagain.small_ucf101", 256, 3e-4, 1e-5),
        ("imagemae.base_in1k", 4096, 2.4e-3, 0),
        ("imagemae.huge_in1k_800e", 4096, 2.4e-3, 0),
        ("dmae.base_in1k", 4096, 2.4e-3, 0),
        ("dmae.base_k400", 512, 2.4e-3, 2e-5),  # as AMD
        ("amd.base_in1k", 4096, 2.4e-3, 0),  # as MAE
        ("mvd.base_in1k", 4096, 2.4e-3, 0),
        ("stmae.large_k400", 512, 1.6e-3, 1e-6),
        ("stmae.base_k400", 512, 1.6e-3, 1e-6),
        ("stmae.large_k400_mae_st", 256, 1.6e-3, 0),
        ("stmae.ablation_k400_repeats_1", 512, 1.6e-3, 1e-6),
    ],
)
def test_the_rates_are_the_published_ones(name, videos, peak, final):
    made = plan(name)
    assert made.videos_per_step == videos
    assert (made.peak_lr, made.min_lr) == pytest.approx((peak, final))


@pytest.mark.parametrize(
    ("name", "epochs", "span", "warmup"),
    [
        ("videomae.base_k400_800e", 800, 801, 40),
        ("videomae.base_ucf101", 3200, 3201, 40),
        ("mvd.base_k400", 400, 401, 40),
        ("mvd.huge_k400", 800, 801, 40),
        ("maskagain.base_k400", 400, 400, 40),
        ("amd.base_k400", 200, 200, 10),
        ("imagemae.base_in1k", 1600, 1600, 40),
        ("imagemae.base_in1k_800e", 800, 800, 40),
        ("dmae.base_in1k", 100, 100, 20),
        ("stmae.large_k400", 400, 400, 30),
        ("stmae.huge_k400", 400, 400, 60),
        ("stmae.large_k400_mae_st", 100, 100, 5),
    ],
)
def test_the_cosine_spans_what_the_scripts_say(name, epochs, span, warmup):
    made, steps = plan(name), plan(name).steps_per_epoch
    assert (made.total_steps, made.cosine_steps, made.warmup_steps) == (epochs * steps, span * steps, warmup * steps)


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("amd.base_k400", 800),
        ("amd.ablation_default", 200),
        ("amd.ablation_epochs_400", 400),
        ("stmae.large_k400", 1600),
        ("stmae.large_k400_800e", 800),
        ("stmae.ablation_default", 200),
        ("stmae.ablation_k400_repeats_1", 800),
        ("stmae.ablation_k400_repeats_2", 800),
    ],
)
def test_the_papers_count_each_copy_of_a_video_as_an_epoch(name, epochs):
    recipe = find_recipe(name)
    assert recipe.schedule.epochs * recipe.clips.repeats == epochs


@pytest.mark.parametrize(
    ("name", "decayed"),
    [  # which of the parameters that stand for no input the scripts leave out of weight decay
        ("videomae.base_k400", {"mask_token": False}),
        ("amd.base_k400", {"mask_token": False}),
        ("mvd.base_k400", {"mask_token": True}),
        ("imagemae.base_in1k", {"mask_token": True, "cls_token": True}),
        ("dmae.base_in1k", {"mask_token": True, "cls_token": True}),
        ("stmae.base_k400", {"mask_token": True, "cls_token": True, "positions": True}),
    ],
)
def test_tokens_and_positions_are_decayed_where_the_scripts_do_so(name, decayed):
    recipe = find_recipe(name)
    with torch.device("meta"):
        groups = recipe.optim.get_param_groups(recipe.method.build())
    found = {}
    for group in groups:
        for parameter, _ in group["params"]:
            for word in {"mask_token", "cls_token", "positions"} & set(parameter.split(".")):
                found.setdefault(word, set()).add(group["weight_decay"] > 0)
    assert found == {word: {expected} for word, expected in decayed.items()}


MAE_TABLES = 197 * (768 + 512)  # MAE counts its tables of positions, which are computed here
AMD_EXTRA = 2 * 1024 - 2 * 2 * 1024  # two mask tokens that AMD does not count, less two norms that it never uses
PROJECTIONS = 2 * (295_680 + 590_592) + 886_272  # MaskAgain-S: student's and teacher's, twice, and a perceptron


@pytest.mark.parametrize(
    ("name", "count"),
    [  # as the authors' models count
        ("videomae.small_k400", 24_029_376),
        ("videomae.base_k400", 94_210_944),
        ("videomae.large_k400", 342_996_992),
        ("videomae.huge_k400", 692_487_296),
        ("mvd.small_k400", 29_865_600),
        ("mvd.small_k400_from_large", 30_062_720),
        ("mvd.base_k400", 116_942_592),
        ("mvd.base_k400_from_large", 117_336_320),
        ("mvd.large_k400", 331_179_008),
        ("mvd.huge_k400", 713_657_600),
        ("amd.small_k400", 75_200_704 + AMD_EXTRA),
        ("amd.base_k400", 146_168_704 + AMD_EXTRA),
        ("maskagain.small_k400", 21_879_168 + PROJECTIONS),
        ("maskagain.base_k400", 86_225_664),
        ("imagemae.base_in1k", 111_907_840 - MAE_TABLES),
    ],
)
def test_as_many_parameters_are_trained_as_the_authors_count(name, count):
    with torch.device("meta"):
        method = find_recipe(name).method.build()
    assert sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad) == count
