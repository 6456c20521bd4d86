"""Every fine-tuning's settings and its results, against the tables of papers and scripts."""

import re

import pytest
from recipe_plans import FINETUNINGS as NAMES
from recipe_plans import plan

from vidstill.engine.optimizer import AdamWConfig, SGDConfig
from vidstill.recipes.recipe import find_recipe


def rows(table):
    """Yield a recipe's name and its numbers by column; the last ones are the results that it has to state.

    What is indented goes on with the row above.
    """
    lines = table.strip("\n").replace("\n    ", " ").splitlines()
    head, *lines = [line.split() for line in lines if not line.startswith("#")]
    for name, *numbers in lines:
        columns = dict(zip(head[:-1], map(float, numbers), strict=False))
        recipe = name if "_finetune" in name else f"{name}_finetune"
        yield pytest.param(recipe, columns, numbers[len(columns) :], id=name)


def check_results(recipe, results):
    """The numbers that a recipe states are those of its row, in any order; one without any says so."""
    is_quoted = not recipe.published_result.startswith("no result")
    assert bool(results) == is_quoted
    assert not is_quoted or sorted(re.findall(r"\b\d\d\.\d+", recipe.published_result)) == sorted(results)


# ---- VideoMAE and the methods that follow it ------------------------------------------------------------------------

VIDEOMAE = """
                        lr       videos  epochs decay  path   dropout  min_lr  repeats  results
# VideoMAE's scripts; HMDB51 is MVD's
videomae.small_k400     5e-4     384     150    0.75   0.1    0        1e-6    2  79.0 93.8
videomae.base_k400_800e 1e-3     512     100    0.75   0.1    0        1e-6    1  80.0 94.4 81.0 94.8
videomae.base_k400      5e-4     384     75     0.75   0.1    0        1e-6    2  81.5 95.1
videomae.large_k400     2e-3     128     35     0.75   0.1    0        1e-6    2  85.2 96.8
videomae.huge_k400      1e-3     512     50     0.75   0.2    0.5      1e-5    2  86.6 97.1
videomae.large_k400_320 2e-3     128     35     0.75   0.1    0        1e-6    2  86.1 97.3
videomae.huge_k400_320  1e-3     512     50     0.75   0.2    0.5      1e-5    2  87.4 97.6
videomae.large_ssv2_32f 5e-4     384     30     0.75   0.1    0        1e-6    2  75.4 95.2
videomae.small_ssv2     1e-3     384     40     0.7    0.1    0        1e-6    2  66.8 90.3 66.4
videomae.base_ssv2_800e 5e-4     512     50     0.75   0.1    0        1e-6    1  69.6 92.0
videomae.base_ssv2      5e-4     384     30     0.75   0.1    0        1e-6    2  70.8 92.4 68.5 69.7
videomae.large_ssv2     5e-4     384     30     0.75   0.1    0        1e-6    2  74.3 94.6
videomae.base_ucf101    5e-4     128     100    0.7    0.2    0.5      1e-5    2  91.3 98.5 96.1
videomae.base_hmdb51    1e-3     128     50     0.7    0.2    0.5      1e-6    2  62.6 73.3
# MVD's scripts, and its appendix
mvd.small_k400          5e-4     384     150    0.75   0.1    0        1e-6    2  80.6 94.7 81.0 94.8
mvd.small_k400_paper    1e-3     512     150    0.75   0.1    0        1e-6    2
mvd.base_k400           5e-4     384     75     0.75   0.1    0        1e-6    2  82.7 95.4 83.4 95.8
mvd.base_k400_paper     1e-3     512     75     0.75   0.1    0        1e-6    2
mvd.large_k400          1e-3     512     50     0.75   0.3    0.5      1e-6    2  86.0 96.9 86.4 97.0
mvd.huge_k400           1e-3     256     50     0.75   0.3    0.5      1e-6    2  87.3 97.4
mvd.huge_k400_paper     1e-3     512     50     0.75   0.3    0.5      1e-6    2
mvd.small_ssv2          1e-3     384     40     0.7    0.1    0        1e-6    2  70.7 92.6 70.9 92.8
mvd.small_ssv2_paper    1e-3     512     40     0.7    0.1    0        1e-6    2
mvd.base_ssv2           5e-4     384     30     0.75   0.1    0        1e-6    2  72.5 93.6 73.7 94.0
mvd.base_ssv2_paper     5e-4     512     30     0.75   0.1    0        1e-6    2
mvd.large_ssv2          5e-4     256     30     0.75   0.3    0.5      1e-6    2  76.1 95.4 76.7 95.5
mvd.large_ssv2_paper    5e-4     512     30     0.75   0.3    0.5      1e-6    2
mvd.huge_ssv2           5e-4     128     30     0.75   0.3    0.5      1e-5    2  77.3 95.7
mvd.huge_ssv2_paper     5e-4     512     30     0.75   0.3    0.5      1e-5    2
mvd.base_ucf101         5e-4     128     100    0.7    0.2    0.5      1e-6    2  97.0 97.5
mvd.base_hmdb51         1e-3     128     50     0.7    0.2    0.5      1e-6    2  76.4 79.7
# AMD's scripts; UCF101 and HMDB51 are MVD's. DMAE on videos is AMD's
amd.base_k400           7e-4     512     90     0.75   0.1    0        1e-6    2  82.2 95.3
amd.small_k400          1e-3     256     150    0.75   0.1    0        1e-6    2  80.1 94.5
amd.base_ssv2           5e-4     256     30     0.75   0.1    0        1e-6    2  73.3 94.0 72.6
amd.small_ssv2          1e-3     256     40     0.75   0.1    0        1e-6    2  70.2 92.5
amd.base_ucf101         5e-4     128     100    0.7    0.2    0.5      1e-6    2  97.1
amd.base_hmdb51         1e-3     128     50     0.7    0.2    0.5      1e-6    2  79.6
dmae.base_k400          7e-4     512     90     0.75   0.1    0        1e-6    2  80.8 94.6
dmae.base_ssv2          5e-4     256     30     0.75   0.1    0        1e-6    2  70.0 92.5
# MaskAgain's table 8
maskagain.small_k400    1e-3     256     150    0.75   0.1    0        1e-5    2  78.7 93.6
maskagain.base_k400     1e-3     256     75     0.75   0.1    0        1e-5    2  81.0 94.6
maskagain.small_ucf101  5e-4     128     100    0.7    0.2    0.5      1e-5    2  92.9 92.7 99.6
maskagain.base_ucf101   5e-4     128     100    0.7    0.2    0.5      1e-5    2  96.3 96.2 99.6 89.8 98.2
maskagain.small_hmdb51  1e-3     128     50     0.7    0.2    0.5      1e-5    2  72.0 91.1
maskagain.base_hmdb51   1e-3     128     50     0.7    0.2    0.5      1e-5    2  77.1 94.1
maskagain.small_ssv2    1e-3     256     40     0.7    0.1    0.5      1e-5    2  66.7
maskagain.base_ssv2     5e-4     128     40     0.75   0.1    0.5      1e-5    2  70.3
maskagain.small_hmdb51_paper 1e-3 128    50     0.7    0.2    0.5      1e-5    2
maskagain.ablation      5e-4     16      50     0.7    0.2    0.5      1e-5    2
"""


