"""Every fine-tuning's settings and its result, against the tables of papers and scripts."""

import re

import pytest
from recipe_plans import FINETUNINGS as NAMES
from recipe_plans import plan

from vidstill.engine.optimizer import AdamWConfig, SGDConfig
from vidstill.recipes.recipe import find_recipe

# ---- Settings: the tables of the papers and scripts -----------------------------------------------------------------

SETTINGS = """
                        lr       videos  epochs decay  path   dropout  min_lr  repeats
# VideoMAE's scripts; HMDB51 is MVD's
videomae.small_k400     5e-4     384     150    0.75   0.1    0        1e-6    2
videomae.base_k400_800e 1e-3     512     100    0.75   0.1    0        1e-6    1
videomae.base_k400      5e-4     384     75     0.75   0.1    0        1e-6    2
videomae.large_k400     2e-3     128     35     0.75   0.1    0        1e-6    2
videomae.huge_k400      1e-3     512     50     0.75   0.2    0.5      1e-5    2
videomae.small_ssv2     1e-3     384     40     0.7    0.1    0        1e-6    2
videomae.base_ssv2_800e 5e-4     512     50     0.75   0.1    0        1e-6    1
videomae.base_ssv2      5e-4     384     30     0.75   0.1    0        1e-6    2
videomae.large_ssv2     5e-4     384     30     0.75   0.1    0        1e-6    2
videomae.base_ucf101    5e-4     128     100    0.7    0.2    0.5      1e-5    2
videomae.base_hmdb51    1e-3     128     50     0.7    0.2    0.5      1e-6    2
# MVD's scripts, and its appendix
mvd.small_k400          5e-4     384     150    0.75   0.1    0        1e-6    2
mvd.small_k400_paper    1e-3     512     150    0.75   0.1    0        1e-6    2
mvd.base_k400           5e-4     384     75     0.75   0.1    0        1e-6    2
mvd.base_k400_paper     1e-3     512     75     0.75   0.1    0        1e-6    2
mvd.large_k400          1e-3     512     50     0.75   0.3    0.5      1e-6    2
mvd.huge_k400           1e-3     256     50     0.75   0.3    0.5      1e-6    2
mvd.huge_k400_paper     1e-3     512     50     0.75   0.3    0.5      1e-6    2
mvd.small_ssv2          1e-3     384     40     0.7    0.1    0        1e-6    2
mvd.small_ssv2_paper    1e-3     512     40     0.7    0.1    0        1e-6    2
mvd.base_ssv2           5e-4     384     30     0.75   0.1    0        1e-6    2
mvd.base_ssv2_paper     5e-4     512     30     0.75   0.1    0        1e-6    2
mvd.large_ssv2          5e-4     256     30     0.75   0.3    0.5      1e-6    2
mvd.large_ssv2_paper    5e-4     512     30     0.75   0.3    0.5      1e-6    2
mvd.huge_ssv2           5e-4     128     30     0.75   0.3    0.5      1e-5    2
mvd.huge_ssv2_paper     5e-4     512     30     0.75   0.3    0.5      1e-5    2
mvd.base_ucf101         5e-4     128     100    0.7    0.2    0.5      1e-6    2
mvd.base_hmdb51         1e-3     128     50     0.7    0.2    0.5      1e-6    2
# AMD's scripts; UCF101 and HMDB51 are MVD's. DMAE on videos is AMD's
amd.base_k400           7e-4     512     90     0.75   0.1    0        1e-6    2
amd.small_k400          1e-3     256     150    0.75   0.1    0        1e-6    2
amd.base_ssv2           5e-4     256     30     0.75   0.1    0        1e-6    2
amd.small_ssv2          1e-3     256     40     0.75   0.1    0        1e-6    2
amd.base_ucf101         5e-4     128     100    0.7    0.2    0.5      1e-6    2
amd.base_hmdb51         1e-3     128     50     0.7    0.2    0.5      1e-6    2
dmae.base_k400          7e-4     512     90     0.75   0.1    0        1e-6    2
dmae.base_ssv2          5e-4     256     30     0.75   0.1    0        1e-6    2
# MaskAgain's table 8
maskagain.small_k400    1e-3     256     150    0.75   0.1    0        1e-5    2
maskagain.base_k400     1e-3     256     75     0.75   0.1    0        1e-5    2
maskagain.small_ucf101  5e-4     128     100    0.7    0.2    0.5      1e-5    2
maskagain.base_ucf101   5e-4     128     100    0.7    0.2    0.5      1e-5    2
maskagain.small_hmdb51  1e-3     128     50     0.7    0.2    0.5      1e-5    2
maskagain.base_hmdb51   1e-3     128     50     0.7    0.2    0.5      1e-5    2
maskagain.small_ssv2    1e-3     256     40     0.7    0.1    0.5      1e-5    2
maskagain.base_ssv2     5e-4     128     40     0.75   0.1    0.5      1e-5    2
"""


