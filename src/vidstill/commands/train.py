"""What `vidstill pretrain`, `finetune` and `evaluate` do: their options are the function's signature, read by tyro."""

import functools
import json as jsons
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vidstill import folds, run, testing
from vidstill.auto.choice import Chosen
from vidstill.commands import auto
from vidstill.downstream.tested import in_words
from vidstill.engine.runtime import Precision
from vidstill.folder import TEST_FILE
from vidstill.options import call, may_be_without, without_or_with
from vidstill.recipes.recipe import Finetune, Pretrain, find
from vidstill.terminal import tell
from vidstill.training import Launch
from vidstill.types import InputError

Flat = tyro.conf.arg(name="")  # its fields are options without a prefix


@dataclass(frozen=True, kw_only=True)
class FoldsLaunch(Launch):
    """As Launch, of one fold or of all.

    Args:
        fold: which of the three official splits of UCF101 and HMDB51; all: a run for each, and the mean of their tests.
    """

    fold: Literal[1, 2, 3, "all"] = 1  # type: ignore[assignment]

    @property
    def single(self) -> Launch:
        """As it is of one fold."""
        return Launch(**{field.name: getattr(self, field.name) for field in fields(Launch) if field.name != "fold"})


def pretrain(*, launch: Annotated[Launch, Flat], init: str | None = None, recipe: Annotated[Pretrain, Flat]) -> None:
    """Pre-trains by a recipe; the same command again resumes it.

    Args:
        init: a run's folder or a file of weights that the encoder starts from; None: from scratch.
    """
    out = run.pretrain(recipe, launch, init=init)
    tell(f"pre-trained: {out}; next: vidstill finetune RECIPE --init {out} --data DATA")


def finetune(
    *, launch: Annotated[FoldsLaunch, Flat], init: str | None = None, recipe: Annotated[Finetune, Flat]
) -> None:
    """Trains a classifier and tests it; the same command again resumes it.

    Args:
        init: a run's folder or a file of weights to start from; None: from scratch.
    """
    _finetune(launch, init, recipe, ())


def _finetune(launch: FoldsLaunch, init: str | None, recipe: Finetune, notes: Sequence[str]) -> None:
    if launch.fold == "all":
        found = folds.finetune_folds(recipe, launch.single, init=init, notes=notes)
        tell(f"fine-tuned: {launch.out}, a run for each fold\n{folds.in_words(found)}")
        return
    out = run.finetune(recipe, launch, init=init, notes=notes)
    tell(f"fine-tuned: {out}\n{in_words(jsons.loads((out / TEST_FILE).read_text()))}")


def evaluate(
    source: Positional[str],
    /,
    *,
    data: str | Path,
    out: Path | None = None,
    fold: Literal[1, 2, 3, "all"] = 1,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
    json: bool = False,
) -> None:
    """Tests a fine-tuned model over the views of its recipe: accuracy, each class, calibration, each video's scores.

    Args:
        source: a run's folder or a file of weights.
        data: labelled videos; where there are splits, the val split of them.
        out: a folder to leave all findings in: test.json, scores.csv (a line for each video), classes.csv,
            confusion.csv, confusion.png. None: they are told only.
        fold: which of the three official splits of UCF101 and HMDB51; all: each fold's model of a fine-tuning with
            `--fold all`, on its own test list.
        workers: processes that decode; -1: one less than there are cores.
        device_batch: views that a device takes at once; None: all of a video's.
        precision: auto: bf16 where the device does it well, else fp32.
        json: as JSON, for programs.
    """
    launch = Launch(data=data, out=Path(), workers=workers, device_batch=device_batch, precision=precision)
    if fold == "all":
        found = folds.evaluate_folds(source, launch, out=out)
        tell(jsons.dumps(found, indent=1) if json else folds.in_words(found))
    else:
        found = testing.evaluate(source, replace(launch, fold=fold), out=out).plain()
        tell(jsons.dumps(found, indent=1) if json else in_words(found))


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
    chosen = auto.chosen(verb, arguments[1:]) if arguments[0] == auto.NAME else None
    recipe = chosen.recipe if chosen else find(arguments[0])
    if not isinstance(recipe, kind):
        other = VERB_OF[type(recipe)]
        raise InputError(f"{arguments[0]} is not for {verb}; type vidstill {other} {arguments[0]}")
    launch_kind = FoldsLaunch if kind is Finetune else Launch
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

    @functools.wraps(finetune)
    def work(*, launch: FoldsLaunch, init: str | None = None, recipe: Finetune) -> None:
        _finetune(launch, init, recipe, chosen.reasons(recipe))

    return work
