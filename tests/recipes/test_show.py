"""A recipe in print: what is shown can be typed, and says where the numbers are from."""

import ast
import importlib
import inspect
import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
from recipe_plans import ablations_slowly

from vidstill.cli.main import main
from vidstill.cli.options import RecipeOptions, apply_options, parse_recipe_options
from vidstill.pipelines.train.run_config import RunConfig
from vidstill.recipes.recipe import find_recipe, load_recipes
from vidstill.recipes.show import format_options, read_recipe_source, read_recipe_sources
from vidstill.utils.types import InputError

SIBLINGS = {
    "vidstill.recipes": "",
    "vidstill.recipes.finetuning": "finetuning.",
    "vidstill.recipes.detection": "detection.",
}


def made_of(shown, file):
    """The variables that the shown part of a file makes, of its imports and its siblings' shown parts."""
    made = {}
    for node in ast.parse(inspect.getsource(importlib.import_module(f"vidstill.recipes.{file}"))).body:
        if isinstance(node, ast.ImportFrom) and node.module in SIBLINGS:
            others = {each.name: f"{SIBLINGS[node.module]}{each.name}" for each in node.names}
            made |= {word: SimpleNamespace(**made_of(shown, other)) for word, other in others.items() if other in shown}
        elif isinstance(node, ast.ImportFrom):
            exec(ast.unparse(node), made)
    exec(shown[file], made)
    return {name: value for name, value in made.items() if not name.startswith("__")}


@pytest.mark.parametrize("name", load_recipes())
def test_the_options_of_a_recipe_give_the_recipe(name):
    recipe = find_recipe(name)
    words = ["--data", ""]
    words += [word for option, text in format_options(recipe).items() for word in (option, *shlex.split(text))]
    options = RecipeOptions(types=(type(recipe),), config=recipe)
    _, _, typed = parse_recipe_options(options, RunConfig, words, "vidstill", description="", out=Path())
    assert apply_options(recipe, typed) == recipe


@pytest.mark.parametrize("name", ablations_slowly(load_recipes()))
def test_the_source_that_is_shown_makes_the_recipe(name):
    shown = read_recipe_sources(name)
    assert made_of(shown, next(iter(shown)))[name.split(".")[1]] == find_recipe(name)


def test_the_source_says_first_what_the_file_is():
    assert read_recipe_source("amd.base_k400").startswith('"""AMD')


def test_of_another_paper_s_file_the_lines_that_a_recipe_refers_to_are_shown():
    shown = read_recipe_sources("mvd.base_k400")
    assert list(shown) == ["mvd", "videomae"]
    assert list(read_recipe_sources("amd.base_ucf101_finetune")) == [
        "finetuning.amd",
        "finetuning.mvd",
        "finetuning.videomae",
    ]
    assert shown["videomae"].startswith('"""VideoMAE')
    assert "ADAMW = AdamWConfig(base_lr=1.5e-4" in shown["videomae"]
    assert "base_k400" not in shown["videomae"]


def test_the_comment_that_a_paragraph_begins_with_is_shown_with_each_of_its_recipes():
    assert "# Table 11: " in read_recipe_source("mvd.ablation_per_token_full")
    assert "# Table 11: " in read_recipe_source("mvd.ablation_per_token_masked")
    assert "# Table 13" not in read_recipe_source("mvd.ablation_per_token_masked")


def test_what_another_recipe_is_made_of_is_not_shown():
    assert "ucf101" not in read_recipe_source("videomae.base_k400")


def test_of_a_fine_tuning_the_cost_of_its_model_is_printed_before_the_source(capsys):
    assert main(["recipes", "--show", "videomae.base-ucf101-finetune"]) == 0
    words, cost, text = capsys.readouterr().out.split("\n\n")[:3]
    assert words.startswith("--encoder.dim")
    assert dict(line.split(maxsplit=1) for line in cost.splitlines()) == {
        "classes": "101",
        "parameters_millions": "86.3",
        "gflops_per_view": "180.3",
        "temporal_clips": "5",
        "spatial_crops": "3",
        "published_result": "UCF101 top-1 91.3, top-5 98.5 (5 × 3 views); from K400: 96.1",
    }
    assert text.startswith('"""VideoMAE')
    assert main(["recipes", "--show", "videomae.base-ucf101-finetune", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["cost"]["gflops_per_view"] == 180.3
    assert shown["schedule"]["epochs"] == 100


def test_of_a_detector_the_cost_of_its_model_is_printed_before_the_source(capsys):
    assert main(["recipes", "--show", "amd.base-ava"]) == 0
    words, cost, text = capsys.readouterr().out.split("\n\n")[:3]
    assert "--views.box-expansion" in words
    assert dict(line.split(maxsplit=1) for line in cost.splitlines()) == {
        "actions": "80",
        "parameters_millions": "86.29",
        "gflops_per_clip": "180.3",
        "published_result": "AVA v2.2 mAP 29.9",
    }
    assert text.startswith('"""AMD')
    assert list(read_recipe_sources("amd.base_ava_labels")) == ["detection.amd", "detection.videomae"]


def test_a_pre_training_has_no_classifier_whose_cost_could_be_shown(capsys):
    assert main(["recipes", "--show", "videomae.base-ucf101", "--json"]) == 0
    assert "cost" not in json.loads(capsys.readouterr().out)


def test_there_is_no_source_of_what_is_not_there():
    with pytest.raises(InputError, match="no recipe"):
        read_recipe_source("amd.huge_k400")
