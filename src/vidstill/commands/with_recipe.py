"""Verbs whose first argument is a recipe, whose values are the defaults of their options."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import tyro

from vidstill.auto.choice import Chosen
from vidstill.commands import auto, detect, train
from vidstill.options import call, may_be_without, without_or_with
from vidstill.recipes.recipe import Detect, Finetune, Pretrain, find
from vidstill.terminal import tell
from vidstill.training import AnyLaunch, Launch
from vidstill.types import InputError


class _Verb(NamedTuple):
    work: Callable[..., None]
    recipe: type
    launch: type[AnyLaunch]


VERBS = {
    "pretrain": _Verb(train.pretrain, Pretrain, Launch),
    "finetune": _Verb(train.finetune, Finetune, train.FoldsLaunch),
    "detect train": _Verb(detect.train, Detect, detect.DetectLaunch),
}
VERB_OF: dict[type, str] = {kind: verb for verb, (_, kind, _) in VERBS.items()}


def call_with_recipe(verb: str, arguments: list[str]) -> None:
    """The first argument names the recipe whose values are the options' defaults."""
    work, kind, launch_kind = VERBS[verb]
    if arguments[:1] in (["-h"], ["--help"]):
        tell(f"usage: vidstill {verb} RECIPE --data DATA [OPTIONS]\n\n{work.__doc__}\n")
        tell(f"`vidstill recipes` lists the recipes, `vidstill {verb} RECIPE --help` the options of one.")
        return
    if not arguments or arguments[0].startswith("-"):
        raise InputError(f"the recipe comes first: vidstill {verb} RECIPE --data DATA; `vidstill recipes` lists them")
    chosen = auto.chosen(verb, arguments[1:]) if arguments[0] == auto.NAME else None
    recipe = chosen.recipe if chosen else find(arguments[0])
    if not isinstance(recipe, kind):
        other = VERB_OF[type(recipe)]
        raise InputError(f"{arguments[0]} is not for {verb}; type vidstill {other} {arguments[0]}")
    launch = launch_kind(data=Path(), out=Path("runs") / arguments[0].replace("-", "_"))
    object.__setattr__(launch, "data", tyro.MISSING)  # no path, but tyro's word for what has to be typed
    parts = ", ".join(may_be_without(recipe))
    more = f" Parts that a recipe may be without, taken out by None and brought in by their own options: {parts}."
    recipe, words = without_or_with(recipe, arguments[1:])
    if chosen:
        work = _with_reasons(chosen)
        more += f" {auto.ABOUT}"
    call(work, words, f"vidstill {verb} {arguments[0]}", more, launch=launch, recipe=recipe)


def _with_reasons(chosen: Chosen) -> Callable[..., None]:
    """A fine-tuning that says why its recipe is as it is."""

    @functools.wraps(train.finetune)
    def work(*, launch: train.FoldsLaunch, init: str | None = None, recipe: Finetune) -> None:
        train.finetune_told(launch, init, recipe, chosen.reasons(recipe))

    return work