def rows(table):
    """The table's rows: a recipe's name, and its numbers as the columns' heads name them."""
    head, *lines = [line for line in table.strip("\n").splitlines() if not line.startswith("#")]
    for name, *numbers in map(str.split, lines):
        yield pytest.param(name, dict(zip(head.split(), map(float, numbers), strict=True)), id=name)


@pytest.mark.parametrize(("name", "stated"), list(rows(SETTINGS)))
def test_the_settings_of_videomae_s_family_are_those_of_scripts_and_tables(name, stated):
    recipe, made = find_recipe(f"{name}_finetune"), plan(f"{name}_finetune")
    assert made.videos_per_step == stated["videos"]
    assert made.peak_lr == pytest.approx(stated["lr"] * stated["videos"] / 256)
    assert made.min_lr == pytest.approx(stated["min_lr"] * stated["videos"] / 256)
    assert made.start_lr == 0
    assert made.warmup_steps == 5 * made.steps_per_epoch
    assert recipe.schedule.epochs == stated["epochs"]
    assert recipe.optim.layer_decay == stated["decay"]
    assert recipe.encoder.drop_path == stated["path"]
    assert recipe.dropout == stated["dropout"]
    assert recipe.clips.repeats == stated["repeats"]


VIDEOS = [name for name in NAMES if not name.startswith("stmae.") and "in1k" not in name]
IMAGES = [name for name in NAMES if "in1k" in name]


@pytest.mark.parametrize("name", VIDEOS)
def test_what_videomae_s_family_has_in_common(name):
    recipe = find_recipe(name)
    optim, randaugment, mixing = recipe.optim, recipe.clips.randaugment, recipe.mixup
    assert isinstance(optim, AdamWConfig)
    assert (optim.betas, optim.weight_decay, optim.max_grad_norm) == ((0.9, 0.999), 0.05, None)
    assert (randaugment.num_ops, randaugment.magnitude, randaugment.magnitude_std) == (4, 7, 0.5)
    assert (mixing.mixup_alpha, mixing.cutmix_alpha, mixing.switch_probability) == (0.8, 1.0, 0.5)
    assert (recipe.label_smoothing, recipe.random_erasing.probability, recipe.head_scale) == (0.1, 0.25, 1e-3)
    assert (recipe.pooling, recipe.norm, recipe.clips.crop.scale) == ("mean", "fresh", (0.08, 1.0))
    assert recipe.clips.flip_probability == (0 if recipe.clips.dataset == "ssv2" else 0.5)
    assert recipe.schedule.warmup_rule == "videomae"


STMAE = """
                          lr      videos epochs path  dropout decay  repeats warmup
base_k400                 1.6e-2  768    150    0.1   0.3     0.65   2       5
large_k400                4.8e-3  256    100    0.2   0.3     0.75   2       5
huge_k400                 1.6e-3  256    75     0.2   0.5     0.8    1       5
large_ssv2                0.64    256    40     0.2   0.5     0.75   1       3
huge_ssv2                 0.32    256    40     0.2   0.5     0.85   1       3
large_k600                4.8e-3  256    100    0.2   0.3     0.75   2       5
huge_k700                 1.6e-3  256    75     0.2   0.5     0.8    1       5
large_k400_from_k600      8e-4    256    40     0.2   0.3     0.75   2       5
huge_k400_from_k600       8e-4    256    30     0.3   0.5     0.8    1       5
large_k400_40x312         4.8e-3  256    100    0.2   0.3     0.75   2       5
huge_k400_32x312          1.6e-3  256    75     0.2   0.5     0.8    1       5
large_k400_mae_st         4.8e-3  256    100    0.2   0.3     0.75   2       5
"""


