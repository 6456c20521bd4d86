"""The three official splits of UCF101 and HMDB51: a model is trained for each, and their mean is reported."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from vidstill.checkpoints.io import MODEL_FILE
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.evaluate.classifier import CLASSIFIER_RESULT_FILES, evaluate_classifier
from vidstill.pipelines.labeled_data import open_labeled_test
from vidstill.pipelines.run_config import FinetuneRunConfig, Workers
from vidstill.pipelines.train.finetune import open_run_splits, run_finetuning
from vidstill.recipes.recipe import FinetuneRecipe
from vidstill.utils.checksums import forget_checksums, record_checksums
from vidstill.utils.files import TEST_FILE, write_json
from vidstill.utils.locks import lock_outputs
from vidstill.utils.output_dir import check_output_dir, read_result
from vidstill.utils.terminal import align_columns
from vidstill.utils.types import InputError

FOLDS_FILE = "folds.json"

_SHARES = {"top1": "top-1", "top5": "top-5", "majority_baseline": "majority"}  # of a fold's results, and their titles

_FOLDS: tuple[Literal[1, 2, 3], ...] = (1, 2, 3)


def finetune_folds(
    recipe: FinetuneRecipe,
    run_config: FinetuneRunConfig,
    *,
    init: str | None = None,
    notes: Sequence[str] = (),
    changes: Mapping[str, Any] = {},
) -> dict[str, Any]:
    """Fine-tune and test a model for each fold, in `fold1`, `fold2` and `fold3`; the same call again resumes.

    Args:
        recipe: The settings of each run.
        run_config: Its `out` is the directory of the folds.
        init: What each run starts from, as for `run_finetuning`.
        notes: Messages before the first training.
        changes: The settings that the user gave, as for `run_finetuning`.

    Returns:
        The content of FOLDS_FILE: top-1, top-5 and the majority baseline of each fold, and their arithmetic means
        (MVD's protocol).

    Raises:
        InputError: The data have no three folds, or something else cannot be used; nothing has been written.
    """
    out = run_config.out
    if run_config.resume_with or run_config.resume_from is not None:
        raise InputError(
            f"--resume-with and --resume-from are for one run; give --fold 1 --out {out}/fold1, or another fold"
        )
    _check_folds_dir(out)
    for fold in _FOLDS:  # before the first fold is trained for hours
        open_run_splits(run_config, fold=fold)
    runs = [replace(run_config, fold=fold, out=_fold_dir(out, fold)) for fold in _FOLDS]
    runtime = Runtime(run_config.precision)
    with runtime.enter_on_main(lock_outputs(out)):
        for run in runs:
            run_finetuning(
                recipe, run, init=init, runtime=runtime, notes=notes if run is runs[0] else (), changes=changes
            )
        return _summarize_folds([read_result(run.out) for run in runs], out, runtime)


def evaluate_folds(
    source: str, data: str | Path, *, workers: Workers = Workers(), out: Path | None = None
) -> dict[str, Any]:
    """Test the model of each fold on that fold's test list.

    Args:
        source: The directory of the folds.
        data: The data set.
        workers: Decoding processes, views per device, precision.
        out: Directory for the results, one directory per fold.

    Returns:
        As `finetune_folds`.

    Raises:
        InputError: The model of a fold is missing, or the data have no three folds.
    """
    if out is not None:
        _check_folds_dir(out)
    for fold in _FOLDS:  # before the first fold is tested for an hour
        if not (_fold_dir(Path(source), fold) / MODEL_FILE).is_file():
            raise InputError(
                f"{source} holds no model of fold {fold}; train all: vidstill finetune … --fold all --out {source}"
            )
        open_labeled_test(data, fold=fold)
        if out is not None:
            check_output_dir(_fold_dir(out, fold), "an evaluation", TEST_FILE, CLASSIFIER_RESULT_FILES)
    runtime, results = Runtime(workers.precision), []
    with runtime.enter_on_main(lock_outputs(out)):
        for fold in _FOLDS:
            model, result_dir = str(_fold_dir(Path(source), fold)), None if out is None else _fold_dir(out, fold)
            result = evaluate_classifier(model, data, fold=fold, workers=workers, out=result_dir, runtime=runtime)
            results.append(result.to_dict())
        return _summarize_folds(results, out, runtime)


def _summarize_folds(results: Sequence[dict[str, Any]], out: Path | None, runtime: Runtime) -> dict[str, Any]:
    """Return the numbers of each fold and their means; write them too."""
    folds = [
        {"fold": fold, **{key: result[key] for key in (*_SHARES, "videos")}}
        for fold, result in zip(_FOLDS, results, strict=True)
    ]
    summary = {"folds": folds, "mean": {key: mean(fold[key] for fold in folds) for key in _SHARES}}
    if out is not None and runtime.is_main:
        path = out / FOLDS_FILE
        forget_checksums(out, [path])
        write_json(path, summary)
        record_checksums(out, [path])
    return summary


def format_folds(summary: dict[str, Any]) -> str:
    """Format the folds' numbers as a table."""
    rows = [*summary["folds"], {"fold": "mean", **summary["mean"]}]
    cells = [(str(row["fold"]), *(f"{row[key]:.2f}" for key in _SHARES)) for row in rows]
    return "\n".join(align_columns([("fold", *_SHARES.values()), *cells]))


def _fold_dir(directory: Path, fold: int) -> Path:
    return directory / f"fold{fold}"


def _check_folds_dir(directory: Path) -> None:
    """Raise an InputError if the directory holds something else than folds."""
    check_output_dir(directory, "folds", FOLDS_FILE, [_fold_dir(directory, fold).name for fold in _FOLDS])
