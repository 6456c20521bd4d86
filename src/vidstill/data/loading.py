"""Samples become batches on the device: which process and micro-batch sees which video, and what if one is broken."""

import logging
import signal
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vidstill.chance import numpy_chance
from vidstill.data.datasets import Sample, TrainClips, ViewClips, Views
from vidstill.data.sources import BrokenVideo
from vidstill.types import InputError

BROKEN_SHARE = 0.01
"""The share of a training set that may be broken before training stops."""

_PREFETCH = 4  # batches that each worker keeps ready: enough to bridge a slow video

log = logging.getLogger("vidstill")


class TrainBatch(NamedTuple):
    """A micro-batch on the device, copies of a video side by side; colours in [0, 1]."""

    clip: Float[Tensor, "b 3 t h w"]
    label: Int64[Tensor, "b"]
    seed: Int64[Tensor, "b"]


class ViewBatch(NamedTuple):
    """Videos of a test on the device, each with all its views; `place` is where each stands in the listing."""

    clip: Float[Tensor, "b v 3 t h w"]
    label: Int64[Tensor, "b"]
    place: Int64[Tensor, "b"]


def epoch_order(videos: int, seed: int, epoch: int) -> Int64[np.ndarray, "n"]:
    """The order in which an epoch sees the videos."""
    return numpy_chance(seed, f"order {epoch}").permutation(videos)


def train_batches(
    dataset: TrainClips,
    *,
    videos_per_step: int,
    steps_per_epoch: int,
    total_steps: int,
    start_step: int = 0,
    accumulation: int = 1,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    device: torch.device,
    broken_share: float = BROKEN_SHARE,
) -> Iterator[TrainBatch]:
    """This process's micro-batches, `accumulation` of them a step, from `start_step` to `total_steps` (excluded).

    A step's videos are cut into chunks by their place in the epoch's order, and chunk `micro * world + rank` is this
    process's: so two processes see what one sees in two micro-batches, and a resumed run sees what it would have seen.

    A video that does not decode is named once, and the next in the epoch's order stands in for it.

    Args:
        videos_per_step: over all processes and micro-batches; not counting the copies of repeated augmentation.
        steps_per_epoch: the videos that they leave over are seen in other epochs, whose order is another.
        broken_share: of the data set; if more is broken than this, training stops.

    Raises:
        InputError: a step does not divide into equal chunks, there are fewer videos than an epoch takes, or too many
            are broken.
    """
    if videos_per_step % (accumulation * world):
        raise InputError(
            f"{videos_per_step} videos a step do not divide into {accumulation} micro-batches on {world} processes; "
            f"set --batch to a multiple of {accumulation * world}"
        )
    if len(dataset) < steps_per_epoch * videos_per_step:
        raise InputError(
            f"{len(dataset)} videos do not fill {steps_per_epoch} steps of {videos_per_step}; take a smaller batch"
        )
    places = _Places(range(start_step, total_steps), videos_per_step, steps_per_epoch, accumulation, rank, world)
    allowed = int(broken_share * len(dataset))
    return _watched(_loader(_Ordered(dataset, allowed), places, workers, device), allowed, len(dataset), device)


def _watched(loader: DataLoader[Any], allowed: int, videos: int, device: torch.device) -> Iterator[TrainBatch]:
    """The loader's batches on the device; says what is broken, and stops if that is too much."""
    broken: dict[int, str] = {}
    for batch in loader:
        new = {place: why for place, why in batch.broken.items() if place not in broken}
        broken |= new
        if len(broken) > allowed:
            raise InputError(_too_many(broken, allowed, videos))
        for why in new.values():
            log.warning("%s; another video stands in for it", why)
        if batch.error is not None:
            raise InputError(batch.error)
        if batch.parts is not None:
            yield TrainBatch(*_on_device(batch.parts, device))


def view_batches(
    dataset: ViewClips,
    *,
    videos_per_batch: int,
    broken: dict[int, str],
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    device: torch.device,
) -> Iterator[ViewBatch]:
    """Every video of this process once, in the listing's order; nothing stands in for one that does not decode.

    Args:
        broken: is given the places of those that do not decode, and why; their rows are left out of the batches.
    """
    places = range(rank, len(dataset), world)
    batches = [list(places[i : i + videos_per_batch]) for i in range(0, len(places), videos_per_batch)]
    for batch in _loader(_Whole(dataset), batches, workers, device):
        if batch.error is not None:
            raise InputError(batch.error)
        for why in batch.broken.values():
            log.warning("%s; it is not scored", why)
        broken |= batch.broken
        if batch.parts is not None:
            yield ViewBatch(*_on_device(batch.parts, device))


