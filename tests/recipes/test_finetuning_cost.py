"""The cost and the views of every fine-tuning, against the papers' columns and the page that lists them."""

import importlib
import math
import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from paths import PROJECT
from recipe_plans import FINETUNINGS as NAMES

from vidstill.models.vit import ViTConfig
from vidstill.recipes import show
from vidstill.recipes.recipe import NUM_CLASSES, find_recipe
from vidstill.recipes.show import compute_recipe_cost
from vidstill.utils.flops import ModelCost, compute_model_cost


@cache
def count_cost(model, num_frames, size) -> ModelCost:
    return compute_model_cost(model, num_frames=num_frames, size=size)


def quick_cost(config, *, num_frames, size) -> ModelCost:
    """As `compute_model_cost`, called once for all models that differ only in their heads or in nothing counted."""
    if isinstance(config, ViTConfig):
        return count_cost(config, num_frames, size)
    model = replace(config, num_classes=400, encoder=replace(config.encoder, drop_path=0.0), dropout=0.0)
    cost = count_cost(replace(model, weight_init="normal", norm="fresh"), num_frames, size)
    more, dim = config.num_classes - 400, config.encoder.dim
    return ModelCost(cost.num_parameters + more * (dim + 1), cost.multiply_adds + more * dim)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    monkeypatch.setattr(show, "compute_model_cost", quick_cost)


def cost_of(recipe) -> ModelCost:
    model = recipe.build_classifier_config(NUM_CLASSES[recipe.clips.dataset])
    return quick_cost(model, num_frames=recipe.views.sampling.num_frames, size=recipe.views.size)