@pytest.mark.parametrize(("name", "expected", "results"), list(rows(VIDEOMAE)))
def test_the_settings_of_videomaes_family_are_those_of_scripts_and_tables(name, expected, results):
    recipe, run = find_recipe(name), plan(name)
    assert run.videos_per_step == expected["videos"]
    assert run.peak_lr == pytest.approx(expected["lr"] * expected["videos"] / 256)
    assert run.min_lr == pytest.approx(expected["min_lr"] * expected["videos"] / 256)
    assert (run.start_lr, run.warmup_steps) == (0, 5 * run.steps_per_epoch)
    assert recipe.schedule.epochs == expected["epochs"]
    assert recipe.optim.layer_decay == expected["decay"]
    assert (recipe.encoder.drop_path, recipe.dropout) == (expected["path"], expected["dropout"])
    assert recipe.clips.repeats == expected["repeats"]
    check_results(recipe, results)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("stmae.") and "in1k" not in name])
def test_the_common_settings_of_videomaes_family(name):
    recipe = find_recipe(name)
    optim, randaugment, mixup = recipe.optim, recipe.clips.randaugment, recipe.mixup
    assert isinstance(optim, AdamWConfig)
    assert (optim.betas, optim.weight_decay, optim.max_grad_norm) == ((0.9, 0.999), 0.05, None)
    assert (randaugment.num_ops, randaugment.magnitude, randaugment.magnitude_std) == (4, 7, 0.5)
    assert (mixup.mixup_alpha, mixup.cutmix_alpha, mixup.switch_probability) == (0.8, 1.0, 0.5)
    assert (recipe.label_smoothing, recipe.random_erasing.probability, recipe.head_scale) == (0.1, 0.25, 1e-3)
    assert (recipe.pooling, recipe.norm, recipe.clips.crop.scale) == ("mean", "fresh", (0.08, 1.0))
    assert recipe.clips.flip_probability == (0 if recipe.clips.dataset == "ssv2" else 0.5)
    assert recipe.schedule.warmup_rule == "videomae"


