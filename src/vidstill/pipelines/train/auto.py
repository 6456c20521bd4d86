"""The automatic fine-tuning, up to the run itself: its start, recipe, and a pre-training on clips without labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import load_checkpoint
from vidstill.checkpoints.shipped import SCRATCH, SHIPPED_SCHEME, list_shipped_starts
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest
from vidstill.engine.distributed import Runtime
from vidstill.pipelines.forks import parse_fork_request, plan_forks
from vidstill.pipelines.labeled_data import LabeledSplits, list_shared_rows
from vidstill.pipelines.run_config import AutoRunConfig, RunConfig
from vidstill.pipelines.run_dir import lock_run_dir
from vidstill.pipelines.train.finetune import open_run_splits
from vidstill.pipelines.train.pretrain import run_pretraining
from vidstill.pipelines.train.starts import decide_start, read_start
from vidstill.recipes.auto import defaults
from vidstill.recipes.auto.choose import AutoRecipe, choose_recipe
from vidstill.recipes.auto.dataset_stats import DatasetStats, Hardware, compute_dataset_stats, detect_hardware
from vidstill.recipes.auto.pretraining import choose_pretraining
from vidstill.recipes.auto.public import propose_public_checkpoint
from vidstill.recipes.auto.starts import can_compare
from vidstill.recipes.change import change_recipe
from vidstill.recipes.recipe import FinetuneRecipe, PretrainRecipe
from vidstill.recipes.run_file import RunFile, find_run
from vidstill.utils.files import PRETRAINING_DIR
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class AutoRun:
    """What `run_finetuning` or `finetune_folds` takes: a recipe, its start, and messages before training."""

    recipe: FinetuneRecipe
    init: str | None
    notes: tuple[str, ...]


def prepare_auto_run(run_config: AutoRunConfig, init: str | None, changes: Mapping[str, Any]) -> AutoRun:
    """Choose start and recipe for the data and the machine, or take those of the run that is resumed.

    Args:
        run_config: Data and run directory; where pre-training comes first, it is done here.
        init: Run directory or weights file to start from; SCRATCH: random weights; None: these, or an encoder that
            comes with the package where a comparison favours it.
        changes: The settings that the user gave, as nested dicts.

    Raises:
        InputError: The data have no labels, or something else cannot be used.
    """
    pretrain_first = run_config.pretrain_first
    unlabelled = None if pretrain_first is None else open_manifest(pretrain_first, split="train")
    run = find_run(run_config.out)
    if run and run.is_of(FinetuneRecipe):  # the run refuses another one's directory
        return _resume(run, run_config, init, changes)
    splits = open_run_splits(run_config, fold=run_config.first_fold)
    choice = _Choice(splits, compute_dataset_stats(splits.train), detect_hardware(), changes)
    given = None if init == SCRATCH else init
    auto, recipe = choice.choose(load_checkpoint(given) if given else None, given)
    plan_forks(run_config.out, recipe, parse_fork_request(run_config.resume_from, run_config.resume_with))
    notes = [] if init else [propose_public_checkpoint(choice.stats, choice.hardware)]
    if unlabelled is not None:
        notes += _check_unlabelled(unlabelled, choice)
    starts = choice.list_starts(recipe) if init is None else {}
    if starts and run_config.fold == "all":
        notes.append(
            f"starts from {SCRATCH}: training videos of a fold are test videos of another, so none is compared"
        )
        starts = {}
    if starts or unlabelled is not None:
        runtime = Runtime(run_config.precision)
        with runtime.enter_on_main(lock_run_dir(run_config.out)):
            if starts:
                decision = decide_start(recipe, starts, splits, run_config, runtime)
                notes.append(decision.reason)
                if decision.start != SCRATCH:
                    given = decision.start
                    auto, recipe = choice.choose(starts[given], given)
            if unlabelled is not None:
                given = str(_pretrain(unlabelled, recipe, given, run_config, choice.hardware, runtime))
    return AutoRun(recipe=recipe, init=given, notes=(*filter(None, notes), *auto.explain(recipe)))


@dataclass(frozen=True)
class _Choice:
    """What a recipe is chosen for."""

    splits: LabeledSplits
    stats: DatasetStats
    hardware: Hardware
    changes: Mapping[str, Any]

    def choose(self, start: Checkpoint | None, address: str | None) -> tuple[AutoRecipe, FinetuneRecipe]:
        """Return the recipe as it was chosen, and with the user's changes."""
        validation, test = self.splits.validation, self.splits.test
        auto = choose_recipe(
            self.stats,
            start,
            self.hardware,
            num_validation_clips=len(validation),
            is_tested_on_validation=validation.fingerprint == test.fingerprint,
            free_clips=(address or "").startswith(SHIPPED_SCHEME),
        )
        return auto, change_recipe(auto.recipe, self.changes)

    def list_starts(self, recipe: FinetuneRecipe) -> dict[str, Checkpoint]:
        """Return the encoders of the package that a training by this recipe could start from, by address."""
        if self.stats.is_images or self.stats.num_clips < defaults.MIN_COMPARED_CLIPS or "encoder" in self.changes:
            return {}
        starts = {address: load_checkpoint(address) for address in list_shipped_starts()}
        return {address: start for address, start in starts.items() if can_compare(recipe, start)}


