"""`vidstill recipes`, and the options of the verbs that take a recipe: every field of the recipe is one."""

import functools
import json as jsons
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from tyro.conf import Positional

from vidstill.checkpoints.shipped import SCRATCH
from vidstill.cli.options import Json, RecipeOptions, parse_recipe_options
from vidstill.pipelines.run_config import AutoRunConfig
from vidstill.recipes.change import change_recipe
from vidstill.recipes.recipe import DetectionRecipe, FinetuneRecipe, PretrainRecipe
from vidstill.recipes.show import compute_recipe_cost, format_options, read_recipe_sources
from vidstill.recipes.sources import list_recipes, name_run, open_recipe, read_forks
from vidstill.utils.config_io import to_dict
from vidstill.utils.terminal import align_columns, echo, format_key_values
from vidstill.utils.types import InputError

AUTO_RECIPE = "auto"

_VERBS: dict[type, str] = {PretrainRecipe: "pretrain", FinetuneRecipe: "finetune", DetectionRecipe: "detect train"}
_AUTO_HELP = (
    f"The recipe {AUTO_RECIPE} is made for the data: `vidstill finetune {AUTO_RECIPE} --data DATA` counts clips and "
    "classes, reads the sizes of some files, the machine and --init, and prints each choice with its reason; every "
    "choice is an option that can be typed instead. Without --init it compares random weights with the encoders that "
    "come with vidstill, by short fine-tunings on videos that are not tested; --init scratch skips this."
)


def parse_recipe_command(function: Callable[..., None], verb: str, args: Sequence[str]) -> Callable[[], None]:
    """Return the call of a verb that takes a recipe: with the recipe, its typed fields and the run config.

    Args:
        function: Takes `recipe`, `run_config`, `init` and `changes`; the annotations say of which classes. One without
            `init` takes `name` and `command`, what was typed, instead of `changes`.
        verb: The words that were typed for it.
        args: The words after the verb, the recipe's name first.

    Raises:
        InputError: There is no such recipe, it is another verb's, or its fields do not go together.
        SystemExit: tyro has printed the help (code 0) or what is wrong with an option (2).
    """
    types = get_type_hints(function)
    trains = "init" in types  # else it measures
    usage = f"vidstill {verb} RECIPE{' --data DATA' if trains else ''}"
    if args[:1] in (["-h"], ["--help"]):
        echo(f"usage: {usage} [OPTIONS]\n\n{function.__doc__}\n")
        echo(
            "RECIPE is one of `vidstill recipes`, your own in FILE.py:NAME or package.module:NAME, or a run directory."
        )
        echo(f"`vidstill {verb} RECIPE --help` lists the options of one.")
        return lambda: None
    if not args or args[0].startswith("-"):
        raise InputError(f"the recipe comes first: {usage}; `vidstill recipes` lists them")
    name = args[0]
    is_auto = name == AUTO_RECIPE
    if is_auto and types["recipe"] is not FinetuneRecipe:
        raise InputError(f"{AUTO_RECIPE} makes recipes for fine-tuning; type vidstill finetune {AUTO_RECIPE}")
    recipe = None if is_auto else open_recipe(name)
    if recipe is not None and not isinstance(recipe, types["recipe"]):
        raise InputError(f"{name} is not a recipe for {verb}; type vidstill {_VERBS[type(recipe)]} {name}")
    run_config, init, typed = parse_recipe_options(
        RecipeOptions(
            types=(type(recipe) if recipe else types["recipe"],),
            config=recipe,
            absent="chosen for the data" if is_auto else "absent",
        ),
        AutoRunConfig if is_auto else types["run_config"],
        args[1:],
        f"vidstill {verb} {name}",
        description=f"{(function.__doc__ or '').partition(chr(10))[0]} {_AUTO_HELP if is_auto else ''}",
        out=Path("runs") / name_run(name).replace("-", "_"),
        takes_init=trains,
    )
    if not trains:
        command = shlex.join(["vidstill", *verb.split(), *args])
        return functools.partial(function, change_recipe(recipe, typed), run_config, name=name, command=command)
    if recipe is not None:
        init = None if init == SCRATCH else init
        return functools.partial(function, change_recipe(recipe, typed), run_config, init, changes=typed)
    return functools.partial(_run_auto, function, run_config, init, typed)


def _run_auto(
    function: Callable[..., None], run_config: AutoRunConfig, init: str | None, typed: Mapping[str, Any]
) -> None:
    from vidstill.pipelines.train.auto import prepare_auto_run

    run = prepare_auto_run(run_config, init, typed)
    function(run.recipe, run_config, run.init, notes=run.notes, changes=typed)


def recipes_command(pattern: Positional[str] = "*", /, *, show: str | None = None, json: Json = False) -> None:
    """List the recipes, or show one: its values, the cost of its model, and the source of its numbers.

    Args:
        pattern: Part of the names, or a pattern such as "amd.*_k400"; FILE.py: the recipes of a file of your own.
        show: One recipe: a name, FILE.py:NAME, a run directory or JSON file.
    """
    if show is None:
        recipes = list_recipes(pattern)
        rows = [
            {"verb": _VERBS[type(recipe)], "name": name, "published_result": recipe.published_result}
            for name, recipe in recipes.items()
        ]
        echo(jsons.dumps(rows, indent=1) if json else "\n".join(align_columns([list(row.values()) for row in rows])))
        return
    if show == AUTO_RECIPE:
        echo(jsons.dumps({"name": AUTO_RECIPE, "description": _AUTO_HELP}, indent=1) if json else _AUTO_HELP)
        return
    recipe, forks = open_recipe(show), read_forks(show)
    cost = {} if isinstance(recipe, PretrainRecipe) else {"cost": compute_recipe_cost(recipe)}
    if json:
        content = {"recipe": to_dict(recipe), **cost} | ({"forks": [each.to_dict() for each in forks]} if forks else {})
        echo(jsons.dumps(content, indent=1))
        return
    tables = [format_options(recipe), *cost.values()]
    history = ["\n".join(f"the run went on {fork}" for fork in forks)] if forks else []
    echo("\n\n".join([*map(format_key_values, tables), *history, *read_recipe_sources(show).values()]))
