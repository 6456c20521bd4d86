"""Batches on the device from a dataset's samples: broken videos are replaced in training and left out in evaluation."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import lru_cache, partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64

from vidstill.data.loader.collate import Columns, GetSample, SampleArrays, SubmitSample, iter_collated_batches
from vidstill.data.loader.order import count_previous_occurrences, draw_epoch_order, iter_epoch_positions
from vidstill.data.loader.protocols import B, TrainDataset, ViewDataset
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.parallel.pool import WORKER_TIMEOUT_SECONDS, LostTask, map_in_order
from vidstill.utils.text import join_first
from vidstill.utils.types import InputError

MAX_BROKEN_FRACTION = 0.01
"""The fraction of a training set that may be broken before training stops; of ten videos or more, one may be."""

log = logging.getLogger("vidstill")


def iter_train_batches(
    dataset: TrainDataset[B],
    *,
    videos_per_step: int,
    steps_per_epoch: int,
    total_steps: int,
    start_step: int = 0,
    accumulation_steps: int = 1,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    device: torch.device,
    max_broken_fraction: float = MAX_BROKEN_FRACTION,
    timeout_seconds: float = WORKER_TIMEOUT_SECONDS,
) -> Iterator[B]:
    """Yield this process's micro-batches, `accumulation_steps` of them a step.

    The order depends on the seed and the epoch only: two processes see what one process sees in two micro-batches, and
    a resumed run sees what it would have seen.

    A video that does not decode is logged once and not tried again; the next in the epoch's order replaces it. The same
    holds for a video whose decoder hangs or ends its process, if that is a worker; without workers nothing can end it.

    The next micro-batch is prefetched, and of the one after it as many videos as it has, and two per worker.

    Args:
        videos_per_step: Over all processes and micro-batches, without the copies of repeated augmentation.
        steps_per_epoch: Steps after which the order is drawn anew; videos that do not fill a step are left out.
        total_steps: The step to stop before.
        start_step: The first step, in a run that is resumed.
        accumulation_steps: Micro-batches of a step.
        rank: This process.
        world_size: Processes that share a step.
        workers: Worker processes; 0 loads in this process.
        device: Where batches go.
        max_broken_fraction: Of the dataset; if more is broken, training stops. Of ten videos or more, one may be.
        timeout_seconds: A worker that is waited for and makes no progress for so long is killed.

    Raises:
        InputError: A step does not divide into equal chunks, there are fewer videos than an epoch takes, or too many
            are broken. StorageUnreachable: a server does not answer, which is no video's fault.
    """
    num_chunks = accumulation_steps * world_size
    if videos_per_step % num_chunks:
        raise InputError(
            f"{videos_per_step} videos a step do not divide into {accumulation_steps} micro-batches on {world_size} "
            f"processes; set --batch to a multiple of {num_chunks}"
        )
    if len(dataset) < steps_per_epoch * videos_per_step:
        raise InputError(
            f"{len(dataset)} videos do not fill {steps_per_epoch} steps of {videos_per_step}; take a smaller batch"
        )
    positions = iter_epoch_positions(
        range(start_step, total_steps), videos_per_step, steps_per_epoch, accumulation_steps, rank, world_size
    )
    max_broken = int(max_broken_fraction * len(dataset)) or int(len(dataset) >= 10)
    batches = iter_collated_batches(
        partial(_load_train_arrays, dataset),
        partial(_iter_train_samples, dataset, positions, max_broken),
        videos_per_step // num_chunks,
        sample_num_bytes=dataset.sample_num_bytes,
        workers=workers,
        timeout_seconds=timeout_seconds,
        device=device,
    )
    return _iter_device_batches(dataset.batch_type, batches, device)


def iter_view_batches(
    dataset: ViewDataset[B],
    *,
    videos_per_batch: int,
    broken_videos: dict[int, str],
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    device: torch.device,
    timeout_seconds: float = WORKER_TIMEOUT_SECONDS,
) -> Iterator[B]:
    """Yield every video of this process once, in the manifest's order; broken ones are left out.

    Prefetching, and videos whose decoder hangs or ends its process, are as in `iter_train_batches`.

    Args:
        videos_per_batch: Videos in a batch, each with all its views.
        broken_videos: Receives the index of each broken video, and a sentence on why.
        rank: This process.
        world_size: Processes that share the videos.
        workers: Worker processes; 0 loads in this process.
        device: Where batches go.
        timeout_seconds: A worker that is waited for and makes no progress for so long is killed.

    Raises:
        InputError: A server does not answer (`StorageUnreachable`), or a row cannot give such clips.
    """
    batches = iter_collated_batches(
        dataset.load_arrays,
        partial(_iter_view_samples, dataset, range(rank, len(dataset), world_size), broken_videos),
        videos_per_batch,
        sample_num_bytes=dataset.sample_num_bytes,
        workers=workers,
        timeout_seconds=timeout_seconds,
        device=device,
    )
    return _iter_device_batches(dataset.batch_type, batches, device)


def _load_train_arrays(dataset: TrainDataset[B], key: tuple[int, int, int, int]) -> SampleArrays:
    return dataset.load_arrays(*key)


class _PendingSample(NamedTuple):
    epoch: int
    position: int
    source_index: int
    ticket: Any


def _iter_train_samples(
    dataset: TrainDataset[B],
    positions: Iterable[tuple[int, int]],
    max_broken: int,
    submit: SubmitSample,
    get_result: GetSample,
    max_pending: int,
) -> Iterator[SampleArrays]:
    """Yield the samples at these positions of epochs; the next in the order replaces one that is broken."""
    num_videos, broken = len(dataset), dict[int, str]()

    @lru_cache(maxsize=2)  # pending samples may be of two epochs
    def get_order(epoch: int) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        order = draw_epoch_order(num_videos, dataset.seed, epoch, dataset.expected_counts)
        return order, count_previous_occurrences(order)

    def submit_position(epoch_position: tuple[int, int]) -> _PendingSample:
        epoch, position = epoch_position
        order, occurrences = get_order(epoch)
        candidates = chain(order[position:], order[:position], range(num_videos))  # an epoch may leave some out
        source_index = next(video for video in map(int, candidates) if video not in broken)
        key = epoch, int(order[position]), int(occurrences[position]), source_index
        return _PendingSample(epoch, position, source_index, submit(key))

    def get_sample(pending: _PendingSample) -> SampleArrays:
        while isinstance(arrays := _get_arrays(dataset, pending.source_index, get_result, pending.ticket), str):
            if pending.source_index not in broken:  # it may have been pending twice
                broken[pending.source_index] = arrays
                log.warning("%s; another %s replaces it", arrays, dataset.noun)
            if len(broken) > min(max_broken, num_videos - 1):
                raise InputError(_format_broken_videos(broken, max_broken, num_videos, dataset.noun))
            pending = submit_position((pending.epoch, pending.position))
        return arrays

    return map_in_order(submit_position, get_sample, positions, max_pending)


def _iter_view_samples(
    dataset: ViewDataset[B],
    indices: range,
    broken_videos: dict[int, str],
    submit: SubmitSample,
    get_result: GetSample,
    max_pending: int,
) -> Iterator[SampleArrays | None]:
    """Yield the samples of these rows, None for one that is broken."""

    def get_sample(pending: tuple[int, Any]) -> SampleArrays | None:
        index, ticket = pending
        arrays = _get_arrays(dataset, index, get_result, ticket)
        if not isinstance(arrays, str):
            return arrays
        broken_videos[index] = arrays
        log.warning("%s; it is left out", arrays)
        return None

    return map_in_order(lambda index: (index, submit(index)), get_sample, indices, max_pending)


def _get_arrays(
    dataset: TrainDataset[B] | ViewDataset[B], index: int, get_result: GetSample, ticket: Any
) -> SampleArrays | str:
    """Return a sample, or a sentence on why its video is broken."""
    try:
        arrays = get_result(ticket)
    except BrokenVideo as error:
        return str(error)
    return f"{dataset.sample_name(index)} {arrays.reason}" if isinstance(arrays, LostTask) else arrays


def _iter_device_batches(
    batch_type: Callable[..., B], batches: Generator[Columns], device: torch.device
) -> Generator[B]:
    """Move batches to the device and scale clips to [0, 1]."""
    with closing(batches):
        for columns in filter(None, batches):
            clip, *others = (column.to(device, non_blocking=True) for column in columns)
            yield batch_type(clip.float().div_(255), *others)


def _format_broken_videos(broken_videos: dict[int, str], max_broken: int, num_videos: int, noun: str) -> str:
    reasons = join_first(list(broken_videos.values()), 10, "; ")
    return (
        f"{len(broken_videos)} of {num_videos} {noun}s are broken, and at most {max_broken} may be; "
        f"repair them or take them out of the data: {reasons}"
    )