def _resume(run: RunFile, run_config: AutoRunConfig, init: str | None, changes: Mapping[str, Any]) -> AutoRun:
    """Return recipe and start of a run; nothing is chosen anew."""
    recipe = change_recipe(run.parse_recipe(FinetuneRecipe, original=True), changes)
    decision = {} if init else read_start(run_config.out)
    start = decision.get("start", init)
    given = None if start == SCRATCH else start
    if run_config.pretrain_first is not None:
        pretraining = run_config.out / PRETRAINING_DIR
        if not pretraining.is_dir():
            raise InputError(f"{run_config.out} holds a run without pre-training; choose another directory")
        given = str(pretraining)
    notes = (f"resumes the recipe of {run_config.out}", decision.get("reason", ""))
    return AutoRun(recipe=recipe, init=given, notes=notes)


def _check_unlabelled(unlabelled: Manifest, choice: _Choice) -> list[str]:
    """Return messages on a pre-training that may not pay or that has seen test videos.

    Raises:
        InputError: There are images.
    """
    train, test = choice.splits.train, choice.splits.test
    if choice.stats.is_images:
        raise InputError(f"--pretrain-first is for videos, and {train.source} has images; leave it out")
    if unlabelled.noun == "image":
        raise InputError(f"--pretrain-first needs videos, and {unlabelled.source} has images; give videos")
    notes = []
    if len(unlabelled) < defaults.MIN_UNLABELLED_RATIO * len(train):
        notes.append(
            f"pre-training first pays with many more videos without labels than with them; here are {len(unlabelled)} "
            f"without and {len(train)} with labels"
        )
    if shared := list_shared_rows(test, unlabelled):
        notes.append(
            f"{len(shared)} videos of {unlabelled.source} are test videos: pre-training sees them, without their "
            "labels, so the test score may be optimistic"
        )
    return notes


def _pretrain(
    unlabelled: Manifest,
    recipe: FinetuneRecipe,
    init: str | None,
    run_config: AutoRunConfig,
    hardware: Hardware,
    runtime: Runtime,
) -> Path:
    """Pre-train the recipe's encoder, in the run directory's own subdirectory; a finished one is left as it is."""
    out = run_config.out / PRETRAINING_DIR
    run = find_run(out)
    if run and run.is_of(PretrainRecipe):
        pretraining = run.parse_recipe(PretrainRecipe, original=True)
    else:
        pretraining = choose_pretraining(recipe, compute_dataset_stats(unlabelled), hardware)
    config = RunConfig(
        data=str(run_config.pretrain_first),
        out=out,
        workers=run_config.workers,
        device_batch=run_config.device_batch,
        precision=run_config.precision,
        save_seconds=run_config.save_seconds,
        keep_states=run_config.keep_states,
        keep_every=run_config.keep_every,
        cache=run_config.cache,
        compile=run_config.compile,
        activation_checkpointing=run_config.activation_checkpointing,
    )
    return run_pretraining(pretraining, config, init=init, runtime=runtime)
