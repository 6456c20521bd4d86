"""The papers' detectors: their settings, results and costs are those of specification and papers, and they build."""

import importlib
import re
from dataclasses import replace
from functools import cache
from operator import attrgetter

import pytest
import torch
from paths import PROJECT
from recipe_plans import DETECTORS as NAMES
from recipe_plans import plan

from vidstill.data.ava.hsv_jitter import HSVJitter
from vidstill.engine.optimizer import AdamWConfig, SGDConfig
from vidstill.recipes import show
from vidstill.recipes.recipe import NUM_CLASSES, DetectionRecipe, PretrainRecipe, find_recipe, load_recipes
from vidstill.recipes.show import compute_recipe_cost
from vidstill.tasks.detection import BoxJitter
from vidstill.utils.flops import compute_model_cost

RECIPES = {name: find_recipe(name) for name in NAMES}
OF_STMAE = [name for name in NAMES if name.startswith("stmae.")]
OTHERS = [name for name in NAMES if name not in OF_STMAE]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(show, "compute_model_cost", cache(compute_model_cost))


# ---- Settings and results -------------------------------------------------------------------------------------------

SETTINGS = """
# VideoMAE's detection code, section 9 of the specification; MVD and AMD follow it. Learning rate for 256, layer decay,
# epochs, results: section 12, and tables 8 and 10 of ST-MAE
videomae.small_ava         1e-3          0.6    30  22.5
videomae.small_ava_labels  5e-4          0.6    30  28.4
videomae.base_ava          2.5e-4        0.75   30  26.7
videomae.base_ava_labels   5e-4          0.75   30  31.8
videomae.large_ava         2.5e-4        0.75   30  34.3 36.1
videomae.large_ava_labels  5e-4          0.8    20  37.0 39.3
videomae.huge_ava          5e-4          0.8    20  36.5 39.5
mvd.base_ava               2.5e-4        0.75   30  29.3 31.1
mvd.base_ava_labels        5e-4          0.75   30  33.6 34.2
mvd.large_ava              2.5e-4        0.75   30  37.7
mvd.large_ava_labels       5e-4          0.8    20  38.7
mvd.huge_ava               5e-4          0.8    20  40.1 41.1
amd.base_ava               2.5e-4        0.75   30  29.9
amd.base_ava_labels        5e-4          0.75   30  33.5
# ST-MAE's table 6a: 7.2 and 4.8 for 128 key frames
stmae.large_ava            14.4          0.75   30  36.8 35.9 38.4 37.7 39.5 38.4
stmae.huge_ava             9.6           0.85   30  37.4 36.8 40.3 39.2 40.1 39.3
stmae.large_ava_absolute   14.4          0.75   30  32.3 36.8 33.7 37.9 34.2 39.3
"""
ROWS = [line.split() for line in SETTINGS.strip().splitlines() if not line.startswith("#")]


