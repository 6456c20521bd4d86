"""One training: a recipe on its videos, rehearsed before anything is written, then trained to its end in its folder."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from vidstill.checkpoints.io import MODEL_FILE, read_weights, write_weights
from vidstill.checkpoints.load import load_exactly
from vidstill.data.datasets.train_clips import AugmentOn, ClipsConfig, TrainClips
from vidstill.data.loader.loader import train_batches
from vidstill.data.loader.protocols import Described, TrainSet
from vidstill.data.manifest.manifest import Listing
from vidstill.engine.distributed import Precision, Runtime, cores
from vidstill.engine.early_stopping import Watch
from vidstill.engine.lr_schedule import CosineConfig, Plan, make_plan
from vidstill.engine.optimizer import Optim
from vidstill.engine.trainer import RunStopped, SaveConfig, fit
from vidstill.utils.config_io import to_plain
from vidstill.utils.files import claim
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class AnyLaunch:
    """Where and how any recipe runs."""

    data: str | Path  # a folder of videos or of class folders, a list, or packs, here or behind an address
    out: Path  # the run's folder
    workers: int = -1  # processes that decode, for each device; -1: one less than its share of the cores
    device_batch: int | None = None  # clips that a device takes at once, more are accumulated; None: all of its share
    precision: Precision = "auto"  # auto: bf16 where the device does it well, else fp32
    save_seconds: float = 600.0  # seconds between two saved states

    def __post_init__(self) -> None:
        if self.workers < -1:
            raise InputError(
                f"{self.workers} workers cannot decode; take 0 or more, or -1 for one less than there are cores"
            )
        if self.device_batch is not None and self.device_batch < 1:
            raise InputError(f"a device cannot take {self.device_batch} clips at once; take 1 or more")
        if not self.save_seconds >= 0:
            raise InputError(f"a state cannot be saved every {self.save_seconds} seconds; take 0 or more")

    @property
    def decoders(self) -> int:
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that torchrun has started on this machine
        return max(1, cores() // beside - 1) if self.workers < 0 else self.workers


@dataclass(frozen=True, kw_only=True)
class Launch(AnyLaunch):
    """Where and how a recipe runs.

    What is learned does not depend on it, but for rounding, and for which clips are mixed with which: a chunk's own.
    """

    val: str | Path | None = None  # labelled videos to test on, their val split if they have splits; None: data's
    watch: str | Path | None = None  # labelled videos to score after each epoch: see patience; as val
    fold: Literal[1, 2, 3] = 1  # which of the three official splits of UCF101 and HMDB51
    augment_on: AugmentOn = "workers"  # where what comes after the crop is done: flips, RandAugment of crops


@runtime_checkable
class Trains(Protocol):
    """What decides a training: a recipe, or a probe's settings."""

    @property
    def optim(self) -> Optim: ...
    @property
    def schedule(self) -> CosineConfig: ...
    @property
    def batch(self) -> int: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Watching:
    """Data that are scored after each epoch.

    Args:
        watch: how, and what follows from it.
    """

    listing: Described
    watch: Watch


@runtime_checkable
class TrainsOnClips(Trains, Protocol):
    """What decides a training on clips of videos, too."""

    @property
    def clips(self) -> ClipsConfig: ...


def train_clips(recipe: TrainsOnClips, listing: Listing, launch: Launch) -> TrainClips:
    """The samples of a training on these videos."""
    return TrainClips(listing, recipe.clips, seed=recipe.seed, augment_on=launch.augment_on)


