"""Samples from worker processes, collated into page-locked batches while the batch before is used."""

import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vidstill.parallel.pool import LostTask, WorkerPool

SampleArrays = tuple[np.ndarray, ...]
"""A sample: columns that each have one row per copy, the clips first."""

SubmitSample = Callable[[Any], Any]
"""Requests the sample of a key and returns a ticket."""

GetSample = Callable[[Any], SampleArrays | LostTask]
"""Returns the sample of a ticket; the next `SubmitSample` reuses its memory."""


class LoadedSample(NamedTuple):
    """A sample, None if its video is broken; and why videos were newly found broken, by index."""

    arrays: SampleArrays | None
    broken_videos: dict[int, str]


SampleStream = Callable[[SubmitSample, GetSample, int], Iterator[LoadedSample]]
"""Yields samples in order; the number is how many are submitted before the first is taken."""


class CollatedBatch(NamedTuple):
    """Columns of a batch in host memory, None if all its videos are broken; and the newly broken videos."""

    columns: tuple[Tensor, ...] | None
    broken_videos: dict[int, str]


def iter_collated_batches(
    load_sample: Callable[[Any], SampleArrays],
    stream: SampleStream,
    batch_size: int,
    *,
    sample_num_bytes: int,
    workers: int,
    timeout_seconds: float,
    device: torch.device,
) -> Generator[CollatedBatch]:
    """Yield batches of `batch_size` samples.

    Without workers a sample is loaded here when it is taken. With workers a thread collates the next batch while this
    one is used, and the workers keep as many samples of the one after ready as it has, and two more each.

    Args:
        load_sample: Loads the sample of a key, in a worker.
        stream: Submits keys and takes samples.
        batch_size: Samples of a batch.
        sample_num_bytes: Size of a sample in bytes, which shared memory is allocated for.
        workers: Worker processes.
        timeout_seconds: A worker that is waited for and makes no progress for so long is killed.
        device: Where batches will go; for a GPU they are in page-locked memory.
    """
    pin_memory = device.type == "cuda"
    if not workers:
        yield from _collate_samples(stream(lambda key: key, load_sample, 1), batch_size, pin_memory)
        return
    max_pending = batch_size + 2 * workers
    with WorkerPool(
        load_sample,
        workers=workers,
        max_pending=max_pending,
        tasks_per_worker=math.ceil(max_pending / workers),  # nothing is dispatched while the thread waits
        slot_num_bytes=sample_num_bytes,
        timeout_seconds=timeout_seconds,
    ) as pool:
        samples = stream(pool.submit, pool.get_result, max_pending)
        yield from _prefetch_batches(_collate_samples(samples, batch_size, pin_memory), pool.stop, device)


def _collate_samples(samples: Iterator[LoadedSample], batch_size: int, pin_memory: bool) -> Iterator[CollatedBatch]:
    while (batch := _collate_batch(samples, batch_size, pin_memory)) is not None:
        yield batch


def _collate_batch(samples: Iterator[LoadedSample], batch_size: int, pin_memory: bool) -> CollatedBatch | None:
    """Collate the next samples; None if there are no more."""
    columns: list[Tensor] = []
    broken: dict[int, str] = {}
    num_read = num_samples = 0
    for arrays, newly_broken in islice(samples, batch_size):
        num_read += 1
        broken |= newly_broken
        if arrays is not None:
            columns = columns or [_allocate_column(array, batch_size, pin_memory) for array in arrays]
            for column, array in zip(columns, arrays, strict=True):
                column.numpy()[num_samples * len(array) : (num_samples + 1) * len(array)] = array
            num_samples += 1
    if not num_read:
        return None
    filled = tuple(column[: len(column) // batch_size * num_samples] for column in columns)
    return CollatedBatch(filled or None, broken)


def _allocate_column(array: np.ndarray, batch_size: int, pin_memory: bool) -> Tensor:
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    return torch.empty((batch_size * len(array), *array.shape[1:]), dtype=dtype, pin_memory=pin_memory)


def _prefetch_batches(
    batches: Iterator[CollatedBatch], stop: Callable[[], None], device: torch.device
) -> Generator[CollatedBatch]:
    """Yield the same batches, each collated in a thread while the one before is used.

    Args:
        stop: Ends the thread's wait for samples.
        device: The device whose context the thread uses for page-locked memory.
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