# ---- ST-MAE: tables 5b and 6b; the paper's epochs count copies ------------------------------------------------------

STMAE = """
                                lr      videos epochs path  dropout decay  repeats warmup  results
stmae.base_k400                 1.6e-2  768    150    0.1   0.3     0.65   2       5  81.3 94.9
stmae.large_k400                4.8e-3  256    100    0.2   0.3     0.75   2       5  84.8 96.2 84.4 84.9
stmae.huge_k400                 1.6e-3  256    75     0.2   0.5     0.8    1       5  85.1 96.6
stmae.large_ssv2                0.64    256    40     0.2   0.5     0.75   1       3  72.1 73.0 73.6 93.9 94.2 94.4
    72.6 73.1 73.7
stmae.huge_ssv2                 0.32    256    40     0.2   0.5     0.85   1       3  74.1 75.2 75.5 94.5 94.9 95.0
stmae.large_k600                4.8e-3  256    100    0.2   0.3     0.75   2       5
stmae.huge_k600                 1.6e-3  256    75     0.2   0.5     0.8    1       5
stmae.large_k700                4.8e-3  256    100    0.2   0.3     0.75   2       5
stmae.huge_k700                 1.6e-3  256    75     0.2   0.5     0.8    1       5
stmae.large_k400_from_k600      8e-4    256    40     0.2   0.3     0.75   2       5  86.5 97.2
stmae.huge_k400_from_k600       8e-4    256    30     0.3   0.5     0.8    1       5  86.8 97.2
stmae.large_k400_40x312         4.8e-3  256    100    0.2   0.3     0.75   2       5  85.8 96.9
stmae.huge_k400_32x312          1.6e-3  256    75     0.2   0.5     0.8    1       5  86.0 97.0
stmae.large_k400_mae_st         4.8e-3  256    100    0.2   0.3     0.75   2       5  84.35
stmae.ablation_finetune_mask_50 4.8e-3  256    100    0.2   0.3     0.75   2       5  84.1
stmae.ablation_finetune_mask_75 4.8e-3  256    100    0.2   0.3     0.75   2       5  83.8
"""


@pytest.mark.parametrize(("name", "expected", "results"), list(rows(STMAE)))
def test_st_maes_settings_are_those_of_its_tables(name, expected, results):
    recipe, run = find_recipe(name), plan(name)
    assert (run.videos_per_step, run.peak_lr) == (expected["videos"], pytest.approx(expected["lr"]))
    assert recipe.schedule.epochs * recipe.clips.repeats == expected["epochs"]
    assert recipe.clips.repeats == expected["repeats"]
    assert run.warmup_steps == expected["warmup"] * run.steps_per_epoch
    assert (recipe.encoder.drop_path, recipe.dropout) == (expected["path"], expected["dropout"])
    assert recipe.optim.layer_decay == expected["decay"]
    sgd = "ssv2" in name
    assert isinstance(recipe.optim, SGDConfig if sgd else AdamWConfig)
    assert (recipe.optim.weight_decay, recipe.optim.max_grad_norm) == (1e-4 if sgd else 0.05, 5.0)
    assert (recipe.clips.randaugment.num_ops, recipe.clips.randaugment.magnitude) == (2, 7)
    assert (recipe.mixup.mixup_alpha, recipe.mixup.cutmix_alpha, recipe.label_smoothing) == (0.8, 1.0, 0.1)
    assert (recipe.norm, recipe.clips.flip_probability) == ("pretrained", 0.0 if sgd else 0.5)
    check_results(recipe, results)


@pytest.mark.parametrize(
    ("name", "start_lr", "peak_lr", "min_lr"),
    [  # PySlowFast's configurations; mae_st counts clips
        ("base_k400", 1e-8, 1.6e-2, 1e-5),
        ("large_k400", 1e-8, 4.8e-3, 1e-5),
        ("huge_k400", 1e-8, 1.6e-3, 1e-6),
        ("large_k400_mae_st", 0, 2.4e-3 * 512 / 256, 1e-6),
    ],
)
def test_st_maes_learning_rates_start_and_end_as_the_code_says(name, start_lr, peak_lr, min_lr):
    run = plan(f"stmae.{name}_finetune")
    assert (run.start_lr, run.peak_lr, run.min_lr) == pytest.approx((start_lr, peak_lr, min_lr))


# ---- Images: MAE's repository and DMAE's script ---------------------------------------------------------------------

