"""What each verb of the command line does: its options are a function's signature, read by tyro."""

import functools
import json as jsons
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import tyro
from tyro.conf import Positional

from vidstill.cli import data, detect, embed, predict, probe, train, weights
from vidstill.cli import doctor as machine
from vidstill.cli.options import call_with_options, list_optional_parts, resolve_optional_parts
from vidstill.pipelines import quickstart as road
from vidstill.pipelines.train.run_config import DetectRunConfig, RunConfig
from vidstill.pipelines.workers import BaseRunConfig
from vidstill.recipes.auto.choose import AutoRecipe
from vidstill.recipes.recipe import (
    DetectionRecipe,
    FinetuneRecipe,
    PretrainRecipe,
    compute_recipe_cost,
    find_recipe,
    format_options,
    list_recipe_names,
    read_recipe_source,
)
from vidstill.utils.config_io import suggest_names, to_dict
from vidstill.utils.terminal import echo, flatten_dict, format_key_values
from vidstill.utils.types import InputError


def run_command(arguments: list[str]) -> None:
    """Does what the arguments say, the verb first.

    Raises:
        InputError: the verb, the recipe, or what the work met cannot be used.
        SystemExit: tyro has printed help (code 0), or said what is wrong with an option (2).
    """
    verb, rest = _split_verb(arguments)
    if verb in RECIPE_COMMANDS:
        run_recipe_command(verb, rest)
    else:
        call_with_options(_COMMANDS[verb], rest, f"vidstill {verb}")


def quickstart_command(
    *,
    method: road.DistillationMethod = "amd",
    out: Path = Path("runs/quickstart"),
    smoke_test: bool = False,
    seed: int = 0,
    workers: int = -1,
) -> None:
    """Walks the whole road on clips it makes itself; the same command again goes on where it was stopped.

    Args:
        method: the distillation by which the student learns from the teacher.
        out: the folder of its clips, runs and report; another method in the same folder keeps what both share.
        smoke_test: a few steps of everything, to see that it runs; the numbers mean nothing then.
        seed: of the clips and of every run.
        workers: processes that decode; -1: one less than there are cores.
    """
    road.quickstart(out, method=method, smoke_test=smoke_test, seed=seed, workers=workers)


def recipes_command(pattern: Positional[str] = "*", /, *, show: str | None = None, json: bool = False) -> None:
    """Lists the recipes, or shows one fully resolved, with its model's cost and the source of its numbers.

    Args:
        pattern: a part of the names, or a pattern such as "amd.*_k400".
        show: the name of one recipe.
        json: as JSON, for programs.
    """
    if show is None:
        found = {name: find_recipe(name) for name in list_recipe_names(pattern)}
        listed = [{"name": n, "verb": VERB_BY_RECIPE[type(r)], "expects": r.published_result} for n, r in found.items()]
        width = max(map(len, found))
        lines = [f"{each['verb']}  {each['name']:{width}}  {each['expects']}".rstrip() for each in listed]
        echo(jsons.dumps(listed, indent=1) if json else "\n".join(lines))
        return
    if show == train.AUTO_RECIPE_NAME:
        echo(
            jsons.dumps({"name": train.AUTO_RECIPE_NAME, "about": train.AUTO_RECIPE_HELP}, indent=1)
            if json
            else train.AUTO_RECIPE_HELP
        )
        return
    recipe = find_recipe(show)
    paid = {"price": compute_recipe_cost(recipe)} if isinstance(recipe, FinetuneRecipe | DetectionRecipe) else {}
    if json:
        echo(jsons.dumps(to_dict(recipe) | paid, indent=1))
    else:
        echo(
            "\n\n".join(
                [
                    format_key_values(format_options(recipe)),
                    *map(format_key_values, paid.values()),
                    read_recipe_source(show),
                ]
            )
        )


def doctor_command(*, json: bool = False) -> None:
    """Says what this machine can do: devices, precision, decoders, space, versions.

    Args:
        json: as JSON, for programs.
    """
    found = asdict(machine.collect_system_info())
    echo(jsons.dumps(found, indent=1) if json else format_key_values(flatten_dict(found)))


