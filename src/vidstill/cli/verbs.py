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
from vidstill.cli.options import call, may_be_without, without_or_with
from vidstill.pipelines import quickstart as road
from vidstill.pipelines.train.session import AnyLaunch, Launch
from vidstill.recipes.auto.choose import Chosen
from vidstill.recipes.recipe import Detect, Finetune, Pretrain, all_names, find, options, price, source
from vidstill.utils.config_io import near, to_plain
from vidstill.utils.terminal import aligned, flat, tell
from vidstill.utils.types import InputError


def run_command(arguments: list[str]) -> None:
    """Does what the arguments say, the verb first.

    Raises:
        InputError: the verb, the recipe, or what the work met cannot be used.
        SystemExit: tyro has printed help (code 0), or said what is wrong with an option (2).
    """
    verb, rest = _verb(arguments)
    if verb in VERBS:
        call_with_recipe(verb, rest)
    else:
        call(_VERBS[verb], rest, f"vidstill {verb}")


def quickstart(
    *,
    method: road.Distillation = "amd",
    out: Path = Path("runs/quickstart"),
    smallest: bool = False,
    seed: int = 0,
    workers: int = -1,
) -> None:
    """Walks the whole road on clips it makes itself; the same command again goes on where it was stopped.

    Args:
        method: the distillation by which the student learns from the teacher.
        out: the folder of its clips, runs and report; another method in the same folder keeps what both share.
        smallest: a few steps of everything, to see that it runs; the numbers mean nothing then.
        seed: of the clips and of every run.
        workers: processes that decode; -1: one less than there are cores.
    """
    road.quickstart(out, method=method, smallest=smallest, seed=seed, workers=workers)


def recipes(pattern: Positional[str] = "*", /, *, show: str | None = None, json: bool = False) -> None:
    """Lists the recipes, or shows one fully resolved, with its model's cost and the source of its numbers.

    Args:
        pattern: a part of the names, or a pattern such as "amd.*_k400".
        show: the name of one recipe.
        json: as JSON, for programs.
    """
    if show is None:
        found = {name: find(name) for name in all_names(pattern)}
        listed = [{"name": n, "verb": VERB_OF[type(r)], "expects": r.expects} for n, r in found.items()]
        width = max(map(len, found))
        lines = [f"{each['verb']}  {each['name']:{width}}  {each['expects']}".rstrip() for each in listed]
        tell(jsons.dumps(listed, indent=1) if json else "\n".join(lines))
        return
    if show == train.NAME:
        tell(jsons.dumps({"name": train.NAME, "about": train.ABOUT}, indent=1) if json else train.ABOUT)
        return
    recipe = find(show)
    paid = {"price": price(recipe)} if isinstance(recipe, Finetune | Detect) else {}
    if json:
        tell(jsons.dumps(to_plain(recipe) | paid, indent=1))
    else:
        tell("\n\n".join([aligned(options(recipe)), *map(aligned, paid.values()), source(show)]))


def doctor(*, json: bool = False) -> None:
    """Says what this machine can do: devices, precision, decoders, space, versions.

    Args:
        json: as JSON, for programs.
    """
    found = asdict(machine.examine())
    tell(jsons.dumps(found, indent=1) if json else aligned(flat(found)))


_VERBS: dict[str, Callable[..., None]] = {
    "quickstart": quickstart,
    "recipes": recipes,
    **train.VERBS,
    **predict.VERBS,
    **probe.VERBS,
    **detect.VERBS,
    **embed.VERBS,
    **data.VERBS,
    **weights.VERBS,
    "doctor": doctor,
}


def _verb(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb, of one word or two, and what comes after it."""
    verbs = [*_VERBS, *VERBS]
    for words in (1, 2):
        verb = " ".join(arguments[:words])
        if verb in verbs:
            return verb, arguments[words:]
    two_words = [verb for verb in verbs if verb.startswith(f"{arguments[0]} ")]
    if two_words and arguments[1:2] in ([], ["-h"], ["--help"]):
        tell("\n".join(f"vidstill {verb} --help" for verb in two_words))
        sys.exit(0)
    asked = " ".join(arguments[:2]) if two_words else arguments[0]
    hint = near(asked, verbs) or f"; there are {', '.join(verbs)}"
    raise InputError(f"vidstill has no verb {asked!r}{hint}")


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
    chosen = train.chosen(verb, arguments[1:]) if arguments[0] == train.NAME else None
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
        more += f" {train.ABOUT}"
    call(work, words, f"vidstill {verb} {arguments[0]}", more, launch=launch, recipe=recipe)


def _with_reasons(chosen: Chosen) -> Callable[..., None]:
    """A fine-tuning that says why its recipe is as it is."""

    @functools.wraps(train.finetune)
    def work(*, launch: train.FoldsLaunch, init: str | None = None, recipe: Finetune) -> None:
        train.finetune_told(launch, init, recipe, chosen.reasons(recipe))

    return work