IN1K = """
                         lr     epochs warmup decay  path  size  results
imagemae.base_in1k       2e-3   100    5      0.65   0.1   224  83.6 83.66 96.53
imagemae.large_in1k      4e-3   50     5      0.75   0.2   224  85.9 85.95 97.57 85.4 85.5
imagemae.huge_in1k       4e-3   50     5      0.75   0.3   224  86.9 86.93 98.09
imagemae.huge_in1k_448   4e-3   50     5      0.75   0.3   448  87.8
imagemae.base_in1k_paper 4e-3   100    5      0.75   0.1   224
imagemae.large_in1k_paper 4e-3  50     5      0.75   0.1   224
imagemae.huge_in1k_paper 4e-3   50     5      0.75   0.2   224
dmae.base_in1k           2e-3   100    20     0.75   0.15  224  84.0
dmae.small_in1k          2e-3   100    20     0.75   0.15  224  79.3
amd.base_in1k            2e-3   100    5      0.65   0.1   224  84.6
amd.small_in1k           2e-3   100    5      0.65   0.1   224  82.1
mvd.base_in1k            2e-3   100    5      0.65   0.1   224  84.0
"""


@pytest.mark.parametrize(("name", "expected", "results"), list(rows(IN1K)))
def test_the_settings_for_images_are_those_of_maes_repository_and_dmaes_script(name, expected, results):
    recipe, run = find_recipe(name), plan(name)
    clips, views = recipe.clips, recipe.views
    lrs = pytest.approx(expected["lr"]), pytest.approx(1e-6)
    assert (run.videos_per_step, run.peak_lr, run.min_lr) == (1024, *lrs)
    assert recipe.schedule.epochs == expected["epochs"]
    assert run.warmup_steps == expected["warmup"] * run.steps_per_epoch
    assert (recipe.optim.layer_decay, recipe.encoder.drop_path) == (expected["decay"], expected["path"])
    side = expected["size"]
    assert clips.size == views.size == (side, side)
    assert (clips.randaugment.num_ops, clips.randaugment.magnitude, clips.randaugment.magnitude_std) == (2, 9, 0.5)
    assert (clips.randaugment.fill, clips.randaugment_stage) == ((124, 116, 104), "crop")
    assert (clips.crop.scale, clips.crop.interpolation, clips.flip_probability) == ((0.08, 1.0), "bicubic", 0.5)
    assert (views.temporal_clips, views.spatial_crops, views.interpolation) == (1, 1, "bicubic")
    assert views.short_side == (256 if side == 224 else side)
    assert (recipe.mixup.mixup_alpha, recipe.mixup.cutmix_alpha, recipe.label_smoothing) == (0.8, 1.0, 0.1)
    assert recipe.random_erasing.probability == 0.25
    assert (recipe.optim.weight_decay, recipe.optim.betas) == (0.05, (0.9, 0.999))
    check_results(recipe, results)


# ---- All ------------------------------------------------------------------------------------------------------------


def test_each_family_has_its_own_rule_of_frames_on_ssv2():
    rules = {name.split(".")[0]: find_recipe(name).clips.sampling.rule for name in NAMES if "_ssv2" in name}
    own = {"amd": "amd", "dmae": "amd", "mvd": "mvd", "stmae": "mvd"}
    assert rules == {"maskagain": "videomae", "videomae": "videomae"} | own


def test_every_fine_tuning_is_in_the_tables_above():
    in_tables = {row.values[0] for table in (VIDEOMAE, STMAE, IN1K) for row in rows(table)}
    assert set(NAMES) - in_tables == {name for name in NAMES if "_released_" in name}  # in test_paper_tables.py


def test_tokens_are_masked_in_the_fine_tunings_of_st_maes_table_11_alone():
    ratios = {name: find_recipe(name).mask_ratio for name in NAMES}
    masked = {name: ratio for name, ratio in ratios.items() if ratio}
    assert masked == {"stmae.ablation_finetune_mask_50": 0.5, "stmae.ablation_finetune_mask_75": 0.75}


CLIPS = {  # frames × stride and side, where they are not 16 × 4 of 224; segments have no stride
    "videomae.large_k400_320": (32, 4, 320),
    "videomae.huge_k400_320": (32, 4, 320),
    "videomae.large_ssv2_32f": (32, None, 224),
    "stmae.large_k400_40x312": (40, 4, 312),
    "stmae.huge_k400_32x312": (32, 4, 312),
    "maskagain.small_hmdb51": (16, 2, 224),
    "imagemae.huge_in1k_448": (1, 1, 448),
}


@pytest.mark.parametrize("name", NAMES)
def test_clips_have_the_published_frames_stride_and_side(name):
    clips, base = find_recipe(name).clips, name.removesuffix("_finetune")
    usual = (1, 1, 224) if "in1k" in name else (16, None if "ssv2" in name else 4, 224)
    frames, stride, side = CLIPS.get(base, usual)
    assert (clips.sampling.num_frames, getattr(clips.sampling, "stride", None)) == (frames, stride)
    assert clips.size == (side, side)