_COMMANDS: dict[str, Callable[..., None]] = {
    "quickstart": quickstart_command,
    "recipes": recipes_command,
    **train.EVALUATE_COMMANDS,
    **predict.PREDICT_COMMANDS,
    **probe.PROBE_COMMANDS,
    **detect.DETECT_COMMANDS,
    **embed.EMBED_COMMANDS,
    **data.DATA_COMMANDS,
    **weights.VERBS,
    "doctor": doctor_command,
}


def _split_verb(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb, of one word or two, and what comes after it."""
    verbs = [*_COMMANDS, *RECIPE_COMMANDS]
    for words in (1, 2):
        verb = " ".join(arguments[:words])
        if verb in verbs:
            return verb, arguments[words:]
    two_words = [verb for verb in verbs if verb.startswith(f"{arguments[0]} ")]
    if two_words and arguments[1:2] in ([], ["-h"], ["--help"]):
        echo("\n".join(f"vidstill {verb} --help" for verb in two_words))
        sys.exit(0)
    asked = " ".join(arguments[:2]) if two_words else arguments[0]
    hint = suggest_names(asked, verbs) or f"; there are {', '.join(verbs)}"
    raise InputError(f"vidstill has no verb {asked!r}{hint}")


class _RecipeCommand(NamedTuple):
    function: Callable[..., None]
    recipe_type: type
    config_type: type[BaseRunConfig]


RECIPE_COMMANDS = {
    "pretrain": _RecipeCommand(train.pretrain_command, PretrainRecipe, RunConfig),
    "finetune": _RecipeCommand(train.finetune_command, FinetuneRecipe, train.FoldsRunConfig),
    "detect train": _RecipeCommand(detect.detect_train_command, DetectionRecipe, DetectRunConfig),
}


VERB_BY_RECIPE: dict[type, str] = {kind: verb for verb, (_, kind, _) in RECIPE_COMMANDS.items()}


def run_recipe_command(verb: str, arguments: list[str]) -> None:
    """The first argument names the recipe whose values are the options' defaults."""
    work, kind, launch_kind = RECIPE_COMMANDS[verb]
    if arguments[:1] in (["-h"], ["--help"]):
        echo(f"usage: vidstill {verb} RECIPE --data DATA [OPTIONS]\n\n{work.__doc__}\n")
        echo(f"`vidstill recipes` lists the recipes, `vidstill {verb} RECIPE --help` the options of one.")
        return
    if not arguments or arguments[0].startswith("-"):
        raise InputError(f"the recipe comes first: vidstill {verb} RECIPE --data DATA; `vidstill recipes` lists them")
    chosen = train.choose_auto_recipe(verb, arguments[1:]) if arguments[0] == train.AUTO_RECIPE_NAME else None
    recipe = chosen.recipe if chosen else find_recipe(arguments[0])
    if not isinstance(recipe, kind):
        other = VERB_BY_RECIPE[type(recipe)]
        raise InputError(f"{arguments[0]} is not for {verb}; type vidstill {other} {arguments[0]}")
    launch = launch_kind(data=Path(), out=Path("runs") / arguments[0].replace("-", "_"))
    object.__setattr__(launch, "data", tyro.MISSING)  # no path, but tyro's word for what has to be typed
    parts = ", ".join(list_optional_parts(recipe))
    more = f" Parts that a recipe may be without, taken out by None and brought in by their own options: {parts}."
    recipe, words = resolve_optional_parts(recipe, arguments[1:])
    if chosen:
        work = _add_reasons(chosen)
        more += f" {train.AUTO_RECIPE_HELP}"
    call_with_options(work, words, f"vidstill {verb} {arguments[0]}", more, launch=launch, recipe=recipe)


def _add_reasons(auto_recipe: AutoRecipe) -> Callable[..., None]:
    """A fine-tuning that says why its recipe is as it is."""

    @functools.wraps(train.finetune_command)
    def work(*, launch: train.FoldsRunConfig, init: str | None = None, recipe: FinetuneRecipe) -> None:
        train.finetune_with_notes(launch, init, recipe, auto_recipe.explain(recipe))

    return work
