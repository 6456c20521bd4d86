"""What each verb of the command line does: its options are the function's signature, read by tyro."""

import json as jsons
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vidstill import data_commands, run
from vidstill import doctor as machine
from vidstill import quickstart as road
from vidstill.config import near, to_plain
from vidstill.engine.runtime import Precision
from vidstill.options import call, may_be_without, without_or_with
from vidstill.recipes.recipe import Finetune, Pretrain, all_names, find
from vidstill.recipes.show import options, source
from vidstill.run import Launch
from vidstill.terminal import aligned, flat, tell
from vidstill.types import InputError

Flat = tyro.conf.arg(name="")  # its fields are options without a prefix

_VERB_OF = {Pretrain: "pretrain", Finetune: "finetune"}


def run_command(arguments: list[str]) -> None:
    """Does what the arguments say, the verb first.

    Raises:
        InputError: the verb, the recipe, or what the work met cannot be used.
        SystemExit: tyro has printed help (code 0), or said what is wrong with an option (2).
    """
    verb, rest = _verb(arguments)
    if verb in _WITH_RECIPE:
        _call_with_recipe(verb, *_WITH_RECIPE[verb], rest)
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
    """Lists the recipes, or shows one fully resolved, with the source of its numbers.

    Args:
        pattern: a part of the names, or a pattern such as "amd.*_k400".
        show: the name of one recipe.
        json: as JSON, for programs.
    """
    if show is None:
        found = {name: find(name) for name in all_names(pattern)}
        listed = [{"name": n, "verb": _VERB_OF[type(r)], "expects": r.expects} for n, r in found.items()]
        width = max(map(len, found))
        lines = [f"{each['verb']}  {each['name']:{width}}  {each['expects']}".rstrip() for each in listed]
        tell(jsons.dumps(listed, indent=1) if json else "\n".join(lines))
    elif json:
        tell(jsons.dumps(to_plain(find(show)), indent=1))
    else:
        tell(f"{aligned(options(find(show)))}\n\n{source(show)}")


def pretrain(*, launch: Annotated[Launch, Flat], init: str | None = None, recipe: Annotated[Pretrain, Flat]) -> None:
    """Pre-trains by a recipe; the same command again resumes it.

    Args:
        init: a run's folder or a file of weights that the encoder starts from; None: from scratch.
    """
    out = run.pretrain(recipe, launch, init=init)
    tell(f"pre-trained: {out}; next: vidstill finetune RECIPE --init {out} --data DATA")


def finetune(*, launch: Annotated[Launch, Flat], init: str | None = None, recipe: Annotated[Finetune, Flat]) -> None:
    """Trains a classifier and tests it; the same command again resumes it.

    Args:
        init: a run's folder or a file of weights to start from; None: from scratch.
    """
    out = run.finetune(recipe, launch, init=init)
    tell(f"fine-tuned: {out}\n{aligned(flat(jsons.loads((out / run.TEST_FILE).read_text())))}")


def evaluate(
    source: Positional[str],
    /,
    *,
    data: str | Path,
    fold: Literal[1, 2, 3] = 1,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
    json: bool = False,
) -> None:
    """Tests a fine-tuned model: top-1 and top-5 over the views of its recipe.

    Args:
        source: a run's folder or a file of weights.
        data: labelled videos; where there are splits, the val split of them.
        fold: which of the three official splits of UCF101 and HMDB51.
        workers: processes that decode; -1: one less than there are cores.
        device_batch: views that a device takes at once; None: all of a video's.
        precision: auto: bf16 where the device does it well, else fp32.
        json: as JSON, for programs.
    """
    launch = Launch(data=data, out=Path(), fold=fold, workers=workers, device_batch=device_batch, precision=precision)
    tested = run.evaluate(source, launch).plain()
    tell(jsons.dumps(tested, indent=1) if json else aligned(flat(tested)))


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
    "evaluate": evaluate,
    **data_commands.VERBS,
    "doctor": doctor,
}
_WITH_RECIPE: dict[str, tuple[Callable[..., None], type]] = {
    "pretrain": (pretrain, Pretrain),
    "finetune": (finetune, Finetune),
}


def _verb(arguments: list[str]) -> tuple[str, list[str]]:
    """The verb, of one word or two, and what comes after it."""
    verbs = [*_VERBS, *_WITH_RECIPE]
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


def _call_with_recipe(verb: str, work: Callable[..., None], kind: type, arguments: list[str]) -> None:
    """The first argument names the recipe whose values are the options' defaults."""
    if arguments[:1] in (["-h"], ["--help"]):
        tell(f"usage: vidstill {verb} RECIPE --data DATA [OPTIONS]\n\n{work.__doc__}\n")
        tell(f"`vidstill recipes` lists the recipes, `vidstill {verb} RECIPE --help` the options of one.")
        return
    if not arguments or arguments[0].startswith("-"):
        raise InputError(f"the recipe comes first: vidstill {verb} RECIPE --data DATA; `vidstill recipes` lists them")
    recipe = find(arguments[0])
    if not isinstance(recipe, kind):
        other = _VERB_OF[type(recipe)]
        raise InputError(f"{arguments[0]} is not for {verb}; type vidstill {other} {arguments[0]}")
    launch = Launch(data=Path(), out=Path("runs") / arguments[0].replace("-", "_"))
    object.__setattr__(launch, "data", tyro.MISSING)  # no path, but tyro's word for what has to be typed
    parts = ", ".join(may_be_without(recipe))
    more = f" Parts that a recipe may be without, taken out by None and brought in by their own options: {parts}."
    recipe, words = without_or_with(recipe, arguments[1:])
    call(work, words, f"vidstill {verb} {arguments[0]}", more, launch=launch, recipe=recipe)
