"""A recipe in print: what is shown can be typed, and says where the numbers are from."""

import shlex

import pytest
import tyro

from vidstill.recipes.recipe import every_recipe, find
from vidstill.recipes.show import options, source
from vidstill.types import InputError


@pytest.mark.parametrize("name", ["amd.base_k400", "videomae.base_ssv2_finetune"])
def test_typing_what_is_shown_gives_the_recipe_again(name):
    recipe = find(name)
    typed = [word for option, text in options(recipe).items() for word in (option, *shlex.split(text))]
    settable = [word for word in typed if word != "--clips.randaugment"]  # None, where there is nothing to set
    settable = _without_none_of(settable, "--clips.randaugment", typed)
    assert tyro.cli(type(recipe), default=recipe, args=settable, config=(tyro.conf.AvoidSubcommands,)) == recipe


@pytest.mark.parametrize("name", every_recipe())
def test_the_source_of_a_recipe_makes_the_same_recipe(name):
    family, variant = name.split(".")
    module = __import__(f"vidstill.recipes.{family}", fromlist=["_"])
    imported = {word: value for word, value in vars(module).items() if not word.startswith("__")}
    for word in [*every_recipe()]:
        imported.pop(word.split(".")[1], None)
    exec(source(name).partition("\n\n")[2] if False else source(name), imported)
    assert imported[variant] == find(name)


def test_the_source_of_what_is_not_there_is_a_users_mistake():
    with pytest.raises(InputError, match="no recipe"):
        source("amd.huge_k400")
