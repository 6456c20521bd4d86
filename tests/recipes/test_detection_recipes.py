"""The papers' detectors: their settings, results and costs are those of specification and papers, and they build."""

import importlib
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from paths import PROJECT
from recipe_plans import DETECTORS as NAMES
from recipe_plans import plan

from vidstill.engine.optimizer import AdamWConfig, SGDConfig
from vidstill.models.vit import ViTConfig
from vidstill.recipes import show
from vidstill.recipes.recipe import NUM_CLASSES, FinetuneRecipe, PretrainRecipe, find_recipe, load_recipes
from vidstill.recipes.show import compute_recipe_cost
from vidstill.utils.flops import ModelCost, compute_model_cost
from vidstill.utils.types import InputError

HOUSE = PROJECT
RECIPES = {name: find_recipe(name) for name in NAMES}
OF_STMAE = [name for name in NAMES if name.startswith("stmae.")]
OTHERS = [name for name in NAMES if name not in OF_STMAE]


@cache
def counted(encoder, num_frames, size) -> ModelCost:
    return compute_model_cost(encoder, num_frames=num_frames, size=size)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(show, "compute_model_cost", counted)


# ---- Settings -------------------------------------------------------------------------------------------------------

SETTINGS = """
                           rate for 256  decay  epochs
# VideoMAE's detection code, section 9 of the specification; MVD and AMD follow it
videomae.small_ava         1e-3          0.6    30
videomae.small_ava_labels  5e-4          0.6    30
videomae.base_ava          2.5e-4        0.75   30
videomae.base_ava_labels   5e-4          0.75   30
videomae.large_ava         2.5e-4        0.75   30
videomae.large_ava_labels  5e-4          0.8    20
videomae.huge_ava          5e-4          0.8    20
mvd.base_ava               2.5e-4        0.75   30
mvd.base_ava_labels        5e-4          0.75   30
mvd.large_ava              2.5e-4        0.75   30
mvd.large_ava_labels       5e-4          0.8    20
mvd.huge_ava               5e-4          0.8    20
amd.base_ava               2.5e-4        0.75   30
amd.base_ava_labels        5e-4          0.75   30
# ST-MAE's table 6a: 7.2 and 4.8 for 128 key frames
stmae.large_ava            14.4          0.75   30
stmae.huge_ava             9.6           0.85   30
stmae.large_ava_absolute   14.4          0.75   30
"""
ROWS = [line.split() for line in SETTINGS.strip().splitlines()[1:] if not line.startswith("#")]


def test_every_detector_has_a_row_of_settings():
    assert sorted(row[0] for row in ROWS) == sorted(NAMES)


