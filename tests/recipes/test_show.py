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
from vidstill.cli.options import RecipeOptions, parse_recipe_options
from vidstill.pipelines.run_config import RunConfig
from vidstill.recipes.change import change_recipe
from vidstill.recipes.recipe import find_recipe, load_recipes
from vidstill.recipes.show import format_options, read_recipe_sources
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError


def execute_source(sources, file):
    """Return the variables that the source of a file makes, of its imports and of the sources of other files."""
    variables = {}
    for node in ast.parse(inspect.getsource(importlib.import_module(f"vidstill.recipes.{file}"))).body:
        if isinstance(node, ast.ImportFrom) and node.module == "vidstill.recipes":
            families = {each.name for each in node.names} & sources.keys()
            variables |= {family: SimpleNamespace(**execute_source(sources, family)) for family in families}
        elif isinstance(node, ast.ImportFrom):
            exec(ast.unparse(node), variables)
    exec(sources[file], variables)
    return {name: value for name, value in variables.items() if not name.startswith("__")}


@pytest.mark.parametrize("name", load_recipes())
def test_the_options_of_a_recipe_give_the_recipe(name):
    recipe = find_recipe(name)
    argv = ["--data", ""]
    argv += [text for option, value in format_options(recipe).items() for text in (option, *shlex.split(value))]
    options = RecipeOptions(types=(type(recipe),), config=recipe)
    _, _, typed = parse_recipe_options(options, RunConfig, argv, "vidstill", description="", out=Path())
    assert change_recipe(recipe, typed) == recipe


@pytest.mark.parametrize("name", ablations_slowly(load_recipes()))
def test_the_source_that_is_shown_makes_the_recipe(name):
    family, variant = name.split(".")
    assert execute_source(read_recipe_sources(name), family)[variant] == find_recipe(name)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("mvd.base_k400", ["mvd", "videomae"]),
        ("amd.base_ucf101_finetune", ["amd", "mvd", "videomae"]),
        ("amd.base_ava_labels", ["amd", "videomae"]),
    ],
)
def test_of_another_papers_file_the_lines_that_a_recipe_refers_to_are_shown(name, files):
    sources = read_recipe_sources(name)
    assert list(sources) == files
    assert sources["videomae"].startswith('"""VideoMAE')
    assert ("ADAMW = AdamWConfig(base_lr=1.5e-4" in sources["videomae"]) == (name == "mvd.base_k400")
    assert "base_k400" not in sources["videomae"]


@pytest.mark.parametrize(
    ("name", "included", "excluded"),
    [  # the docstring, and the comment that begins a paragraph; nothing of other recipes
        ("videomae.base_k400", '"""VideoMAE', "ucf101"),
        ("mvd.ablation_per_token_full", "# Table 11: ", "# Table 13"),
        ("mvd.ablation_per_token_masked", "# Table 11: ", "# Table 13"),
    ],
)
def test_the_source_has_the_comments_of_the_recipe_and_of_no_other(name, included, excluded):
    (source, *_) = read_recipe_sources(name).values()
    assert included in source
    assert excluded not in source


@pytest.mark.parametrize(
    ("name", "option", "cost", "docstring"),
    [
        (
            *("videomae.base-ucf101-finetune", "--encoder.dim"),
            {
                "classes": "101",
                "parameters_millions": "86.3",
                "gflops_per_view": "180.3",
                "temporal_clips": "5",
                "spatial_crops": "3",
                "published_result": "UCF101 top-1 91.3, top-5 98.5 (5 × 3 views); from K400: 96.1",
            },
            '"""VideoMAE',
        ),
        (
            *("amd.base-ava", "--views.box-expansion"),
            {
                "actions": "80",
                "parameters_millions": "86.29",
                "gflops_per_clip": "180.3",
                "published_result": "AVA v2.2 mAP 29.9",
            },
            '"""AMD',
        ),
    ],
)
def test_the_options_and_the_cost_of_a_fine_tuned_model_are_printed_before_the_source(
    capsys, name, option, cost, docstring
):
    assert main(["recipes", "--show", name]) == 0
    options, printed_cost, source = capsys.readouterr().out.split("\n\n")[:3]
    assert option in options
    assert dict(line.split(maxsplit=1) for line in printed_cost.splitlines()) == cost
    assert source.startswith(docstring)
    assert main(["recipes", "--show", name, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert {name: str(value) for name, value in printed["cost"].items()} == cost
    assert from_dict(type(find_recipe(name)), printed["recipe"]) == find_recipe(name)


def test_a_pre_training_has_no_classifier_whose_cost_could_be_printed(capsys):
    assert main(["recipes", "--show", "videomae.base-ucf101", "--json"]) == 0
    assert "cost" not in json.loads(capsys.readouterr().out)


def test_there_is_no_source_of_what_is_not_there():
    with pytest.raises(InputError, match="no recipe"):
        read_recipe_sources("amd.huge_k400")