class _Places(Sampler[list[tuple[int, int]]]):
    """The micro-batches of one process: for each video its epoch and its place in the epoch's order."""

    def __init__(
        self, steps: range, videos_per_step: int, steps_per_epoch: int, accumulation: int, rank: int, world: int
    ):
        self.steps, self.videos, self.steps_per_epoch = steps, videos_per_step, steps_per_epoch
        self.accumulation, self.rank, self.world = accumulation, rank, world

    def __len__(self) -> int:
        return len(self.steps) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self.videos // (self.accumulation * self.world)
        for step in self.steps:
            epoch, within = divmod(step, self.steps_per_epoch)
            for micro in range(self.accumulation):
                first = within * self.videos + (micro * self.world + self.rank) * size
                yield [(epoch, place) for place in range(first, first + size)]


class _Fetched(NamedTuple):
    """What a worker sends: errors travel as sentences, so that they arrive as such."""

    sample: Sample | Views | None
    broken: dict[int, str]
    error: str | None = None


class _Ordered(Dataset[_Fetched]):
    """Training samples by their place in an epoch's order; the next in the order stands in for one that is broken."""

    def __init__(self, dataset: TrainClips, allowed: int):
        self.dataset, self.allowed = dataset, allowed

    def __getitem__(self, key: tuple[int, int]) -> _Fetched:
        epoch, place = key
        order = _kept_order(len(self.dataset), self.dataset.seed, epoch)
        index = int(order[place])
        broken: dict[int, str] = {}
        while len(broken) <= self.allowed:
            other = int(order[(place + len(broken)) % len(order)])
            try:
                return _Fetched(self.dataset.sample(epoch, index, stand_in=other), broken)
            except BrokenVideo as error:
                broken[other] = str(error)
            except InputError as error:
                return _Fetched(None, broken, str(error))
        return _Fetched(None, broken)


class _Whole(Dataset[_Fetched]):
    """Test samples, or why there is none."""

    def __init__(self, dataset: ViewClips):
        self.dataset = dataset

    def __getitem__(self, index: int) -> _Fetched:
        try:
            return _Fetched(self.dataset[index], {})
        except BrokenVideo as error:
            return _Fetched(None, {index: str(error)})
        except InputError as error:
            return _Fetched(None, {}, str(error))


class _Joined(NamedTuple):
    """A batch as the workers leave it: `clip, label, seed` or `clip, label, place`; None if nothing decoded."""

    parts: tuple[Tensor, ...] | None
    broken: dict[int, str]
    error: str | None


def _joined(fetched: list[_Fetched]) -> _Joined:
    broken = {index: why for each in fetched for index, why in each.broken.items()}
    error = next((each.error for each in fetched if each.error is not None), None)
    samples = [each.sample for each in fetched if isinstance(each.sample, Sample)]
    views = [each.sample for each in fetched if isinstance(each.sample, Views)]
    parts: tuple[Tensor, ...] | None = None
    if samples:
        parts = tuple(torch.cat(column) for column in zip(*samples, strict=True))
    elif views:
        clips, labels, places = zip(*views, strict=True)
        parts = torch.stack(clips), torch.tensor(labels), torch.tensor(places)
    return _Joined(parts, broken, error)


@lru_cache(maxsize=2)  # workers fetch ahead, across the border of two epochs
def _kept_order(videos: int, seed: int, epoch: int) -> Int64[np.ndarray, "n"]:
    return epoch_order(videos, seed, epoch)


def _loader(
    dataset: Dataset[_Fetched], batches: Iterable[list[Any]], workers: int, device: torch.device
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_joined,
        pin_memory=device.type == "cuda",
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_leave_stopping_to_the_run,
        generator=torch.Generator(),  # else a loader takes a number from the default one, which belongs to the run
    )


def _leave_stopping_to_the_run(worker: int) -> None:
    """A terminal's Ctrl-C reaches every process; a worker that died of it would take the run's last step along."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _on_device(parts: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Bytes cross, and become colours in [0, 1] there."""
    clip, *rest = (part.to(device, non_blocking=True) for part in parts)
    return clip.float().div_(255), *rest


def _too_many(broken: dict[int, str], allowed: int, videos: int) -> str:
    shown = "; ".join(list(broken.values())[:10])
    more = f"; and {len(broken) - 10} more" if len(broken) > 10 else ""
    return (
        f"{len(broken)} of {videos} videos are broken and {allowed} may be; mend them or leave them out: {shown}{more}"
    )