def products(encoder, frames, size):
    """Multiply-adds as the papers count: depth · (12 · N · D² + 2 · N² · D) + n · D · pixels; N has the class token."""
    sides = zip((frames, *size), encoder.tubelet, strict=True)
    patches = math.prod(side // step for side, step in sides)
    tokens = patches + encoder.class_token
    blocks = encoder.depth * (12 * tokens * encoder.dim**2 + 2 * tokens**2 * encoder.dim)
    return blocks + patches * encoder.dim * 3 * math.prod(encoder.tubelet)


# ---- Cost: columns "GF × views" and "params M" ----------------------------------------------------------------------

SIZES = {"small": (22, 57), "base": (87, 180), "large": (305, 597), "huge": (633, 1192)}
COLUMNS = [  # section 10.1's table, row by row: millions, 10⁹ multiply-adds a view, views of 3 crops each
    *((f"videomae.{size}_k400_finetune", *SIZES[size], 5) for size in SIZES),
    *((f"mvd.{size}_k400_finetune", *SIZES[size], 5) for size in SIZES),
    *((f"amd.{size}_k400_finetune", *SIZES[size], 5) for size in ("small", "base")),
    *((f"maskagain.{size}_k400_finetune", *SIZES[size], 5) for size in ("small", "base")),
    ("dmae.base_k400_finetune", *SIZES["base"], 5),
    ("videomae.large_k400_320_finetune", 305, 3958, 4),
    ("videomae.huge_k400_320_finetune", 633, 7397, 4),
    ("stmae.base_k400_finetune", 87, 180, 7),
    ("stmae.large_k400_finetune", 304, 598, 7),
    ("stmae.huge_k400_finetune", 632, 1193, 7),
    ("stmae.large_k400_40x312_finetune", None, 4757, 7),
    ("stmae.huge_k400_32x312_finetune", None, 6382, 7),
    ("stmae.large_k400_from_k600_finetune", None, None, 7),
    ("stmae.huge_k400_from_k600_finetune", None, None, 7),
]


@pytest.mark.parametrize(("name", "millions", "gflops", "views"), COLUMNS)
def test_parameters_work_and_views_are_the_published_columns(name, millions, gflops, views):
    recipe = find_recipe(name)
    cost = cost_of(recipe)
    assert (recipe.views.temporal_clips, recipe.views.spatial_crops) == (views, 3)
    if millions is not None:  # some are rounded, others up: 304.27 is printed as 305
        assert abs(cost.parameter_millions - millions) < 1
    if gflops is not None:  # printed in whole numbers, of counts that have up to a thousandth more than the formula
        assert abs(cost.gflops - gflops) < 0.5 + 1e-3 * gflops


PROTOCOLS = {"ssv2": (2, 3), "ucf101": (5, 3), "hmdb51": (5, 3), "kinetics400": (5, 3), "imagenet": (1, 1)}
OTHERS = {  # families and recipes with views of their own
    "stmae.large_ssv2": (1, 3),
    "stmae.huge_ssv2": (1, 3),
    "stmae.large_k400_mae_st": (10, 3),
    "videomae.large_k400_320": (4, 3),
    "videomae.huge_k400_320": (4, 3),
    "videomae.large_ssv2_32f": (1, 3),
    "maskagain.small_hmdb51": (10, 3),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_costs_what_the_formula_says_and_is_tested_on_the_views_of_its_data_and_family(name):
    recipe = find_recipe(name)
    views, published = recipe.views, re.findall(r"\((\d+) × (\d+) views\)|\((1) view\)", recipe.published_result)
    expected = (7, 3) if name.startswith("stmae.") else PROTOCOLS[recipe.clips.dataset]
    protocol = OTHERS.get(name.removesuffix("_finetune"), expected)
    assert (views.temporal_clips, views.spatial_crops) == protocol
    assert all((int(clips or one), int(crops or one)) == protocol for clips, crops, one in published)
    multiply_adds = products(recipe.encoder, views.sampling.num_frames, views.size)
    assert cost_of(recipe).multiply_adds == pytest.approx(multiply_adds, rel=1e-4)


# ---- What `recipes --show` prints -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # as the authors' models count, with heads of 400, 174 and 1000 classes
        ("videomae.small_k400_finetune", 22_033_936),
        ("videomae.huge_k400_finetune", 632_119_440),
        ("videomae.small_ssv2_finetune", 21_946_926),
        ("videomae.large_ssv2_finetune", 304_039_086),
        ("stmae.base_k400_finetune", 86_702_224),
        ("imagemae.base_in1k_finetune", 86_567_656),
    ],
)
def test_parameters_are_counted_with_the_head_of_the_data_set(name, parameters, monkeypatch):
    monkeypatch.setattr(show, "compute_model_cost", compute_model_cost)
    assert cost_of(find_recipe(name)).num_parameters == parameters
    assert compute_recipe_cost(find_recipe(name))["parameters_millions"] == pytest.approx(parameters / 1e6, rel=5e-4)


def test_the_cost_of_a_fine_tuned_model_has_its_views_and_published_result():
    recipe = find_recipe("videomae.small_ssv2_finetune")
    cost = compute_recipe_cost(recipe)
    assert cost["gflops_per_view"] == pytest.approx(products(recipe.encoder, 16, (224, 224)) / 1e9, rel=5e-4)
    assert (cost["classes"], cost["temporal_clips"], cost["spatial_crops"]) == (174, 2, 3)
    assert cost["published_result"] == recipe.published_result


def test_the_cost_of_a_model_for_data_that_are_no_papers_has_no_head():
    recipe = find_recipe("quickstart.finetune")
    with torch.device("meta"):
        model = recipe.build_classifier_config(8).build()
    headless = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in model.head.parameters())
    cost = compute_recipe_cost(recipe)
    assert cost["classes"] is None
    assert cost["parameters_millions"] == pytest.approx(headless / 1e6, rel=1e-3)


def test_the_page_has_the_tables_that_the_script_makes_of_the_recipes(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "scripts")
    script = importlib.import_module("finetuning_table")
    for page, make in script.TABLES.items():
        assert page.read_text().partition(script.START)[2].partition(script.END)[0] == make()
    assert [name for name in NAMES if f"`{name}`" not in script.format_finetune_tables()] == []