@pytest.mark.parametrize(("name", "stated"), list(rows(STMAE)))
def test_st_mae_s_settings_are_those_of_its_tables_5b_and_6b_where_copies_count_as_epochs(name, stated):
    recipe, made = find_recipe(f"stmae.{name}_finetune"), plan(f"stmae.{name}_finetune")
    assert (made.videos_per_step, made.peak_lr) == (stated["videos"], pytest.approx(stated["lr"]))
    assert recipe.schedule.epochs * recipe.clips.repeats == stated["epochs"]
    assert recipe.clips.repeats == stated["repeats"]
    assert made.warmup_steps == stated["warmup"] * made.steps_per_epoch
    assert (recipe.encoder.drop_path, recipe.dropout) == (stated["path"], stated["dropout"])
    assert recipe.optim.layer_decay == stated["decay"]
    sgd = "ssv2" in name
    assert isinstance(recipe.optim, SGDConfig if sgd else AdamWConfig)
    assert recipe.optim.weight_decay == (1e-4 if sgd else 0.05)
    assert (recipe.clips.randaugment.num_ops, recipe.clips.randaugment.magnitude) == (2, 7)
    assert (recipe.mixup.mixup_alpha, recipe.mixup.cutmix_alpha, recipe.label_smoothing) == (0.8, 1.0, 0.1)
    assert (recipe.norm, recipe.optim.max_grad_norm, recipe.clips.flip_probability) == (
        "pretrained",
        5.0,
        0.0 if sgd else 0.5,
    )


@pytest.mark.parametrize(("name", "first", "last"), [("base", 1e-8, 1e-5), ("large", 1e-8, 1e-5), ("huge", 1e-8, 1e-6)])
def test_st_mae_s_rates_begin_and_end_as_pyslowfast_s_configurations_say(name, first, last):
    made = plan(f"stmae.{name}_k400_finetune")
    assert (made.start_lr, made.min_lr) == (pytest.approx(first), pytest.approx(last))


def test_mae_st_s_rates_count_clips_begin_at_0_and_end_at_a_millionth():
    made = plan("stmae.large_k400_mae_st_finetune")
    assert (made.start_lr, made.peak_lr, made.min_lr) == (0, pytest.approx(2.4e-3 * 512 / 256), pytest.approx(1e-6))


IN1K = """
                         lr     epochs warmup decay  path  size
imagemae.base_in1k       2e-3   100    5      0.65   0.1   224
imagemae.large_in1k      4e-3   50     5      0.75   0.2   224
imagemae.huge_in1k       4e-3   50     5      0.75   0.3   224
imagemae.huge_in1k_448   4e-3   50     5      0.75   0.3   448
imagemae.base_in1k_paper 4e-3   100    5      0.75   0.1   224
imagemae.large_in1k_paper 4e-3  50     5      0.75   0.1   224
imagemae.huge_in1k_paper 4e-3   50     5      0.75   0.2   224
dmae.base_in1k           2e-3   100    20     0.75   0.15  224
dmae.small_in1k          2e-3   100    20     0.75   0.15  224
amd.base_in1k            2e-3   100    5      0.65   0.1   224
amd.small_in1k           2e-3   100    5      0.65   0.1   224
mvd.base_in1k            2e-3   100    5      0.65   0.1   224
"""


@pytest.mark.parametrize(("name", "stated"), list(rows(IN1K)))
def test_the_settings_for_images_are_those_of_mae_s_repository_and_dmae_s_script(name, stated):
    recipe, made = find_recipe(f"{name}_finetune"), plan(f"{name}_finetune")
    assert (made.videos_per_step, made.peak_lr, made.min_lr) == (1024, pytest.approx(stated["lr"]), pytest.approx(1e-6))
    assert recipe.schedule.epochs == stated["epochs"]
    assert made.warmup_steps == stated["warmup"] * made.steps_per_epoch
    assert (recipe.optim.layer_decay, recipe.encoder.drop_path) == (stated["decay"], stated["path"])
    assert recipe.clips.size == recipe.views.size == (stated["size"], stated["size"])


@pytest.mark.parametrize("name", IMAGES)
def test_pictures_are_cropped_coloured_and_tested_as_mae_does(name):
    recipe = find_recipe(name)
    clips, views = recipe.clips, recipe.views
    assert (clips.randaugment.num_ops, clips.randaugment.magnitude, clips.randaugment.magnitude_std) == (2, 9, 0.5)
    assert (clips.randaugment.fill, clips.randaugment_stage) == ((124, 116, 104), "crop")
    assert (clips.crop.scale, clips.crop.interpolation, clips.flip_probability) == ((0.08, 1.0), "bicubic", 0.5)
    side = clips.size[0]
    assert (views.temporal_clips, views.spatial_crops, views.interpolation) == (1, 1, "bicubic")
    assert views.short_side == (256 if side == 224 else side)
    assert (recipe.mixup.mixup_alpha, recipe.mixup.cutmix_alpha, recipe.label_smoothing) == (0.8, 1.0, 0.1)
    assert (recipe.random_erasing.probability, recipe.optim.weight_decay, recipe.optim.betas) == (
        0.25,
        0.05,
        (0.9, 0.999),
    )