@pytest.mark.parametrize(("name", "rate", "decay", "epochs"), ROWS)
def test_rates_and_epochs_are_the_published_ones(name, rate, decay, epochs):
    recipe, made = RECIPES[name], plan(name)
    assert recipe.optim.layer_decay == float(decay)
    assert (recipe.batch, recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (128, int(epochs), 5)
    assert made.peak_lr == pytest.approx(float(rate) / 2)
    assert made.start_lr == 0
    assert recipe.encoder.drop_path == 0.2
    assert recipe.clips.dataset == "ava"


@pytest.mark.parametrize("name", OTHERS)
def test_all_but_st_mae_have_the_settings_of_videomae_s_detection_code(name):
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
    assert (recipe.box_jitter.max_outward, recipe.box_jitter.max_inward, recipe.matching_rule) == (
        0.2,
        0.1,
        "score_order",
    )
    assert (clips.short_side, clips.size, clips.flip_probability, clips.person_boxes) == (
        (256, 256),
        (224, 224),
        0.5,
        None,
    )
    assert (clips.hsv_jitter.hue, clips.hsv_jitter.saturation, clips.hsv_jitter.value) == (10, 26, 26)
    assert (views.short_side, views.crop_size, views.min_person_score, views.box_expansion) == (
        256,
        None,
        0.8,
        (0.1, 0.05),
    )
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
    assert (clips.short_side, clips.short_side_sampling, clips.size, clips.flip_probability) == (
        (256, 320),
        "inverse_uniform",
        (224, 224),
        0.5,
    )
    assert clips.person_boxes.min_score == views.min_person_score == 0.8
    assert clips.person_boxes.min_iou is None
    assert (views.short_side, views.crop_size, views.box_expansion) == (224, None, (0.0, 0.0))
    assert {(one.rule, one.sampling.rule, one.sampling.frame_rate) for one in (clips, views)} == {
        ("slowfast", "slowfast", 30.0)
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_looks_at_16_frames_four_apart_in_training_and_test(name):
    recipe = RECIPES[name]
    assert recipe.views.sampling == recipe.clips.sampling
    assert (recipe.clips.sampling.frames, recipe.clips.sampling.stride) == (16, 4)


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_has_the_encoder_of_its_family_s_pre_trainings_and_fine_tunings(name):
    """But for what the detection code has of its own: colours, resized codes, relative positions."""
    size, one = name.partition("_")[0], RECIPES[name].encoder
    found = [
        recipe.method.encoder if isinstance(recipe, PretrainRecipe) else recipe.encoder
        for other, recipe in load_recipes().items()
        if isinstance(recipe, PretrainRecipe | FinetuneRecipe)
        and other.startswith(f"{size}_k400")
        and "_ablation" not in other
    ]
    assert found
    for other in found:
        assert (one.dim, one.depth, one.heads, one.tubelet) == (other.dim, other.depth, other.heads, other.tubelet)
        assert (one.class_token, one.attention_bias, one.positions) == (
            *(other.class_token, other.attention_bias, other.positions),
        )


def test_where_settings_are_given_for_a_start_with_labels_there_is_a_recipe_of_its_own():
    for name in NAMES:
        if name.endswith("_labels"):
            without = RECIPES[name.removesuffix("_labels")]
            assert replace(
                RECIPES[name], optim=without.optim, schedule=without.schedule, published_result=""
            ) == replace(without, published_result="")


# ---- Results: the papers' tables ------------------------------------------------------------------------------------

PUBLISHED = {  # section 12 of the specification, and tables 8 and 10 of ST-MAE
    "videomae.small_ava": [22.5],
    "videomae.small_ava_labels": [28.4],
    "videomae.base_ava": [26.7],
    "videomae.base_ava_labels": [31.8],
    "videomae.large_ava": [34.3, 36.1],
    "videomae.large_ava_labels": [37.0, 39.3],
    "videomae.huge_ava": [36.5, 39.5],
    "mvd.base_ava": [29.3, 31.1],
    "mvd.base_ava_labels": [33.6, 34.2],
    "mvd.large_ava": [37.7],
    "mvd.large_ava_labels": [38.7],
    "mvd.huge_ava": [40.1, 41.1],
    "amd.base_ava": [29.9],
    "amd.base_ava_labels": [33.5],
    "stmae.large_ava": [36.8, 35.9, 38.4, 37.7, 39.5, 38.4],
    "stmae.huge_ava": [37.4, 36.8, 40.3, 39.2, 40.1, 39.3],
    "stmae.large_ava_absolute": [32.3, 36.8, 33.7, 37.9, 34.2, 39.3],
}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recipe_expects_is_published(name):
    expects = RECIPES[name].published_result
    assert [float(number) for number in re.findall(r"\b\d\d\.\d\b", expects)] == PUBLISHED[name]
    assert "AVA v2.2 mAP" in expects


# ---- What a recipe is made of ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_is_built_of_a_recipe_without_any_memory(name):
    with torch.device("meta"):
        model = RECIPES[name].build_detector_config(60).build()
    assert model.head.out_features == 60
    assert model.head.weight.is_meta
    assert model.encoder.config.drop_remainder == (name in OF_STMAE)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dropout": 2.0}, "dropout is 2.0; take 0 to 1"),
        ({"seed": -1}, "seed is -1"),
        ({"encoder": ViTConfig(dim=24, depth=1, heads=1, tubelet=(2, 16, 8))}, "needs square tubelets"),
    ],
)
def test_a_recipe_of_no_detector_cannot_be_made(change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(RECIPES["videomae.base_ava"], **change)


@pytest.mark.parametrize("of", ["clips", "views"])
def test_a_recipe_whose_frames_do_not_divide_into_tubelets_cannot_be_made(of):
    recipe = RECIPES["videomae.base_ava"]
    part = getattr(recipe, of)
    with pytest.raises(InputError, match="15 frames does not divide into tubelets of 2; take 14"):
        replace(recipe, **{of: replace(part, sampling=replace(part.sampling, frames=15))})


# ---- Cost: columns "GFLOPs" and "params M" --------------------------------------------------------------------------

COLUMNS = {"small": (22, 57), "base": (87, 180), "large": (305, 597), "huge": (633, 1192)}
COLUMNS_OF_STMAE = {"large": (304, 598), "huge": (632, 1193)}


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_work_are_the_published_columns(name):
    """Papers print the classifier of 400 classes; and ST-MAE the encoder before relative positions came in."""
    recipe, size = RECIPES[name], name.split(".")[1].split("_")[0]
    millions, gflops = (COLUMNS_OF_STMAE if name in OF_STMAE else COLUMNS)[size]
    plain = replace(recipe, encoder=replace(recipe.encoder, relative_positions=False))
    shown = compute_recipe_cost(plain)
    more = (400 - NUM_CLASSES["ava"]) * (recipe.encoder.dim + 1) / 1e6
    assert abs(shown["parameters_millions"] + more - millions) < 1  # some are rounded, others up
    assert abs(shown["gflops_per_clip"] - gflops) < 0.5 + 1e-3 * gflops


@pytest.mark.parametrize("name", ["videomae.small_ava", "mvd.base_ava", "stmae.large_ava"])
def test_parameters_that_are_shown_are_the_detector_s(name):
    recipe = RECIPES[name]
    with torch.device("meta"):
        model = recipe.build_detector_config(80).build()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shown = compute_recipe_cost(recipe)
    assert shown["actions"] == 80
    assert shown["parameters_millions"] == pytest.approx(parameters / 1e6, rel=5e-4)


def test_relative_positions_are_a_table_a_block_and_an_axis():
    shown, plain = (
        compute_recipe_cost(RECIPES["stmae.large_ava"]),
        compute_recipe_cost(RECIPES["stmae.large_ava_absolute"]),
    )
    tables = 24 * 64 * (2 * 14 - 1 + 2 * 14 - 1 + 2 * 8 - 1)
    assert shown["parameters_millions"] - plain["parameters_millions"] == pytest.approx(tables / 1e6, abs=0.06)
    assert shown["gflops_per_clip"] > plain["gflops_per_clip"]


def test_of_data_that_no_paper_has_a_detector_is_shown_without_a_head():
    recipe = RECIPES["videomae.small_ava"]
    shown = compute_recipe_cost(replace(recipe, clips=replace(recipe.clips, dataset="made")))
    assert shown["actions"] is None
    assert shown["parameters_millions"] == pytest.approx((21_910_736 - 80 * 385) / 1e6, rel=5e-4)


def test_the_table_of_detectors_has_every_recipe(monkeypatch):
    monkeypatch.syspath_prepend(HOUSE / "scripts")
    table = importlib.import_module("finetuning_table").format_detector_table()
    assert [re.match(r"\| `(.+?)` ", line)[1] for line in table.splitlines()[2:]] == NAMES
    assert re.search(r"`stmae.huge_ava`.* \| 4.8 \| 0.85 \|", table)
