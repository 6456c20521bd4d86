"""Three folds: UCF101 and HMDB51 are split in three ways; each has a model of its own, and the mean of them is told."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal

from vidstill.checkpoints.io import MODEL_FILE
from vidstill.data.manifest.open import listing_to_test
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.evaluate.classifier import FILES, evaluate, labelled
from vidstill.pipelines.train.finetune import finetune, labelled_splits
from vidstill.pipelines.train.session import Launch
from vidstill.recipes.recipe import Finetune
from vidstill.utils.files import HALF, TEST_FILE, check_findings, write_json
from vidstill.utils.types import InputError

FOLDS_FILE = "folds.json"

_FOLDS: tuple[Literal[1, 2, 3], ...] = (1, 2, 3)


def finetune_folds(
    recipe: Finetune, launch: Launch, *, init: str | None, runtime: Runtime | None = None, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Fine-tunes and tests a model for each fold, in `fold1`, `fold2`, `fold3`; the same call again goes on.

    Args:
        launch: its `out` is the folder of the folds.
        init: what each of them starts from.
        notes: sentences to be said before the first is trained.

    Returns:
        What FOLDS_FILE there holds: the folds' top-1 and top-5, and their arithmetic means (MVD's protocol).

    Raises:
        InputError: the data has no three folds, or something else cannot be used; nothing was written then.
    """
    _check_folder(launch.out)
    for fold in _FOLDS:
        labelled_splits(replace(launch, fold=fold))  # before the first is trained for hours
    runtime = runtime or Runtime(launch.precision)
    for fold in _FOLDS:
        of_fold = replace(launch, fold=fold, out=_of(launch.out, fold))
        finetune(recipe, of_fold, init=init, runtime=runtime, notes=notes if fold == _FOLDS[0] else ())
    found = summary([json.loads((_of(launch.out, fold) / TEST_FILE).read_text(encoding="utf-8")) for fold in _FOLDS])
    if runtime.is_main:
        write_json(launch.out / FOLDS_FILE, found)
    return found


def evaluate_folds(
    source: str, launch: Launch, *, out: Path | None = None, runtime: Runtime | None = None
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
        if not (_of(Path(source), fold) / MODEL_FILE).is_file():
            raise InputError(
                f"{source} holds no model of fold {fold}; train all: vidstill finetune … --fold all --out {source}"
            )
        labelled(listing_to_test(launch.data, fold=fold))  # before the first is tested for an hour
    runtime = runtime or Runtime(launch.precision)
    if out is not None:
        _check_folder(out)
        for fold in _FOLDS:
            check_findings(_of(out, fold), FILES)
    tests = []
    for fold in _FOLDS:
        model, there = str(_of(Path(source), fold)), None if out is None else _of(out, fold)
        tests.append(evaluate(model, replace(launch, fold=fold), out=there, runtime=runtime).plain())
    found = summary(tests)
    if out is not None and runtime.is_main:
        write_json(out / FOLDS_FILE, found)
    return found


def summary(tests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The folds' numbers and their means, from each fold's test."""
    folds = [
        {"fold": fold, "top1": test["top1"], "top5": test["top5"], "videos": test["videos"]}
        for fold, test in zip(_FOLDS, tests, strict=True)
    ]
    return {"folds": folds, "mean": {word: mean(fold[word] for fold in folds) for word in ("top1", "top5")}}


def in_words(found: dict[str, Any]) -> str:
    """A small table."""
    rows = [*((str(fold["fold"]), fold) for fold in found["folds"]), ("mean", found["mean"])]
    lines = (f"{name:4}  {row['top1']:6.2f}  {row['top5']:6.2f}" for name, row in rows)
    return "\n".join(["fold    top1    top5", *lines])


def _of(folder: Path, fold: int) -> Path:
    return folder / f"fold{fold}"


def _check_folder(folder: Path) -> None:
    """Raises an InputError where a folder of folds would stand among other files."""
    ours = (FOLDS_FILE, *(_of(folder, fold).name for fold in _FOLDS))
    if folder.exists() and not (
        folder.is_dir() and all(each.name.removesuffix(HALF) in ours for each in folder.iterdir())
    ):
        raise InputError(f"{folder} is there and holds something else than folds; choose another folder with --out")
