"""Batches on the device from a dataset's samples: broken videos are replaced in training and left out in evaluation."""

import logging
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from vidstill.data.loader.order import count_previous_occurrences, draw_epoch_order, iter_epoch_positions
from vidstill.data.loader.protocols import B, SampleArrays, TrainDataset, ViewDataset
from vidstill.data.loader.transfer import Transfer
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.parallel.pool import WORKER_TIMEOUT_SECONDS, LostTask, WorkerPool, map_in_order
from vidstill.utils.text import join_first
from vidstill.utils.types import InputError

MAX_BROKEN_FRACTION = 0.01
"""The fraction of a training set that may be broken before training stops; of ten videos or more, one may be."""

T = TypeVar("T")

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
            f"{videos_per_step} {dataset.noun}s a step do not divide into {accumulation_steps} micro-batches on "
            f"{world_size} processes; choose a batch that is a multiple of {num_chunks}"
        )
    if len(dataset) < steps_per_epoch * videos_per_step:
        raise InputError(
            f"{len(dataset)} {dataset.noun}s do not fill {steps_per_epoch} steps of {videos_per_step}; take a smaller "
            "batch"
        )
    positions = iter_epoch_positions(
        range(start_step, total_steps), videos_per_step, steps_per_epoch, accumulation_steps, rank, world_size
    )
    num_videos, broken = len(dataset), dict[int, str]()
    max_broken = int(max_broken_fraction * num_videos) or int(num_videos >= 10)

    @lru_cache(maxsize=2)  # pending samples may be of two epochs
    def get_order(epoch: int) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        order = draw_epoch_order(num_videos, dataset.seed, epoch, dataset.expected_counts)
        return order, count_previous_occurrences(order)

    def make_key(epoch_position: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the arguments of `load_arrays`: the next video of the order that is not known to be broken."""
        epoch, position = epoch_position
        order, occurrences = get_order(epoch)
        candidates = chain(order[position:], order[:position], range(num_videos))  # an epoch may leave some out
        source_index = next(video for video in map(int, candidates) if video not in broken)
        return epoch, int(order[position]), int(occurrences[position]), source_index

    def replace_broken(index: int, reason: str) -> bool:
        if index not in broken:  # it may have been pending twice
            broken[index] = reason
            log.warning("%s; another %s replaces it", reason, dataset.noun)
        if len(broken) > min(max_broken, num_videos - 1):
            raise InputError(
                f"{len(broken)} of {num_videos} {dataset.noun}s are broken, and at most {max_broken} may be; "
                f"repair them or take them out of the data: {join_first(list(broken.values()), 10, '; ')}"
            )
        return True

    samples = partial(_iter_samples, dataset, positions, make_key, replace_broken)
    return _iter_batches(dataset, samples, videos_per_step // num_chunks, workers, timeout_seconds, device)


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

    def omit_broken(index: int, reason: str) -> bool:
        broken_videos[index] = reason
        log.warning("%s; it is left out", reason)
        return False

    indices = range(rank, len(dataset), world_size)
    samples = partial(_iter_samples, dataset, indices, lambda index: (index,), omit_broken)
    return _iter_batches(dataset, samples, videos_per_batch, workers, timeout_seconds, device)


def _iter_samples(
    dataset: TrainDataset[B] | ViewDataset[B],
    items: Iterable[T],
    make_key: Callable[[T], tuple[int, ...]],
    replace_broken: Callable[[int, str], bool],
    submit: Callable[[tuple[int, ...]], Any],
    get_result: Callable[[Any], SampleArrays | LostTask],
    max_pending: int,
) -> Iterator[SampleArrays | None]:
    """Yield the samples of the items in order, None for one that is broken and not replaced.

    The last part of an item's key is the row whose video is shown. `replace_broken` records a broken row and why, and
    returns whether its item is tried again with another key.
    """

    def submit_item(item: T) -> tuple[T, int, Any]:
        key = make_key(item)
        return item, key[-1], submit(key)

    def get_sample(pending: tuple[T, int, Any]) -> SampleArrays | None:
        while True:
            item, index, ticket = pending
            try:
                arrays = get_result(ticket)
            except BrokenVideo as error:
                reason = str(error)
            else:
                if not isinstance(arrays, LostTask):
                    return arrays
                reason = f"{dataset.sample_name(index)} {arrays.reason}"
            if not replace_broken(index, reason):
                return None
            pending = submit_item(item)

    return map_in_order(submit_item, get_sample, items, max_pending)


def _load_arrays(dataset: TrainDataset[B] | ViewDataset[B], key: tuple[int, ...]) -> SampleArrays:
    return dataset.load_arrays(*key)


def _iter_batches(
    dataset: TrainDataset[B] | ViewDataset[B],
    iter_samples: Callable[..., Iterator[SampleArrays | None]],
    batch_size: int,
    workers: int,
    timeout_seconds: float,
    device: torch.device,
) -> Iterator[B]:
    """Collate samples, move them to the device and scale clips to [0, 1].

    Without workers a sample is loaded here when it is taken. With workers a thread collates the next batch and copies
    it to the GPU while this one is used, and the workers keep as many samples of the one after ready as it has, and two
    more each.
    """
    load_sample, transfer = partial(_load_arrays, dataset), Transfer(device)
    with ExitStack() as stack:
        if workers:
            max_pending = batch_size + 2 * workers
            pool = WorkerPool(
                load_sample,
                workers=workers,
                max_pending=max_pending,
                tasks_per_worker=math.ceil(max_pending / workers),  # nothing is dispatched while the thread waits
                slot_num_bytes=dataset.sample_num_bytes,
                timeout_seconds=timeout_seconds,
                describe=lambda key: dataset.sample_name(key[-1]),
            )
            samples = iter_samples(stack.enter_context(pool).submit, pool.get_result, max_pending)
            pending = transfer.begin(filter(None, _collate_samples(samples, batch_size, device)))
            pending = stack.enter_context(closing(_prefetch(pending, pool.stop, device)))
        else:
            samples = iter_samples(lambda key: key, load_sample, 1)
            pending = transfer.begin(filter(None, _collate_samples(samples, batch_size, device)))
        for batch in pending:
            clip, *others = transfer.finish(batch)
            yield dataset.batch_type(clip.float().div_(255), *others)


def _collate_samples(
    samples: Iterator[SampleArrays | None], batch_size: int, device: torch.device
) -> Generator[tuple[Tensor, ...]]:
    """Yield batches in host memory, page-locked for a GPU; one is empty if all its videos are broken."""
    for first in samples:
        columns: list[tuple[Tensor, np.ndarray]] = []
        num_samples = 0
        for arrays in chain([first], islice(samples, batch_size - 1)):
            if arrays is not None:
                columns = columns or [_allocate_column(array, batch_size, device) for array in arrays]
                for (_, rows), array in zip(columns, arrays, strict=True):
                    rows[num_samples * len(array) : (num_samples + 1) * len(array)] = array
                num_samples += 1
        yield tuple(column[: len(column) // batch_size * num_samples] for column, _ in columns)


def _allocate_column(array: np.ndarray, batch_size: int, device: torch.device) -> tuple[Tensor, np.ndarray]:
    """Return the memory of a batch's column, as torch and as NumPy see it."""
    dtype, shape = torch.from_numpy(np.empty(0, array.dtype)).dtype, (batch_size * len(array), *array.shape[1:])
    column = torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
    return column, column.numpy()


def _prefetch(batches: Iterator[T], stop: Callable[[], None], device: torch.device) -> Generator[T]:
    """Yield the same batches, each collated in a thread while the one before is used.

    `stop` ends the thread's wait for samples; in the device's context it allocates page-locked memory.
    """
    initializer = None
    if device.type == "cuda":  # a new thread would use the first GPU
        index = torch.cuda.current_device() if device.index is None else device.index
        initializer = partial(torch.cuda.set_device, index)
    with ThreadPoolExecutor(1, initializer=initializer) as thread:
        try:
            pending = thread.submit(next, batches, None)
            while (batch := pending.result()) is not None:
                pending = thread.submit(next, batches, None)
                yield batch
        finally:
            stop()
