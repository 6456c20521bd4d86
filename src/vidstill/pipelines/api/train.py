"""Training from Python: `pretrain`, `finetune`, `train_detector`; the same call again resumes the run."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from vidstill.engine.compile import RequestedCompileMode
from vidstill.engine.distributed import Precision
from vidstill.pipelines.api.paths import optional_text, parse_init
from vidstill.pipelines.run_config import AutoRunConfig, DetectRunConfig, RunConfig
from vidstill.pipelines.train.auto import prepare_auto_run
from vidstill.pipelines.train.detector import run_detector_training
from vidstill.pipelines.train.finetune import run_finetuning
from vidstill.pipelines.train.folds import finetune_folds
from vidstill.pipelines.train.pretrain import run_pretraining
from vidstill.recipes.change import change_recipe, nest_changes
from vidstill.recipes.recipe import DetectionRecipe, FinetuneRecipe, PretrainRecipe, Recipe
from vidstill.recipes.sources import name_run, open_recipe
from vidstill.utils.arguments import check_arguments
from vidstill.utils.output_dir import read_result
from vidstill.utils.types import InputError, StrPath

RecipeT = TypeVar("RecipeT", PretrainRecipe, FinetuneRecipe, DetectionRecipe)

_FUNCTIONS: dict[type, str] = {
    PretrainRecipe: "pretrain",
    FinetuneRecipe: "finetune",
    DetectionRecipe: "train_detector",
}


@dataclass(frozen=True)
class TrainedModel(os.PathLike[str]):
    """A finished run with the result of its test; every function that takes a model takes it.

    Args:
        out: The run directory.
        metrics: The content of its `test.json`: `metrics["top1"]`, …; with `fold="all"` each fold's numbers and means.
    """

    out: Path
    metrics: dict[str, Any]

    def __fspath__(self) -> str:
        return str(self.out)


@check_arguments
def pretrain(
    recipe: StrPath | PretrainRecipe,
    *,
    data: StrPath,
    out: StrPath | None = None,
    init: StrPath | None = None,
    changes: Mapping[str, Any] = {},
    fold: Literal[1, 2, 3] = 1,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
    save_seconds: float = 600.0,
    keep_states: int = 2,
    keep_every: int | None = None,
    resume_from: int | None = None,
    resume_with: Mapping[str, Any] = {},
    cache: Literal["auto", "off"] = "auto",
    compile: RequestedCompileMode = "auto",
    activation_checkpointing: bool = False,
) -> Path:
    """Pre-train an encoder, by masking or distillation; the same call again resumes the run.

    Args:
        recipe: A recipe's name, such as "amd.small_k400"; `file.py:name`; a run directory or its `recipe.json`; or a
            recipe object.
        data: Directory of videos or of class directories, list, or packed shards; a path or URL.
        out: Run directory; None: `runs/` and the recipe's name.
        init: Run directory or weights file to start from; None: random weights.
        changes: Settings of the recipe by their dotted names: `{"schedule.epochs": 1, "method.mask": "random"}`.
        fold: Which of the three official splits of UCF101 and HMDB51.
        workers: Decoding processes per device; -1: the device's share of the CPU cores, minus one.
        device_batch: Clips that a device processes at once; None: all clips of a batch.
        precision: auto: bf16 where the device computes it fast, else fp32.
        save_seconds: Seconds between two checkpoints.
        keep_states: Checkpoints that remain in the run directory, the newest ones.
        keep_every: Steps after each of which a checkpoint is saved that remains.
        resume_from: Step of a checkpoint of this run to go on from; None: the newest one.
        resume_with: Settings with which the run goes on, by their dotted names: `{"optim.base_lr": 1e-4}`; recorded, so
            that the call without them goes on with them too.
        cache: "auto": videos that fit a quarter of the free memory are decoded once and held there; "off": none.
        compile: What torch.compile compiles in training: "blocks" (one graph for all of a kind), "full" (everything in
            one graph), "off"; "auto": blocks on a GPU, off on a CPU.
        activation_checkpointing: Keep only the inputs of the blocks for the backward pass and compute them twice: less
            memory, more time.

    Returns:
        The run directory, which the other functions take as `init` or as a model.

    Raises:
        InputError: An argument cannot be used; nothing has been written.
    """
    resolved, typed = _resolve_recipe(recipe, PretrainRecipe, changes)
    run_config = RunConfig(
        data=os.fspath(data),
        out=_choose_run_dir(out, recipe),
        fold=fold,
        workers=workers,
        device_batch=device_batch,
        precision=precision,
        save_seconds=save_seconds,
        keep_states=keep_states,
        keep_every=keep_every,
        resume_from=resume_from,
        resume_with=_format_settings(resume_with),
        cache=cache,
        compile=compile,
        activation_checkpointing=activation_checkpointing,
    )
    return run_pretraining(resolved, run_config, init=parse_init(init), changes=typed)


@check_arguments
def finetune(
    recipe: StrPath | FinetuneRecipe = "auto",
    *,
    data: StrPath,
    out: StrPath | None = None,
    init: StrPath | None = None,
    pretrain_first: StrPath | None = None,
    test_data: StrPath | None = None,
    val_data: StrPath | None = None,
    val_share: float | None = None,
    changes: Mapping[str, Any] = {},
    fold: Literal[1, 2, 3, "all"] = 1,
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
    save_seconds: float = 600.0,
    keep_states: int = 2,
    keep_every: int | None = None,
    resume_from: int | None = None,
    resume_with: Mapping[str, Any] = {},
    cache: Literal["auto", "off"] = "auto",
    compile: RequestedCompileMode = "auto",
    activation_checkpointing: bool = False,
) -> TrainedModel:
    """Fine-tune a classifier, from `init` or from scratch, and test it; the same call again resumes the run.

    Args:
        recipe: As for `pretrain`; "auto" makes one for the data, the machine and `init`, and logs its reasons.
        data: Labelled videos or images, as for `pretrain`.
        out: Run directory; None: `runs/` and the recipe's name.
        init: Run directory or weights file that the encoder starts from; "scratch": random weights; None: these,
            or with "auto" what a short comparison with the encoders that come with vidstill favours.
        pretrain_first: Videos without labels on which "auto" pre-trains the encoder first, in `out/pretraining`; None:
            it does not.
        test_data: Labelled test videos, their val split if they have splits; None: that of `data`, or what `val_share`
            holds out.
        val_data: Labelled videos that are scored after each epoch; as for `test_data`.
        val_share: Share of the training videos held out for validation, of each class alike, by group where a table has
            the column `group`; None: nothing is held out.
        changes: Settings of the recipe by their dotted names, as for `pretrain`; of "auto", instead of its choices.
        fold: Which of the three official splits of UCF101 and HMDB51; all: a run for each, and their mean.
        workers: Decoding processes per device; -1: the device's share of the CPU cores, minus one.
        device_batch: Clips that a device processes at once; None: all clips of a batch.
        precision: auto: bf16 where the device computes it fast, else fp32.
        save_seconds: Seconds between two checkpoints.
        keep_states: Checkpoints that remain in the run directory, the newest ones.
        keep_every: Steps after each of which a checkpoint is saved that remains.
        resume_from: Step of a checkpoint of this run to go on from; None: the newest one.
        resume_with: Settings with which the run goes on, by their dotted names: `{"optim.base_lr": 1e-4}`; recorded, so
            that the call without them goes on with them too.
        cache: "auto": videos that fit a quarter of the free memory are decoded once and held there; "off": none.
        compile: What torch.compile compiles in training: "blocks" (one graph for all of a kind), "full" (everything in
            one graph), "off"; "auto": blocks on a GPU, off on a CPU.
        activation_checkpointing: Keep only the inputs of the blocks for the backward pass and compute them twice: less
            memory, more time.

    Returns:
        The run directory and the numbers of its test.

    Raises:
        InputError: An argument cannot be used; nothing has been written.
    """
    run_config = AutoRunConfig(
        data=os.fspath(data),
        out=_choose_run_dir(out, recipe),
        test_data=optional_text(test_data),
        val_data=optional_text(val_data),
        val_share=val_share,
        fold=fold,
        workers=workers,
        device_batch=device_batch,
        precision=precision,
        save_seconds=save_seconds,
        keep_states=keep_states,
        keep_every=keep_every,
        resume_from=resume_from,
        resume_with=_format_settings(resume_with),
        cache=cache,
        compile=compile,
        activation_checkpointing=activation_checkpointing,
        pretrain_first=optional_text(pretrain_first),
    )
    start, notes = parse_init(init), tuple[str, ...]()
    if recipe == "auto":
        typed = nest_changes(changes)
        auto = prepare_auto_run(run_config, optional_text(init), typed)
        resolved, start, notes = auto.recipe, auto.init, auto.notes
    elif pretrain_first is not None:
        raise InputError('pretrain_first is for the recipe "auto"; call pretrain first, and give its run as init')
    else:
        resolved, typed = _resolve_recipe(recipe, FinetuneRecipe, changes)
    if run_config.fold == "all":
        folds = finetune_folds(resolved, run_config, init=start, notes=notes, changes=typed)
        return TrainedModel(run_config.out, folds)
    return _read_test(run_finetuning(resolved, run_config, init=start, notes=notes, changes=typed))


@check_arguments
def train_detector(
    recipe: StrPath | DetectionRecipe,
    *,
    data: StrPath,
    out: StrPath | None = None,
    init: StrPath | None = None,
    train_person_boxes: StrPath | None = None,
    person_boxes: StrPath | None = None,
    actions: StrPath | None = None,
    start_second: float | None = None,
    fps: float = 30.0,
    changes: Mapping[str, Any] = {},
    workers: int = -1,
    device_batch: int | None = None,
    precision: Precision = "auto",
    save_seconds: float = 600.0,
    keep_states: int = 2,
    keep_every: int | None = None,
    resume_from: int | None = None,
    resume_with: Mapping[str, Any] = {},
    compile: RequestedCompileMode = "auto",
    activation_checkpointing: bool = False,
) -> TrainedModel:
    """Train a detector of actions and test it; the same call again resumes the run.

    Args:
        recipe: As for `pretrain`: "laptop.detect", …
        data: Directory with `annotations` in AVA's formats and the videos beside it: AVA itself, or your own data.
        out: Run directory; None: `runs/` and the recipe's name.
        init: Run directory or weights file that the encoder starts from; None: random weights.
        train_person_boxes: Detected person boxes of the training key frames, for recipes that use them.
        person_boxes: File of detected person boxes in the test's key frames; None: the file that the data set has;
            "annotated": the annotated boxes themselves, which is an easier test.
        actions: File with the list of actions; None: the data set's own.
        start_second: Second of the annotations' time at which the video files begin; None: it is inferred.
        fps: Frames per second of videos that are directories of frames.
        changes: Settings of the recipe by their dotted names, as for `pretrain`.
        workers: Decoding processes per device; -1: the device's share of the CPU cores, minus one.
        device_batch: Clips that a device processes at once; None: all clips of a batch.
        precision: auto: bf16 where the device computes it fast, else fp32.
        save_seconds: Seconds between two checkpoints.
        keep_states: Checkpoints that remain in the run directory, the newest ones.
        keep_every: Steps after each of which a checkpoint is saved that remains.
        resume_from: Step of a checkpoint of this run to go on from; None: the newest one.
        resume_with: Settings with which the run goes on, by their dotted names: `{"optim.base_lr": 1e-4}`; recorded, so
            that the call without them goes on with them too.
        compile: What torch.compile compiles in training: "blocks" (one graph for all of a kind), "full" (everything in
            one graph), "off"; "auto": blocks on a GPU, off on a CPU.
        activation_checkpointing: Keep only the inputs of the blocks for the backward pass and compute them twice: less
            memory, more time.

    Returns:
        The run directory and the numbers of its test.

    Raises:
        InputError: An argument cannot be used; nothing has been written.
    """
    resolved, typed = _resolve_recipe(recipe, DetectionRecipe, changes)
    run_config = DetectRunConfig(
        data=os.fspath(data),
        out=_choose_run_dir(out, recipe),
        train_person_boxes=optional_text(train_person_boxes),
        person_boxes=optional_text(person_boxes),
        actions=optional_text(actions),
        start_second=start_second,
        fps=fps,
        workers=workers,
        device_batch=device_batch,
        precision=precision,
        save_seconds=save_seconds,
        keep_states=keep_states,
        keep_every=keep_every,
        resume_from=resume_from,
        resume_with=_format_settings(resume_with),
        compile=compile,
        activation_checkpointing=activation_checkpointing,
    )
    return _read_test(run_detector_training(resolved, run_config, init=parse_init(init), changes=typed))


def _resolve_recipe(
    source: StrPath | RecipeT, recipe_type: type[RecipeT], changes: Mapping[str, Any]
) -> tuple[RecipeT, dict[str, Any]]:
    """Return the recipe with its changes, and these as nested dicts."""
    recipe: Recipe = open_recipe(os.fspath(source)) if isinstance(source, str | os.PathLike) else source
    if not isinstance(recipe, recipe_type):
        function = _FUNCTIONS.get(type(recipe))
        advice = f"; call vidstill.{function}" if function else ""
        raise InputError(f"{source} is no {recipe_type.__name__} but a {type(recipe).__name__}{advice}")
    nested = nest_changes(changes)
    return change_recipe(recipe, nested), nested


def _format_settings(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return settings as they are typed behind --resume-with."""
    return tuple(f"{name}={json.dumps(value)}" for name, value in settings.items())


def _choose_run_dir(out: StrPath | None, recipe: StrPath | Recipe) -> Path:
    """Return `out`, or by default the directory that the command line chooses."""
    if out is not None:
        return Path(out)
    if not isinstance(recipe, str | os.PathLike):
        raise InputError("a recipe object has no name to call its run by; give a run directory: out=…")
    return Path("runs") / name_run(os.fspath(recipe)).replace("-", "_")


def _read_test(out: Path) -> TrainedModel:
    return TrainedModel(out, read_result(out))
