"""What `vidstill pretrain`, `finetune_command` and `evaluate_command` do: their options are the function's signature, read by tyro."""

import json as jsons
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from vidstill.checkpoints.load import load_checkpoint
from vidstill.data.manifest.open import list_splits, open_manifest
from vidstill.engine.distributed import Precision
from vidstill.pipelines.evaluate import classifier as testing
from vidstill.pipelines.evaluate.classifier import require_labels
from vidstill.pipelines.train import folds
from vidstill.pipelines.train.finetune import finetune as run_finetune
from vidstill.pipelines.train.pretrain import pretrain as run_pretrain
from vidstill.pipelines.train.run_config import RunConfig
from vidstill.pipelines.workers import Workers
from vidstill.recipes.auto.choose import AutoRecipe, choose_recipe, load_run_recipe
from vidstill.recipes.auto.dataset_stats import EXAMPLE_STATS, compute_dataset_stats, detect_hardware
from vidstill.recipes.auto.defaults import AUTO_RULES
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.tasks.results import format_classification_result
from vidstill.utils.files import TEST_FILE
from vidstill.utils.terminal import echo
from vidstill.utils.types import InputError

_NO_PREFIX = tyro.conf.arg(name="")  # its fields are options without a prefix


@dataclass(frozen=True, kw_only=True)
class FoldsRunConfig(RunConfig):
    """As Launch, of one fold or of all.

    Args:
        fold: which of the three official splits of UCF101 and HMDB51; all: a run for each, and the mean of their tests.
    """

    fold: Literal[1, 2, 3, "all"] = 1  # type: ignore[assignment]

    @property
    def single_fold(self) -> RunConfig:
        """As it is of one fold."""
        return RunConfig(
            **{field.name: getattr(self, field.name) for field in fields(RunConfig) if field.name != "fold"}
        )


def pretrain_command(
    *,
    run_config: Annotated[RunConfig, _NO_PREFIX],
    init: str | None = None,
    recipe: Annotated[PretrainRecipe, _NO_PREFIX],
) -> None:
    """Pre-trains by a recipe; the same command again resumes it.

    Args:
        init: a run's folder or a file of weights that the encoder starts from; None: from scratch.
    """
    out = run_pretrain(recipe, run_config, init=init)
    echo(f"pre-trained: {out}; next: vidstill finetune RECIPE --init {out} --data DATA")


def finetune_command(
    *,
    run_config: Annotated[FoldsRunConfig, _NO_PREFIX],
    init: str | None = None,
    recipe: Annotated[FinetuneRecipe, _NO_PREFIX],
) -> None:
    """Trains a classifier and tests it; the same command again resumes it.

    Args:
        init: a run's folder or a file of weights to start from; None: from scratch.
    """
    finetune_with_notes(run_config, init, recipe, ())


def finetune_with_notes(
    run_config: FoldsRunConfig, init: str | None, recipe: FinetuneRecipe, notes: Sequence[str]
) -> None:
    """
    Args:
        notes: sentences to be said before training.
    """
    if run_config.fold == "all":
        found = folds.finetune_folds(recipe, run_config.single_fold, init=init, notes=notes)
        echo(f"fine-tuned: {run_config.out}, a run for each fold\n{folds.format_folds(found)}")
        return
    out = run_finetune(recipe, run_config, init=init, notes=notes)
    echo(f"fine-tuned: {out}\n{format_classification_result(jsons.loads((out / TEST_FILE).read_text()))}")


def evaluate_command(
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
    machine = Workers(workers=workers, device_batch=device_batch, precision=precision)
    if fold == "all":
        found = folds.evaluate_folds(source, data, workers=machine, out=out)
        echo(jsons.dumps(found, indent=1) if json else folds.format_folds(found))
    else:
        found = testing.evaluate_classifier(source, data, fold=fold, workers=machine, out=out).to_dict()
        echo(jsons.dumps(found, indent=1) if json else format_classification_result(found))


EVALUATE_COMMANDS: dict[str, Callable[..., None]] = {"evaluate": evaluate_command}


AUTO_RECIPE_NAME = "auto"


AUTO_RECIPE_HELP = (
    "The recipe `auto` is made for the data: `vidstill finetune auto --data DATA` counts clips and classes, looks at "
    f"up to {AUTO_RULES.max_probed_files} files, at the machine and at what --init names, and says what it picked and why; every "
    "pick is an option that can be typed."
)


def choose_auto_recipe(verb: str, args: Sequence[str]) -> AutoRecipe:
    """The recipe for what the words name; that of the run which the folder holds, where it holds one.

    Args:
        args: that come after the name; without --data, an example stands for it.

    Raises:
        InputError: the data have no labels, or something else that was named cannot be used.
    """
    if verb != "finetune":
        raise InputError(f"{AUTO_RECIPE_NAME} makes recipes for fine-tuning; type vidstill finetune {AUTO_RECIPE_NAME}")
    data, init, val, fold = (_get_option_value(args, option) for option in ("--data", "--init", "--val", "--fold"))
    out = Path(_get_option_value(args, "--out") or f"runs/{AUTO_RECIPE_NAME}")
    if recipe := load_run_recipe(out):
        return AutoRecipe(recipe=recipe, choices=(), note=f"goes on with the recipe that {out} holds")
    start = None if init in (None, "None") else load_checkpoint(init)
    if data is None:
        return choose_recipe(EXAMPLE_STATS, start, detect_hardware(), has_validation=False)
    listing = require_labels(
        open_manifest(data, split="train", fold=int(fold) if fold in ("2", "3") else 1), multi_label=True
    )
    third = bool(_get_option_value(args, "--watch")) or (val is not None and "val" in list_splits(data))
    return choose_recipe(compute_dataset_stats(listing), start, detect_hardware(), has_validation=third)


def _get_option_value(args: Sequence[str], option: str) -> str | None:
    """The last that is typed for an option, as `--data X` or `--data=X`."""
    found = None
    for word, after in zip(args, [*args[1:], None], strict=True):
        name, equals, value = word.partition("=")
        if name == option:
            found = value if equals else after
    return found
