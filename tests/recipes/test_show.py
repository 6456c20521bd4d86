"""A recipe in print: what is shown can be typed, and says where the numbers are from."""

import ast
import importlib
import inspect
import shlex
from types import SimpleNamespace
from typing import Annotated

import pytest
import tyro
from recipe_plans import ablations_slowly

from vidstill.options import call, without_or_with
from vidstill.recipes.recipe import every_recipe, find
from vidstill.recipes.show import options, source, sources
from vidstill.types import InputError


def made_of(shown, family):
    """The variables that the shown part of a family's file makes, of its imports and its siblings' shown parts."""
    file = ast.parse(inspect.getsource(importlib.import_module(f"vidstill.recipes.{family}")))
    made = {}
    for node in file.body:
        if isinstance(node, ast.ImportFrom) and node.module == "vidstill.recipes":
            made |= {
                each.name: SimpleNamespace(**made_of(shown, each.name)) for each in node.names if each.name in shown
            }
        elif isinstance(node, ast.ImportFrom):
            exec(ast.unparse(node), made)
    exec(shown[family], made)
    return {name: value for name, value in made.items() if not name.startswith("__")}


@pytest.mark.parametrize("name", every_recipe())
def test_typing_what_is_shown_gives_the_recipe_again(name):
    recipe, given = find(name), []

    def work(*, recipe: Annotated[type(recipe), tyro.conf.arg(name="")]) -> None:
        given.append(recipe)

    typed = [word for option, text in options(recipe).items() for word in (option, *shlex.split(text))]
    default, words = without_or_with(recipe, typed)
    call(work, words, "vidstill", recipe=default)
    assert given == [recipe]


@pytest.mark.parametrize("name", ablations_slowly(every_recipe()))
def test_the_source_that_is_shown_makes_the_recipe(name):
    family, variant = name.split(".")
    assert made_of(sources(name), family)[variant] == find(name)


def test_the_source_says_first_what_the_file_is():
    assert source("amd.base_k400").startswith('"""AMD')


def test_of_another_paper_s_file_the_lines_that_a_recipe_refers_to_are_shown():
    shown = sources("mvd.base_k400")
    assert list(shown) == ["mvd", "videomae"]
    assert shown["videomae"].startswith('"""VideoMAE')
    assert "ADAMW = AdamWConfig(base_lr=1.5e-4" in shown["videomae"]
    assert "base_k400" not in shown["videomae"]


def test_the_comment_that_a_paragraph_begins_with_is_shown_with_each_of_its_recipes():
    assert "# Table 11: " in source("mvd.ablation_per_token_full")
    assert "# Table 11: " in source("mvd.ablation_per_token_masked")
    assert "# Table 13" not in source("mvd.ablation_per_token_masked")


def test_what_another_recipe_is_made_of_is_not_shown():
    assert "ucf101" not in source("videomae.base_k400")


def test_there_is_no_source_of_what_is_not_there():
    with pytest.raises(InputError, match="no recipe"):
        source("amd.huge_k400")
