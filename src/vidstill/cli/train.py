"""`vidstill pretrain`, `finetune`, `evaluate` and `quickstart`; a function's signature is its options."""

import json as jsons
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional

from vidstill.cli.options import NO_PREFIX, Json, Source
from vidstill.pipelines.run_config import FinetuneRunConfig, RunConfig, Workers
from vidstill.recipes.quickstart import DistillationMethod
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.utils.output_dir import read_result
from vidstill.utils.terminal import echo

# The work is imported where it is done: `--help` and a mistyped option answer without it.


def pretrain_command(
    recipe: PretrainRecipe, run_config: RunConfig, init: str | None, *, changes: Mapping[str, Any] = {}
) -> None:
    """Pre-train an encoder by a recipe; the same command again resumes the run."""
    from vidstill.pipelines.train.pretrain import run_pretraining

    out = run_pretraining(recipe, run_config, init=init, changes=changes)
    echo(f"pre-trained: {out}; next: vidstill finetune RECIPE --init {out} --data DATA")


def finetune_command(
    recipe: FinetuneRecipe,
    run_config: FinetuneRunConfig,
    init: str | None,
    *,
    notes: Sequence[str] = (),
    changes: Mapping[str, Any] = {},
) -> None:
    """Fine-tune a classifier by a recipe and test it; the same command again resumes the run."""
    from vidstill.pipelines.train.finetune import run_finetuning
    from vidstill.pipelines.train.folds import finetune_folds, format_folds
    from vidstill.tasks.results import format_classification_result

    if run_config.fold == "all":
        summary = finetune_folds(recipe, run_config, init=init, notes=notes, changes=changes)
        echo(f"fine-tuned: {run_config.out}, one run per fold\n{format_folds(summary)}")
    else:
        out = run_finetuning(recipe, run_config, init=init, notes=notes, changes=changes)
        echo(f"fine-tuned: {out}\n{format_classification_result(read_result(out))}")


def evaluate_command(
    source: Positional[Source],
    /,
    *,
    data: str | Path,
    out: Path | None = None,
    fold: Literal[1, 2, 3, "all"] = 1,
    workers: Annotated[Workers, NO_PREFIX] = Workers(),
    json: Json = False,
) -> None:
    """Test a fine-tuned classifier over the views of its recipe: accuracy, each class, calibration, each video.

    Args:
        data: Labelled videos; their val split, where they have splits.
        out: Directory for the results: test.json, scores.csv (one line per video), classes.csv, confusion.csv,
            confusion.png. None: results are only printed.
        fold: Which of the three official splits of UCF101 and HMDB51; all: the model of each fold of a fine-tuning
            with `--fold all`, on that fold's test list.
    """
    from vidstill.pipelines.evaluate.classifier import evaluate_classifier
    from vidstill.pipelines.train.folds import evaluate_folds, format_folds
    from vidstill.tasks.results import format_classification_result

    if fold == "all":
        result = evaluate_folds(source, data, workers=workers, out=out)
        text = format_folds(result)
    else:
        result = evaluate_classifier(source, data, fold=fold, workers=workers, out=out).to_dict()
        text = format_classification_result(result)
    echo(jsons.dumps(result, indent=1) if json else text)


def quickstart_command(
    *,
    method: DistillationMethod = "dmae",
    data: str | None = None,
    train_teacher: bool = False,
    out: Path = Path("runs/quickstart"),
    smoke_test: bool = False,
    seed: int = 0,
    workers: int = -1,
) -> None:
    """Distil a small model, beside one pre-trained on pixels and one from scratch; the same command again resumes.

    Args:
        method: Distillation method of the student.
        data: Labelled clips of your own with a val split, as for `finetune`; None: drawn clips.
        train_teacher: Pre-train the teacher on the same clips as the students, instead of the one that comes with
            vidstill.
        out: Directory of runs and report; another method in the same directory reuses what both share.
        smoke_test: Only a few steps of everything, to see that it runs; the numbers then mean nothing.
        seed: Random seed of the drawn clips and of every run.
        workers: Decoding processes; -1: one less than there are cores.
    """
    from vidstill.pipelines.quickstart.run import quickstart

    quickstart(
        out=out,
        method=method,
        data=data,
        train_teacher=train_teacher,
        smoke_test=smoke_test,
        seed=seed,
        workers=workers,
    )
