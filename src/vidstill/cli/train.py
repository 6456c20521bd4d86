"""What `vidstill pretrain`, `finetune` and `evaluate` do: their options are the function's signature, read by tyro."""

import json as jsons
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vidstill.checkpoints.load import read_known
from vidstill.data.manifest.open import read_listing, splits_of
from vidstill.engine.distributed import Precision
from vidstill.pipelines.evaluate import classifier as testing
from vidstill.pipelines.evaluate.classifier import labelled
from vidstill.pipelines.train import folds
from vidstill.pipelines.train.finetune import finetune as run_finetune
from vidstill.pipelines.train.pretrain import pretrain as run_pretrain
from vidstill.pipelines.train.session import Launch
from vidstill.recipes.auto.choose import Chosen, choose, kept
from vidstill.recipes.auto.dataset_stats import EXAMPLE, facts_of, machine
from vidstill.recipes.auto.defaults import RULES
from vidstill.recipes.recipe import Finetune, Pretrain
from vidstill.tasks.results import in_words
from vidstill.utils.files import TEST_FILE
from vidstill.utils.terminal import tell
from vidstill.utils.types import InputError

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
    out = run_pretrain(recipe, launch, init=init)
    tell(f"pre-trained: {out}; next: vidstill finetune RECIPE --init {out} --data DATA")


def finetune(
    *, launch: Annotated[FoldsLaunch, Flat], init: str | None = None, recipe: Annotated[Finetune, Flat]
) -> None:
    """Trains a classifier and tests it; the same command again resumes it.

    Args:
        init: a run's folder or a file of weights to start from; None: from scratch.
    """
    finetune_told(launch, init, recipe, ())


def finetune_told(launch: FoldsLaunch, init: str | None, recipe: Finetune, notes: Sequence[str]) -> None:
    """
    Args:
        notes: sentences to be said before training.
    """
    if launch.fold == "all":
        found = folds.finetune_folds(recipe, launch.single, init=init, notes=notes)
        tell(f"fine-tuned: {launch.out}, a run for each fold\n{folds.in_words(found)}")
        return
    out = run_finetune(recipe, launch, init=init, notes=notes)
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


NAME = "auto"


ABOUT = (
    "The recipe `auto` is made for the data: `vidstill finetune auto --data DATA` counts clips and classes, looks at "
    f"up to {RULES.looked_at} files, at the machine and at what --init names, and says what it picked and why; every "
    "pick is an option that can be typed."
)


def chosen(verb: str, words: Sequence[str]) -> Chosen:
    """The recipe for what the words name; that of the run which the folder holds, where it holds one.

    Args:
        words: that come after the name; without --data, an example stands for it.

    Raises:
        InputError: the data have no labels, or something else that was named cannot be used.
    """
    if verb != "finetune":
        raise InputError(f"{NAME} makes recipes for fine-tuning; type vidstill finetune {NAME}")
    data, init, val, fold = (_value(words, option) for option in ("--data", "--init", "--val", "--fold"))
    out = Path(_value(words, "--out") or f"runs/{NAME}")
    if recipe := kept(out):
        return Chosen(recipe=recipe, picks=(), note=f"goes on with the recipe that {out} holds")
    start = None if init in (None, "None") else read_known(init)
    if data is None:
        return choose(EXAMPLE, start, machine(), third=False)
    listing = labelled(read_listing(data, split="train", fold=int(fold) if fold in ("2", "3") else 1), several=True)
    third = bool(_value(words, "--watch")) or (val is not None and "val" in splits_of(data))
    return choose(facts_of(listing), start, machine(), third=third)


def _value(words: Sequence[str], option: str) -> str | None:
    """The last that is typed for an option, as `--data X` or `--data=X`."""
    found = None
    for word, after in zip(words, [*words[1:], None], strict=True):
        name, equals, value = word.partition("=")
        if name == option:
            found = value if equals else after
    return found
