"""The papers' pre-trainings: learning rates, epochs, decay and sizes are those of papers, scripts and models."""

import pytest
import torch
from recipe_plans import plan

from vidstill.recipes.recipe import find_recipe

SETTINGS = """
                            videos  peak_lr  min_lr  epochs  cosine  warmup  copies
videomae.base_k400          2048    1.2e-3   8e-5    -       -       -       -
videomae.base_k400_800e     2048    1.2e-3   8e-5    800     801     40      -
videomae.base_ucf101        -       -        -       3200    3201    40      -
amd.base_k400               512     2.4e-3   2e-5    200     200     10      800
amd.small_ssv2              512     2.4e-3   2e-5    -       -       -       -
amd.ablation_default        512     2.4e-3   2e-5    -       -       -       200
amd.ablation_epochs_400     -       -        -       -       -       -       400
amd.base_in1k               4096    2.4e-3   0       -       -       -       -
mvd.small_k400              1024    6e-4     4e-4    -       -       -       -
mvd.base_k400               1024    6e-4     4e-4    400     401     40      -
mvd.base_k400_from_large    1024    6e-4     4e-4    -       -       -       -
mvd.large_k400              512     3e-4     2e-4    -       -       -       -
mvd.large_k400_800e         512     3e-4     2e-5    -       -       -       -
mvd.huge_k400               512     3e-4     2e-5    800     801     40      -
mvd.base_in1k               4096    2.4e-3   0       -       -       -       -
maskagain.base_k400         512     3e-4     2e-5    400     400     40      -
maskagain.small_ucf101      256     3e-4     1e-5    -       -       -       -
imagemae.base_in1k          4096    2.4e-3   0       1600    1600    40      -
imagemae.base_in1k_800e     -       -        -       800     800     40      -
imagemae.huge_in1k_800e     4096    2.4e-3   0       -       -       -       -
dmae.base_in1k              4096    2.4e-3   0       100     100     20      -
dmae.base_k400              512     2.4e-3   2e-5    -       -       -       -
stmae.large_k400            512     1.6e-3   1e-6    400     400     30      1600
stmae.large_k400_800e       -       -        -       -       -       -       800
stmae.base_k400             512     1.6e-3   1e-6    -       -       -       -
stmae.huge_k400             -       -        -       400     400     60      -
stmae.large_k400_mae_st     256     1.6e-3   0       100     100     5       -
stmae.ablation_default      -       -        -       -       -       -       200
stmae.ablation_k400_repeats_1 512   1.6e-3   1e-6    -       -       -       800
stmae.ablation_k400_repeats_2 -     -        -       -       -       -       800
"""  # of papers and scripts; `copies`: the paper's epochs, which count each copy of a video
COLUMNS, *ROWS = [line.split() for line in SETTINGS.strip().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_learning_rates_and_epochs_are_the_published_ones(row):
    recipe, run = find_recipe(row[0]), plan(row[0])
    assert run.total_steps == recipe.schedule.epochs * run.steps_per_epoch
    actual = {
        "videos": run.videos_per_step,
        "peak_lr": run.peak_lr,
        "min_lr": run.min_lr,
        "epochs": recipe.schedule.epochs,
        "cosine": run.cosine_steps / run.steps_per_epoch,
        "warmup": run.warmup_steps / run.steps_per_epoch,
        "copies": recipe.schedule.epochs * recipe.clips.repeats,
    }
    expected = {name: float(text) for name, text in zip(COLUMNS, row[1:], strict=True) if text != "-"}
    assert {name: actual[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "decayed"),
    [  # which of the parameters without an input the scripts exempt from weight decay
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
    actual = {
        (part, group["weight_decay"] > 0)
        for group in groups
        for parameter, _ in group["params"]
        for part in {"mask_token", "cls_token", "positions"} & set(parameter.split("."))
    }
    assert actual == set(decayed.items())


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
