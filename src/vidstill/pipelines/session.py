"""One training: a recipe on its videos, rehearsed before anything is written, then trained to its end in its folder."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from vidstill.checkpoints.io import MODEL_FILE, read_checkpoint, write_checkpoint
from vidstill.checkpoints.load import load_state_dict_strict
from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.loader.protocols import DatasetInfo, TrainDataset
from vidstill.data.manifest.manifest import Manifest
from vidstill.engine.distributed import Runtime
from vidstill.engine.early_stopping import Validation
from vidstill.engine.lr_schedule import CosineConfig, TrainingPlan, plan_training
from vidstill.engine.optimizer import AnyOptimConfig
from vidstill.engine.trainer import RunStopped, SaveConfig, train_task
from vidstill.pipelines.workers import BaseRunConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import RECIPE_FILE, get_package_version, open_output_dir
from vidstill.utils.types import InputError

_PACKAGES = ("vidstill", "torch", "torchvision", "av")  # their versions can change a run's numbers


@runtime_checkable
class TrainingSettings(Protocol):
    """What decides a training: a recipe, or a probe's settings."""

    @property
    def optim(self) -> AnyOptimConfig: ...
    @property
    def schedule(self) -> CosineConfig: ...
    @property
    def batch(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class ValidationSetup:
    """Data that are scored after each epoch.

    Args:
        early_stopping: how, and what follows from it.
    """

    manifest: DatasetInfo
    early_stopping: Validation


@runtime_checkable
class ClipTrainingSettings(TrainingSettings, Protocol):
    """What decides a training on clips of videos, too."""

    @property
    def clips(self) -> ClipsConfig: ...


def build_train_clips(recipe: ClipTrainingSettings, manifest: Manifest) -> TrainClips:
    """The samples of a training on these videos."""
    return TrainClips(manifest, recipe.clips, seed=recipe.seed)


@dataclass(frozen=True)
class TrainingSession:
    """A recipe on these samples; its title stands before whatever it says."""

    log_prefix: str
    recipe: TrainingSettings
    dataset: TrainDataset[Any]
    run_config: BaseRunConfig
    runtime: Runtime

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
        )

    def dry_run(self, build: Callable[[], nn.Module]) -> nn.Module:
        """One video is decoded, and a chunk of its size goes through a task that nothing is stored or computed for.

        Returns:
            The task, on the "meta" device.

        Raises:
            InputError: the parts do not fit one another.
        """
        first = iter_train_batches(
            self.dataset,
            videos_per_step=1,
            steps_per_epoch=1,
            total_steps=1,
            workers=min(1, self.run_config.num_workers),  # which can be ended, if the first video's decoder is stuck
            device=torch.device("cpu"),
        )
        chunk = [part.to("meta").repeat_interleave(self.plan.videos_per_microbatch, dim=0) for part in next(first)]
        with torch.device("meta"):
            task = build().train()
            task(*chunk)
        return task

    def run(
        self,
        task: nn.Module,
        model: nn.Module,
        metadata: dict[str, Any],
        *,
        test_manifest: DatasetInfo | None = None,
        init: str = "",
        validation: ValidationSetup | None = None,
        notes: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Trains, and writes what people take away; a run that is finished is read, and left as it is.

        Args:
            model: the part of the task that is written, with what the file says `about` it.
            test_manifest: what it will be tested on; part of what makes this run another than one in the same folder.
            init: what it starts from; as `val`.
            validation: what is scored after each epoch; as `val`.
            notes: sentences to be said before training.

        Returns:
            The epoch whose weights were selected, by which metric on which videos; empty if they are the last step's.

        Raises:
            InputError: the folder holds something else; it is as it was then.
        """
        parts = {
            "train": self.dataset.manifest,
            "val": test_manifest,
            "watch": validation.manifest if validation else None,
        }
        data = {part: listing for part, listing in parts.items() if listing is not None}
        with ExitStack() as stack:  # the directory is locked until the run is written
            self._open_run_folder(stack, data, init)
            return self._run(task, model, metadata, data, validation, notes)

    def _run(
        self,
        task: nn.Module,
        model: nn.Module,
        metadata: dict[str, Any],
        data: Mapping[str, DatasetInfo],
        validation: ValidationSetup | None,
        notes: Sequence[str],
    ) -> dict[str, Any]:
        out, runtime = self.run_config.out, self.runtime
        if runtime.broadcast((out / MODEL_FILE).exists()):
            finished = read_checkpoint(out)
            load_state_dict_strict(model, finished.tensors, str(out))
            self._log(f"{out} holds the finished run, which stays as it is")
            return dict(finished.metadata.get("model_selection", {}))
        for listing in data.values():
            self._log(f"{len(listing)} {self.dataset.noun}s of {listing.source}, {listing.description}")
        for note in (*notes, *self.dataset.messages):
            self._log(note)
        self._log(f"{self.plan}; {runtime.precision}")
        fitted = train_task(
            task,
            self._iter_batches,
            plan=self.plan,
            optim=self.recipe.optim,
            runtime=runtime,
            run_dir=out,
            seed=self.recipe.seed,
            save_config=SaveConfig(seconds=self.run_config.save_seconds),
            validation=validation.early_stopping if validation else None,
            title=self.log_prefix,
        )
        selection: dict[str, Any] = {}
        if validation and fitted.best_epoch is not None:
            selection = {
                "epoch": fitted.best_epoch,
                "metric": validation.early_stopping.metric,
                "score": fitted.best_score,
            }
            selection["source"] = str(validation.manifest.source)
        if runtime.is_main:
            try:
                write_checkpoint(
                    out / MODEL_FILE,
                    model.state_dict(),
                    metadata | ({"model_selection": selection} if selection else {}),
                )
            except InputError as error:
                raise RunStopped(
                    f"{error}; the training is done and its state saved: make room and run the same command again"
                ) from error
        runtime.barrier()
        return selection

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

    def _open_run_folder(self, stack: ExitStack, manifests: Mapping[str, DatasetInfo], init: str) -> None:
        """Makes the folder this run's; the first process does, and all of them hear of it where it cannot."""
        run = {
            "recipe": to_dict(self.recipe),
            "init": init,
            "data": {part: {"source": str(at.source), "fingerprint": at.fingerprint} for part, at in manifests.items()},
        }
        versions = {name: get_package_version(name) for name in _PACKAGES}
        about = {"plan": asdict(self.plan), "precision": self.runtime.precision, "versions": versions}

        def open_dir() -> None:
            stack.enter_context(
                open_output_dir(self.run_config.out, run, kind="a run", marker=RECIPE_FILE, metadata=about)
            )

        self.runtime.run_on_main(open_dir)

    def _log(self, message: str) -> None:
        if self.runtime.is_main:
            print(f"{self.log_prefix}: {message}", file=sys.stderr)