@dataclass(frozen=True)
class Training:
    """A recipe on these samples; its title stands before whatever it says."""

    title: str
    recipe: Trains
    samples: TrainSet[Any]
    launch: AnyLaunch
    runtime: Runtime

    @cached_property
    def plan(self) -> Plan:
        return make_plan(
            videos=len(self.samples),
            batch=self.recipe.batch,
            optim=self.recipe.optim,
            schedule=self.recipe.schedule,
            repeats=self.samples.repeats,
            world=self.runtime.world,
            at_once=self.launch.device_batch,
        )

    def rehearse(self, build: Callable[[], nn.Module]) -> nn.Module:
        """One video is decoded, and a chunk of its size goes through a task that nothing is stored or computed for.

        Returns:
            The task, on the "meta" device.

        Raises:
            InputError: the parts do not fit one another.
        """
        first = train_batches(
            self.samples,
            videos_per_step=1,
            steps_per_epoch=1,
            total_steps=1,
            workers=min(1, self.launch.decoders),  # which can be ended, if the first video's decoder is stuck
            device=torch.device("cpu"),
        )
        chunk = [part.to("meta").repeat_interleave(self.plan.videos_per_chunk, dim=0) for part in next(first)]
        with torch.device("meta"):
            task = build().train()
            task(*chunk)
        return task

    def run(
        self,
        task: nn.Module,
        model: nn.Module,
        about: dict[str, Any],
        *,
        val: Described | None = None,
        init: str = "",
        watching: Watching | None = None,
        notes: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Trains, and writes what people take away; a run that is finished is read, and left as it is.

        Args:
            model: the part of the task that is written, with what the file says `about` it.
            val: what it will be tested on; part of what makes this run another than one in the same folder.
            init: what it starts from; as `val`.
            watching: what is scored after each epoch; as `val`.
            notes: sentences to be said before training.

        Returns:
            The epoch whose weights were taken, by which score on which videos; nothing where they are the last step's.

        Raises:
            InputError: the folder holds something else; it is as it was then.
        """
        out, runtime = self.launch.out, self.runtime
        parts = {"train": self.samples.listing, "val": val, "watch": watching.listing if watching else None}
        data = {part: listing for part, listing in parts.items() if listing is not None}
        self._claim(data, init)
        if runtime.agreed((out / MODEL_FILE).exists()):
            finished = read_weights(out)
            load_exactly(model, finished.tensors, str(out))
            self._say(f"{out} holds the finished run, which stays as it is")
            return dict(finished.about.get("taken", {}))
        for listing in data.values():
            self._say(f"{len(listing)} {self.samples.unit}s of {listing.source}, {listing.kind}")
        for note in (*notes, *self.samples.notes):
            self._say(note)
        self._say(f"{self.plan}; {runtime.precision}")
        fitted = fit(
            task,
            self._batches,
            plan=self.plan,
            optim=self.recipe.optim,
            runtime=runtime,
            run_dir=out,
            seed=self.recipe.seed,
            save=SaveConfig(seconds=self.launch.save_seconds),
            watch=watching.watch if watching else None,
            title=self.title,
        )
        taken: dict[str, Any] = {}
        if watching and fitted.epoch is not None:
            taken = {"epoch": fitted.epoch, "by": watching.watch.by, "score": fitted.score}
            taken["source"] = str(watching.listing.source)
        if runtime.is_main:
            try:
                write_weights(out / MODEL_FILE, model.state_dict(), about | ({"taken": taken} if taken else {}))
            except OSError as error:
                raise RunStopped(
                    f"{error}; the training is done and its state saved: make room and run the same command again"
                ) from error
        runtime.wait()
        return taken

    def _batches(self, start: int) -> Iterator[tuple[Any, ...]]:
        return train_batches(
            self.samples,
            videos_per_step=self.plan.videos_per_step,
            steps_per_epoch=self.plan.steps_per_epoch,
            total_steps=self.plan.total_steps,
            start_step=start,
            accumulation=self.plan.accumulation,
            rank=self.runtime.rank,
            world=self.plan.world,
            workers=self.launch.decoders,
            device=self.runtime.device,
        )

    def _claim(self, parts: Mapping[str, Described], init: str) -> None:
        """Makes the folder this run's; the first process does, and all of them hear of it where it cannot."""
        run = {
            "recipe": to_plain(self.recipe),
            "init": init,
            "data": {part: {"source": str(at.source), "fingerprint": at.fingerprint} for part, at in parts.items()},
            "plan": asdict(self.plan),
            "precision": self.runtime.precision,
        }
        self.runtime.first(lambda: claim(self.launch.out, run))

    def _say(self, sentence: str) -> None:
        if self.runtime.is_main:
            print(f"{self.title}: {sentence}", file=sys.stderr)
