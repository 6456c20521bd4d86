"""One training run: a recipe on a training set, checked before anything is written, then trained in its directory."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from vidstill.checkpoints.io import EMA_MODEL_FILE, MODEL_FILE, read_checkpoint, write_checkpoint
from vidstill.checkpoints.licences import build_provenance, describe_licence_restrictions
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.loader.protocols import DatasetInfo, TrainDataset
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.storage.filesystem import base_name
from vidstill.engine.cpu import set_num_threads
from vidstill.engine.distributed import Runtime
from vidstill.engine.ema import EMA_PREFIX
from vidstill.engine.interruption import RunStopped
from vidstill.engine.logger import shorten_metric
from vidstill.engine.lr_schedule import TrainingPlan, get_clip_noun, plan_training
from vidstill.engine.state import read_on_main
from vidstill.engine.trainer import Trainer
from vidstill.engine.validation import Validation, ValidationHistory
from vidstill.figures.charts import draw_validation_curve
from vidstill.pipelines.forks import advise_other_settings, apply_forks, find_precision, parse_fork_request, plan_forks
from vidstill.pipelines.run_config import BaseRunConfig
from vidstill.pipelines.run_dir import RunIdentity, WeightsSource, lock_run_dir, open_run_dir
from vidstill.recipes.run_file import Fork
from vidstill.utils.files import RECIPE_FILE, TEST_FILE, get_package_version, write_bytes
from vidstill.utils.flops import count_batch_multiply_adds
from vidstill.utils.output_dir import forget_results, record_results
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

T = TypeVar("T")

VALIDATION_IMAGE_FILE = "validation.png"

_PACKAGES = ("vidstill", "torch", "torchvision", "av")  # their versions can change a run's numbers


class DryRun(NamedTuple):
    """What is known of a task before it has weights."""

    task: nn.Module  # on the "meta" device
    flops_per_clip: int  # of a training step; a multiply-add counts twice


@dataclass(frozen=True)
class TrainingSession:
    """A recipe on a training set: checked by a dry run, then trained to its end in the run directory.

    Args:
        log_prefix: The verb, before every message.
        original_recipe: A recipe, or another config that has `optim`, `schedule`, `batch` and `seed`, as the run is
            begun; `recipe` has the changes of its forks.
        dataset: The samples.
        run_config: Run directory, workers, checkpoint interval.
        runtime: Device, precision and processes.
        group_clips: Clips that a task mixes or compares with one another; a device's batch has whole groups.
        group_option: The option that sets it, for the error.
        changes: The settings that the user gave, of those in `recipe`.
    """

    log_prefix: str
    original_recipe: Any
    dataset: TrainDataset[Any]
    run_config: BaseRunConfig
    runtime: Runtime
    group_clips: int = 1
    group_option: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def forks(self) -> tuple[Fork, ...]:
        config = self.run_config
        request = parse_fork_request(config.resume_from, config.resume_with)
        return self.runtime.run_on_main(lambda: plan_forks(config.out, self.original_recipe, request))

    @cached_property
    def recipe(self) -> Any:
        return apply_forks(self.original_recipe, self.forks)

    @cached_property
    def plan(self) -> TrainingPlan:
        return plan_training(
            num_videos=len(self.dataset),
            batch=self.recipe.batch,
            optim=self.recipe.optim,
            schedule=self.recipe.schedule,
            repeats=self.dataset.repeats,
            world_size=self.runtime.world_size,
            device_batch=self.run_config.device_batch,
            group_clips=self.group_clips,
            group_option=self.group_option,
            noun=self.dataset.noun,
        )

    def dry_run(self, build: Callable[[], nn.Module]) -> DryRun:
        """Decode one video, and run a batch of its shape through the task on the "meta" device, at no cost.

        Args:
            build: Makes the task.

        Raises:
            InputError: The parts do not fit one another.
        """
        batches = iter_train_batches(
            self.dataset,
            videos_per_step=1,
            steps_per_epoch=1,
            total_steps=1,
            workers=min(1, self.run_config.num_workers),  # a process can be ended if the decoder hangs
            device=torch.device("cpu"),
        )
        batch = [part.to("meta").repeat_interleave(self.plan.videos_per_microbatch, dim=0) for part in next(batches)]
        with torch.device("meta"):
            task = build().train()
            multiply_adds = count_batch_multiply_adds(task, *batch)
        return DryRun(task, 2 * multiply_adds // len(batch[0]))

    def run(
        self,
        task: nn.Module,
        model: nn.Module,
        metadata: dict[str, Any],
        *,
        sources: Mapping[str, WeightsSource],
        flops_per_clip: int,
        test_set: DatasetInfo | None = None,
        validation_set: DatasetInfo | None = None,
        validation: Validation | None = None,
        settings: Mapping[str, Any] = {},
        notes: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Train, and write the model; a finished run is loaded and left as it is.

        Args:
            task: What is trained: `task(*batch) -> Output`.
            model: The part of the task that is written.
            metadata: What the weights file says about the model.
            sources: Weights that the run learns from, by role; others make another run. Their licences are handed on.
            flops_per_clip: Of a training step, as the dry run has counted.
            test_set: Data that the model will be tested on.
            validation_set: Data that are scored after each epoch.
            validation: How they are scored, and whether the score selects the epoch.
            settings: What else makes another run, beside recipe, sources and data; they are written with these.
            notes: Messages before training; empty ones are left out.

        Returns:
            The selected epoch, with metric, score and source of the validation; empty if the last weights are written.

        Raises:
            InputError: The run directory holds something else, and is left as it is.
        """
        out, runtime = self.run_config.out, self.runtime
        splits = {"train": self.dataset.manifest, "validation": validation_set, "test": test_set}
        manifests = {split: manifest for split, manifest in splits.items() if manifest is not None}
        checkpoints = {role: source.checkpoint for role, source in sources.items()}
        if precision := find_precision(self.forks):
            runtime.request_precision(precision)
        if not runtime.broadcast((out / MODEL_FILE).exists()):
            notes = [*notes, self.run_config.prepare_task(task, runtime)]
        with self._open_run_dir(manifests, sources, settings):
            if runtime.broadcast((out / MODEL_FILE).exists()):
                finished = read_on_main(lambda: vars(read_checkpoint(out)), runtime)
                load_state_dict_strict(model, finished["tensors"], str(out))
                runtime.run_on_main(lambda: record_results(out))  # a kill may have come before it
                self._log(f"{out} holds the finished run; nothing is trained")
                return dict(finished["metadata"].get("model_selection", {}))
            for split, manifest in manifests.items():
                description = manifest.description.removeprefix(f"{base_name(manifest.source)}, ")  # a list's name
                self._log(f"{split}: {pluralize(len(manifest), self.dataset.noun)} of {manifest.source}, {description}")
            restrictions = runtime.run_on_main(lambda: describe_licence_restrictions(checkpoints))  # files are hashed
            notes = [*runtime.take_messages(), *notes, *(f"fork: {fork}" for fork in self.forks), *restrictions]
            for note in filter(None, (*notes, *self.dataset.messages, *self._describe_warmup())):
                self._log(note)
            self._log(f"{self.plan.describe(self.dataset.noun)}; {runtime.precision}")
            trainer = self.build_trainer(task, validation, flops_per_clip)
            runtime.run_on_main(lambda: forget_results(out, RECIPE_FILE))
            trainer.train()
            forks = {"forks": [fork.to_dict() for fork in self.forks]} if self.forks else {}
            metadata = metadata | forks | runtime.run_on_main(lambda: build_provenance(checkpoints))

            def select(history: ValidationHistory, prefix: str = "") -> dict[str, Any]:
                if not (validation_set and validation and history.best and validation.keep_best):
                    return metadata
                epoch, score = history.best
                selection = {"epoch": epoch, "metric": f"{prefix}{validation.metric}", "score": score}
                return metadata | {"model_selection": selection | {"source": str(validation_set.source)}}

            selected = select(history := trainer.validation_history)

            def write() -> None:
                try:
                    if validation:
                        chart = draw_validation_curve(history.scores, shorten_metric(validation.metric))
                        write_bytes(out / VALIDATION_IMAGE_FILE, chart)
                    if trainer.ema.tensors:
                        with trainer.ema.swap():
                            averaged = select(trainer.ema.history, EMA_PREFIX)
                            write_checkpoint(out / EMA_MODEL_FILE, model.state_dict(), averaged)
                    write_checkpoint(out / MODEL_FILE, model.state_dict(), selected)  # it ends the run
                    record_results(out)
                except InputError as error:
                    raise RunStopped(f"{error}; training is done and its checkpoint saved") from error

            runtime.run_on_main(write)
            return dict(selected.get("model_selection", {}))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from the run directory, from before the training to the end of the test.

        Raises:
            InputError: Another process is writing it, or it holds something else.
        """
        with self.runtime.enter_on_main(lock_run_dir(self.run_config.out)):
            yield

    def test_once(self, evaluate: Callable[[], T], write: Callable[[T], None]) -> None:
        """Test the trained model and write the result, unless it is there already.

        Args:
            evaluate: Runs in every process.
            write: Runs in the main process; TEST_FILE is the last file that it writes.
        """
        if not self.runtime.broadcast((self.run_config.out / TEST_FILE).exists()):
            result = evaluate()
            self.runtime.run_on_main(lambda: write(result))

    def build_trainer(
        self, task: nn.Module, validation: Validation | None = None, flops_per_clip: int | None = None
    ) -> Trainer:
        """Build the trainer of a task, which writes its log and states into the run directory."""
        set_num_threads(self.runtime.device.type, self.run_config.num_workers)
        return Trainer(
            task,
            self._iter_batches,
            plan=self.plan,
            optim=self.recipe.optim,
            runtime=self.runtime,
            run_dir=self.run_config.out,
            seed=self.recipe.seed,
            save_seconds=self.run_config.save_seconds,
            keep_states=self.run_config.keep_states,
            keep_every=self.run_config.keep_every,
            fork_step=self.forks[-1].step if self.forks else None,
            ema_decay=getattr(self.recipe, "ema_decay", None),
            flops_per_clip=flops_per_clip,
            advice=advise_other_settings(self.recipe, self.runtime.precision),
            validation=validation,
            title=self.log_prefix,
            noun=get_clip_noun(self.dataset.noun),
        )

    def _describe_warmup(self) -> list[str]:
        """Return a line on a warm-up that was shortened, or may have been, since the user gave the epochs only."""
        schedule, changes = self.recipe.schedule, self.changes.get("schedule", {})
        if "epochs" not in changes or {"warmup_epochs", "warmup_steps"} & changes.keys() or not schedule.warmup_epochs:
            return []
        share = f"{schedule.warmup_epochs:g} of {pluralize(schedule.epochs, 'epoch')}"
        return [f"the warm-up takes {share}; --schedule.warmup-epochs changes it"]

    def _iter_batches(self, start_step: int) -> Iterator[tuple[Any, ...]]:
        return iter_train_batches(
            self.dataset,
            videos_per_step=self.plan.videos_per_step,
            steps_per_epoch=self.plan.steps_per_epoch,
            total_steps=self.plan.total_steps,
            start_step=start_step,
            accumulation_steps=self.plan.accumulation_steps,
            rank=self.runtime.rank,
            world_size=self.plan.world_size,
            workers=self.run_config.num_workers,
            device=self.runtime.device,
        )

    @contextmanager
    def _open_run_dir(
        self,
        manifests: Mapping[str, DatasetInfo],
        sources: Mapping[str, WeightsSource],
        settings: Mapping[str, Any],
    ) -> Iterator[None]:
        """Make the directory this run's, or find that it is, and lock it; rank 0 does, and all ranks hear of errors."""
        if self.forks and self.plan.total_steps < self.forks[-1].step:
            raise InputError(
                f"the run would end at step {self.plan.total_steps}, before the state of step {self.forks[-1].step} "
                "that it goes on from; give more epochs, or an earlier step with --resume-from"
            )
        data = {split: {"source": str(at.source), "fingerprint": at.fingerprint} for split, at in manifests.items()}
        versions = {name: get_package_version(name) for name in _PACKAGES}
        files = {split: at for split, at in manifests.items() if isinstance(at, Manifest)}
        metadata = {"plan": asdict(self.plan), "precision": self.runtime.precision, "versions": versions}
        metadata["file_times"] = {split: at.file_times for split, at in files.items()}

        def enter() -> None:
            recorded = {role: source.to_dict() for role, source in sources.items()}
            identity = RunIdentity(self.original_recipe, self.forks, recorded, {**settings, "data": data})
            begun = stack.enter_context(open_run_dir(self.run_config.out, identity, metadata, self._log))
            for split, at in files.items():
                if split in begun["file_times"] and (changes := at.describe_changes(begun["file_times"][split])):
                    self._log(
                        f"warning: {split}: {changes}; the run goes on with them. If their content is another, begin "
                        f"a run in another directory; `vidstill data verify` compares a scanned list with its files"
                    )

        with ExitStack() as stack:
            self.runtime.run_on_main(enter)
            yield

    def _log(self, message: str) -> None:
        if self.runtime.is_main:
            print(f"{self.log_prefix}: {message}", file=sys.stderr)