def test_every_detector_has_a_row_of_settings():
    assert sorted(row[0] for row in ROWS) == sorted(NAMES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_learning_rates_epochs_and_results_are_the_published_ones(row):
    name, lr, decay, epochs, *results = row
    recipe, run = RECIPES[name], plan(name)
    assert recipe.optim.layer_decay == float(decay)
    assert (recipe.batch, recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (128, int(epochs), 5)
    assert (run.peak_lr, run.start_lr) == (pytest.approx(float(lr) / 2), 0)
    assert (recipe.encoder.drop_path, recipe.clips.dataset) == (0.2, "ava")
    assert recipe.views.sampling == recipe.clips.sampling
    assert (recipe.clips.sampling.num_frames, recipe.clips.sampling.stride) == (16, 4)
    assert re.findall(r"\b\d\d\.\d\b", recipe.published_result) == results
    assert "AVA v2.2 mAP" in recipe.published_result


@pytest.mark.parametrize("name", OTHERS)
def test_all_but_st_mae_have_the_settings_of_videomaes_detection_code(name):
    recipe, clips, views = RECIPES[name], RECIPES[name].clips, RECIPES[name].views
    assert isinstance(recipe.optim, AdamWConfig)
    assert (recipe.optim.betas, recipe.optim.weight_decay) == ((0.9, 0.999), 0.05)
    assert recipe.optim.max_grad_norm is None
    assert plan(name).min_lr == pytest.approx(5e-7)
    assert [round(255 * each, 4) for each in recipe.encoder.mean] == [122.7717, 115.9465, 102.9801]
    assert [round(255 * each, 4) for each in recipe.encoder.std] == [57.375] * 3
    assert recipe.encoder.learned_grid == (8, 14, 14)
    assert not recipe.encoder.relative_positions
    assert (recipe.aligned, recipe.dropout, recipe.head_scale) == (False, 0, 0.001)
    assert (recipe.edge, recipe.norm, recipe.loss_per, recipe.use_person_scores) == ("pad", "fresh", "clip", True)
    assert (recipe.box_jitter, recipe.matching_rule) == (BoxJitter(max_outward=0.2, max_inward=0.1), "score_order")
    assert (clips.short_side, clips.size, clips.flip_probability) == ((256, 256), (224, 224), 0.5)
    assert (clips.person_boxes, clips.hsv_jitter) == (None, HSVJitter(hue=10, saturation=26, value=26))
    assert (views.short_side, views.crop_size) == (256, None)
    assert (views.min_person_score, views.box_expansion) == (0.8, (0.1, 0.05))
    assert {(one.rule, one.sampling.rule, one.sampling.frame_rate) for one in (clips, views)} == {
        ("videomae", "videomae", 25.0)
    }


@pytest.mark.parametrize("name", OF_STMAE)
def test_st_mae_has_the_settings_of_its_table_and_of_pyslowfast(name):
    recipe, clips, views = RECIPES[name], RECIPES[name].clips, RECIPES[name].views
    assert isinstance(recipe.optim, SGDConfig)
    assert (recipe.optim.momentum, recipe.optim.weight_decay) == (0.9, 1e-8)
    assert (recipe.encoder.mean, recipe.encoder.std) == ((0.45,) * 3, (0.225,) * 3)
    assert recipe.encoder.relative_positions == ("absolute" not in name)
    assert (recipe.aligned, recipe.dropout) == (True, 0.5)
    assert (recipe.edge, recipe.loss_per, recipe.use_person_scores) == ("drop", "box", False)
    assert (recipe.box_jitter, recipe.matching_rule, clips.hsv_jitter) == (None, "file_order", None)
    assert (clips.short_side, clips.short_side_sampling) == ((256, 320), "inverse_uniform")
    assert (clips.size, clips.flip_probability) == ((224, 224), 0.5)
    assert clips.person_boxes.min_score == views.min_person_score == 0.8
    assert clips.person_boxes.min_iou is None
    assert (views.short_side, views.crop_size, views.box_expansion) == (224, None, (0.0, 0.0))
    assert {(one.rule, one.sampling.rule, one.sampling.frame_rate) for one in (clips, views)} == {
        ("slowfast", "slowfast", 30.0)
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_has_the_encoder_of_its_familys_pre_trainings_and_fine_tunings(name):
    """But for the colours, resized position embeddings and relative positions of the detection code."""
    size, encoder = name.partition("_")[0], RECIPES[name].encoder
    others = [
        recipe.method.encoder if isinstance(recipe, PretrainRecipe) else recipe.encoder
        for other, recipe in load_recipes().items()
        if not isinstance(recipe, DetectionRecipe) and other.startswith(f"{size}_k400") and "_ablation" not in other
    ]
    assert others
    shape = attrgetter("dim", "depth", "heads", "tubelet", "class_token", "attention_bias", "positions")
    assert {shape(other) for other in others} == {shape(encoder)}


def test_a_recipe_for_encoders_that_were_fine_tuned_has_its_own_optimizer_and_schedule_only():
    for name in NAMES:
        if name.endswith("_labels"):
            other = RECIPES[name.removesuffix("_labels")]
            changes = {"optim": other.optim, "schedule": other.schedule, "published_result": ""}
            assert replace(RECIPES[name], **changes) == replace(other, published_result="")


# ---- What a recipe is made of ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_is_built_of_a_recipe_without_any_memory(name):
    with torch.device("meta"):
        model = RECIPES[name].build_detector_config(60).build()
    assert model.head.out_features == 60
    assert model.head.weight.is_meta
    assert model.encoder.config.drop_remainder == (name in OF_STMAE)


# ---- Cost: columns "GFLOPs" and "params M" --------------------------------------------------------------------------

COLUMNS = {"small": (22, 57), "base": (87, 180), "large": (305, 597), "huge": (633, 1192)}
COLUMNS_OF_STMAE = {"large": (304, 598), "huge": (632, 1193)}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_work_are_the_published_columns(name):
    """Papers print the classifier of 400 classes; and ST-MAE the encoder before relative positions came in."""
    recipe, size = RECIPES[name], name.split(".")[1].split("_")[0]
    millions, gflops = (COLUMNS_OF_STMAE if name in OF_STMAE else COLUMNS)[size]
    plain = replace(recipe, encoder=replace(recipe.encoder, relative_positions=False))
    cost = compute_recipe_cost(plain)
    more = (400 - NUM_CLASSES["ava"]) * (recipe.encoder.dim + 1) / 1e6
    assert abs(cost["parameters_millions"] + more - millions) < 1  # some are rounded, others up
    assert abs(cost["gflops_per_clip"] - gflops) < 0.5 + 1e-3 * gflops


@pytest.mark.parametrize("name", ["videomae.small_ava", "mvd.base_ava", "stmae.large_ava"])
def test_the_printed_parameters_are_the_detectors(name):
    recipe = RECIPES[name]
    with torch.device("meta"):
        model = recipe.build_detector_config(80).build()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    cost = compute_recipe_cost(recipe)
    assert cost["actions"] == 80
    assert cost["parameters_millions"] == pytest.approx(parameters / 1e6, rel=5e-4)


def test_relative_positions_are_a_table_a_block_and_an_axis():
    cost, plain = (compute_recipe_cost(RECIPES[f"stmae.{name}"]) for name in ("large_ava", "large_ava_absolute"))
    tables = 24 * 64 * (2 * 14 - 1 + 2 * 14 - 1 + 2 * 8 - 1)
    assert cost["parameters_millions"] - plain["parameters_millions"] == pytest.approx(tables / 1e6, abs=0.06)
    assert cost["gflops_per_clip"] > plain["gflops_per_clip"]


def test_the_cost_of_a_detector_for_data_that_are_no_papers_has_no_head():
    recipe = RECIPES["videomae.small_ava"]
    cost = compute_recipe_cost(replace(recipe, clips=replace(recipe.clips, dataset="own")))
    assert cost["actions"] is None
    assert cost["parameters_millions"] == pytest.approx((21_910_736 - 80 * 385) / 1e6, rel=5e-4)


def test_the_table_of_detectors_has_every_recipe(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "scripts")
    table = importlib.import_module("finetuning_table").format_detector_table()
    assert [re.match(r"\| `(.+?)` ", line)[1] for line in table.splitlines()[2:]] == NAMES
    assert re.search(r"`stmae.huge_ava`.* \| 4.8 \| 0.85 \|", table)
