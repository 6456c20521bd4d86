"""A recipe in print: what is shown can be typed, and says where the numbers are from."""

import importlib
import shlex

import pytest
import tyro

from vidstill.recipes.recipe import every_recipe, find
from vidstill.recipes.show import options, source
from vidstill.types import InputError

UNSETTABLE = {"--clips.randaugment", "--erasing", "--mixing"}  # None, where a recipe has none: it has no option then


@pytest.mark.parametrize("name", every_recipe())
def test_typing_what_is_shown_gives_the_recipe_again(name):
    recipe = find(name)
    shown = {option: text for option, text in options(recipe).items() if option not in UNSETTABLE}
    typed = [word for option, text in shown.items() for word in (option, *shlex.split(text))]
    assert tyro.cli(type(recipe), default=recipe, args=typed, config=(tyro.conf.AvoidSubcommands,)) == recipe


@pytest.mark.parametrize("name", every_recipe())
def test_the_source_that_is_shown_makes_the_recipe(name):
    family, variant = name.split(".")
    file = vars(importlib.import_module(f"vidstill.recipes.{family}"))
    made_there = {word for word, value in file.items() if getattr(value, "__module__", "") == file["__name__"]}
    theirs = {word for word in file if word.startswith("_") or f"{family}.{word}" in every_recipe()} | made_there
    namespace = {word: value for word, value in file.items() if word not in theirs}  # what the file imports
    exec(source(name), namespace)
    assert namespace[variant] == find(name)


def test_the_source_says_first_what_the_file_is():
    assert source("amd.base_k400").startswith('"""AMD')


def test_what_another_recipe_is_made_of_is_not_shown():
    assert "ucf101" not in source("videomae.base_k400")


def test_there_is_no_source_of_what_is_not_there():
    with pytest.raises(InputError, match="no recipe"):
        source("amd.huge_k400")
