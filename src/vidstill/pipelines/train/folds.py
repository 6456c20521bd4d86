"""Three folds: UCF101 and HMDB51 are split in three ways; each has a model of its own, and the mean of them is told."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from vidstill.checkpoints.io import MODEL_FILE
from vidstill.data.manifest.open import open_test_manifest
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.evaluate.classifier import CLASSIFIER_RESULT_FILES, evaluate_classifier, require_labels
from vidstill.pipelines.train.finetune import finetune, open_train_test_manifests
from vidstill.pipelines.train.run_config import RunConfig
from vidstill.pipelines.workers import Workers
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.utils.files import TEST_FILE, check_output_dir, write_json
from vidstill.utils.types import InputError

FOLDS_FILE = "folds.json"

_FOLDS: tuple[Literal[1, 2, 3], ...] = (1, 2, 3)


def finetune_folds(
    recipe: FinetuneRecipe,
    run_config: RunConfig,
    *,
    init: str | None,
    runtime: Runtime | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Fine-tunes and tests a model for each fold, in `fold1`, `fold2`, `fold3`; the same call again goes on.

    Args:
        run_config: its `out` is the folder of the folds.
        init: what each of them starts from.
        notes: sentences to be said before the first is trained.

    Returns:
        What FOLDS_FILE there holds: the folds' top-1 and top-5, and their arithmetic means (MVD's protocol).

    Raises:
        InputError: the data has no three folds, or something else cannot be used; nothing was written then.
    """
    _check_folds_folder(run_config.out)
    for fold in _FOLDS:
        open_train_test_manifests(replace(run_config, fold=fold))  # before the first is trained for hours
    runtime = runtime or Runtime(run_config.precision)
    for fold in _FOLDS:
        of_fold = replace(run_config, fold=fold, out=_fold_folder(run_config.out, fold))
        finetune(recipe, of_fold, init=init, runtime=runtime, notes=notes if fold == _FOLDS[0] else ())
    found = summarize_folds(
        [json.loads((_fold_folder(run_config.out, fold) / TEST_FILE).read_text(encoding="utf-8")) for fold in _FOLDS]
    )
    if runtime.is_main:
        write_json(run_config.out / FOLDS_FILE, found)
    return found


def evaluate_folds(
    source: str,
    data: str | Path,
    *,
    workers: Workers = Workers(),
    out: Path | None = None,
    runtime: Runtime | None = None,
) -> dict[str, Any]:
    """Tests each fold's model on its own fold's test list.

    Args:
        source: the folder of the folds.
        out: a folder to leave all findings in, in a folder for each fold.

    Returns:
        As `finetune_folds`.

    Raises:
        InputError: a fold's model is not there, or the data has no three folds.
    """
    for fold in _FOLDS:
        if not (_fold_folder(Path(source), fold) / MODEL_FILE).is_file():
            raise InputError(
                f"{source} holds no model of fold {fold}; train all: vidstill finetune … --fold all --out {source}"
            )
        require_labels(open_test_manifest(data, fold=fold))  # before the first is tested for an hour
    runtime = runtime or Runtime(workers.precision)
    if out is not None:
        _check_folds_folder(out)
        for fold in _FOLDS:
            check_output_dir(_fold_folder(out, fold), "an evaluation", TEST_FILE, CLASSIFIER_RESULT_FILES)
    tests = []
    for fold in _FOLDS:
        model, there = str(_fold_folder(Path(source), fold)), None if out is None else _fold_folder(out, fold)
        tests.append(evaluate_classifier(model, data, fold=fold, workers=workers, out=there, runtime=runtime).to_dict())
    found = summarize_folds(tests)
    if out is not None and runtime.is_main:
        write_json(out / FOLDS_FILE, found)
    return found


def summarize_folds(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The folds' numbers and their means, from each fold's test."""
    folds = [
        {"fold": fold, "top1": test["top1"], "top5": test["top5"], "videos": test["videos"]}
        for fold, test in zip(_FOLDS, results, strict=True)
    ]
    return {"folds": folds, "mean": {word: mean(fold[word] for fold in folds) for word in ("top1", "top5")}}


def format_folds(summary: dict[str, Any]) -> str:
    """A small table."""
    rows = [*((str(fold["fold"]), fold) for fold in summary["folds"]), ("mean", summary["mean"])]
    lines = (f"{name:4}  {row['top1']:6.2f}  {row['top5']:6.2f}" for name, row in rows)
    return "\n".join(["fold    top1    top5", *lines])


def _fold_folder(folder: Path, fold: int) -> Path:
    return folder / f"fold{fold}"


def _check_folds_folder(folder: Path) -> None:
    """Raises an InputError where a folder of folds would stand among other files."""
    check_output_dir(folder, "folds", FOLDS_FILE, [_fold_folder(folder, fold).name for fold in _FOLDS])