def test_each_family_has_its_own_rule_of_frames_on_ssv2():
    rules = {name.split(".")[0]: find_recipe(name).clips.sampling.rule for name in NAMES if "_ssv2" in name}
    assert rules == {
        "amd": "amd",
        "dmae": "amd",
        "maskagain": "videomae",
        "mvd": "mvd",
        "stmae": "mvd",
        "videomae": "videomae",
    }


# ---- Results --------------------------------------------------------------------------------------------------------

RESULTS = {  # sections 10.1 to 10.4: top-1, with top-5 where there is one
    "videomae.small_k400": "79.0 93.8",
    "videomae.base_k400_800e": "80.0 94.4 81.0 94.8",
    "videomae.base_k400": "81.5 95.1",
    "videomae.large_k400": "85.2 96.8",
    "videomae.huge_k400": "86.6 97.1",
    "videomae.large_k400_320": "86.1 97.3",
    "videomae.huge_k400_320": "87.4 97.6",
    "videomae.small_ssv2": "66.8 90.3 66.4",
    "videomae.base_ssv2_800e": "69.6 92.0",
    "videomae.base_ssv2": "70.8 92.4 68.5 69.7",
    "videomae.large_ssv2": "74.3 94.6",
    "videomae.large_ssv2_32f": "75.4 95.2",
    "videomae.base_ucf101": "91.3 98.5 96.1",
    "videomae.base_hmdb51": "62.6 73.3",
    "mvd.small_k400": "80.6 94.7 81.0 94.8",
    "mvd.base_k400": "82.7 95.4 83.4 95.8",
    "mvd.large_k400": "86.0 96.9 86.4 97.0",
    "mvd.huge_k400": "87.3 97.4",
    "mvd.small_ssv2": "70.7 92.6 70.9 92.8",
    "mvd.base_ssv2": "72.5 93.6 73.7 94.0",
    "mvd.large_ssv2": "76.1 95.4 76.7 95.5",
    "mvd.huge_ssv2": "77.3 95.7",
    "mvd.base_ucf101": "97.0 97.5",
    "mvd.base_hmdb51": "76.4 79.7",
    "mvd.base_in1k": "84.0",
    "amd.small_k400": "80.1 94.5",
    "amd.base_k400": "82.2 95.3",
    "amd.small_ssv2": "70.2 92.5",
    "amd.base_ssv2": "73.3 94.0 72.6",
    "amd.base_ucf101": "97.1",
    "amd.base_hmdb51": "79.6",
    "amd.small_in1k": "82.1",
    "amd.base_in1k": "84.6",
    "dmae.base_k400": "80.8 94.6",
    "dmae.base_ssv2": "70.0 92.5",
    "dmae.small_in1k": "79.3",
    "dmae.base_in1k": "84.0",
    "maskagain.small_k400": "78.7 93.6",
    "maskagain.base_k400": "81.0 94.6",
    "maskagain.small_ssv2": "66.7",
    "maskagain.base_ssv2": "70.3",
    "maskagain.small_ucf101": "92.9 92.7",
    "maskagain.base_ucf101": "96.3 96.2 89.8 98.2",
    "maskagain.small_hmdb51": "72.0",
    "maskagain.base_hmdb51": "77.1",
    "stmae.base_k400": "81.3 94.9",
    "stmae.large_k400": "84.8 96.2 84.4",
    "stmae.huge_k400": "85.1 96.6",
    "stmae.large_k400_40x312": "85.8 96.9",
    "stmae.huge_k400_32x312": "86.0 97.0",
    "stmae.large_k400_from_k600": "86.5 97.2",
    "stmae.huge_k400_from_k600": "86.8 97.2",
    "stmae.large_ssv2": "72.1 73.0 73.6 93.9 94.2 94.4",
    "stmae.huge_ssv2": "74.1 75.2 75.5 94.5 94.9 95.0",
    "stmae.large_k400_mae_st": "84.35",
    "imagemae.base_in1k": "83.6",
    "imagemae.large_in1k": "85.9",
    "imagemae.huge_in1k": "86.9",
    "imagemae.huge_in1k_448": "87.8",
}


@pytest.mark.parametrize("name", RESULTS)
def test_the_published_results_are_what_it_is_said_to_reach(name):
    stated = re.findall(r"\d\d\.\d+", find_recipe(f"{name}_finetune").published_result)
    assert [number for number in RESULTS[name].split() if number not in stated] == []


def test_every_fine_tuning_that_has_a_result_is_in_the_tables_above():
    with_result = {
        name.removesuffix("_finetune")
        for name in NAMES
        if not find_recipe(name).published_result.startswith("no result")
    }
    assert with_result - RESULTS.keys() == {"stmae.ablation_finetune_mask_50", "stmae.ablation_finetune_mask_75"}
