"""What each verb of the command line does: its options are a function's signature, read by tyro."""

import json as jsons
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tyro.conf import Positional

from vidstill import doctor as machine
from vidstill import quickstart as road
from vidstill.commands import (
    auto,
    data,
    detect,
    detect_boxes,
    detect_predict,
    embed,
    predict,
    probe,
    train,
    weights_convert,
    weights_inspect,
    weights_list,
    with_recipe,
)
from vidstill.config import near, to_plain
from vidstill.options import call
from vidstill.recipes.recipe import Detect, Finetune, all_names, find
from vidstill.recipes.show import options, price, source
from vidstill.terminal import aligned, flat, tell
from vidstill.types import InputError


def run_command(arguments: list[str]) -> None:
    """Does what the arguments say, the verb first.

    Raises:
        InputError: the verb, the recipe, or what the work met cannot be used.
        SystemExit: tyro has printed help (code 0), or said what is wrong with an option (2).
    """
    verb, rest = _verb(arguments)
    if verb in with_recipe.VERBS:
        with_recipe.call_with_recipe(verb, rest)
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
        listed = [{"name": n, "verb": with_recipe.VERB_OF[type(r)], "expects": r.expects} for n, r in found.items()]
        width = max(map(len, found))
        lines = [f"{each['verb']}  {each['name']:{width}}  {each['expects']}".rstrip() for each in listed]
        tell(jsons.dumps(listed, indent=1) if json else "\n".join(lines))
        return
    if show == auto.NAME:
        tell(jsons.dumps({"name": auto.NAME, "about": auto.ABOUT}, indent=1) if json else auto.ABOUT)
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
    **detect_boxes.VERBS,
    **detect.VERBS,
    **detect_predict.VERBS,
    **embed.VERBS,
    **data.VERBS,
    **weights_list.VERBS,
    **weights_inspect.VERBS,
    **weights_convert.VERBS,
    "doctor": doctor,
}


def _verb(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb, of one word or two, and what comes after it."""
    verbs = [*_VERBS, *with_recipe.VERBS]
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
