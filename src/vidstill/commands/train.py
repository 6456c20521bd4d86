"""What `vidstill pretrain`, `finetune` and `evaluate` do: their options are the function's signature, read by tyro."""

import json as jsons
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vidstill import run, testing
from vidstill.engine.runtime import Precision
from vidstill.folder import TEST_FILE
from vidstill.options import call, may_be_without, without_or_with
from vidstill.recipes.recipe import Finetune, Pretrain, find
from vidstill.terminal import aligned, flat, tell
from vidstill.training import Launch
from vidstill.types import InputError

Flat = tyro.conf.arg(name="")  # its fields are options without a prefix


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
    tell(f"fine-tuned: {out}\n{aligned(flat(jsons.loads((out / TEST_FILE).read_text())))}")


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
    tested = testing.evaluate(source, launch).plain()
    tell(jsons.dumps(tested, indent=1) if json else aligned(flat(tested)))


VERBS: dict[str, Callable[..., None]] = {"evaluate": evaluate}
WITH_RECIPE: dict[str, tuple[Callable[..., None], type]] = {
    "pretrain": (pretrain, Pretrain),
    "finetune": (finetune, Finetune),
}
VERB_OF: dict[type, str] = {kind: verb for verb, (_, kind) in WITH_RECIPE.items()}


def call_with_recipe(verb: str, arguments: list[str]) -> None:
    """The first argument names the recipe whose values are the options' defaults."""
    work, kind = WITH_RECIPE[verb]
    if arguments[:1] in (["-h"], ["--help"]):
        tell(f"usage: vidstill {verb} RECIPE --data DATA [OPTIONS]\n\n{work.__doc__}\n")
        tell(f"`vidstill recipes` lists the recipes, `vidstill {verb} RECIPE --help` the options of one.")
        return
    if not arguments or arguments[0].startswith("-"):
        raise InputError(f"the recipe comes first: vidstill {verb} RECIPE --data DATA; `vidstill recipes` lists them")
    recipe = find(arguments[0])
    if not isinstance(recipe, kind):
        other = VERB_OF[type(recipe)]
        raise InputError(f"{arguments[0]} is not for {verb}; type vidstill {other} {arguments[0]}")
    launch = Launch(data=Path(), out=Path("runs") / arguments[0].replace("-", "_"))
    object.__setattr__(launch, "data", tyro.MISSING)  # no path, but tyro's word for what has to be typed
    parts = ", ".join(may_be_without(recipe))
    more = f" Parts that a recipe may be without, taken out by None and brought in by their own options: {parts}."
    recipe, words = without_or_with(recipe, arguments[1:])
    call(work, words, f"vidstill {verb} {arguments[0]}", more, launch=launch, recipe=recipe)
