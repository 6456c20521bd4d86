"""Samples from worker processes, collated into page-locked batches while the batch before is used."""

import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from typing import Any

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


SampleStream = Callable[[SubmitSample, GetSample, int], Iterator[SampleArrays | None]]
"""Yields samples in order, None for a broken one; the number is how many are submitted before the first is taken."""

Columns = tuple[Tensor, ...]
"""A batch in host memory; empty if all its videos are broken."""


def iter_collated_batches(
    load_sample: Callable[[Any], SampleArrays],
    stream: SampleStream,
    batch_size: int,
    *,
    sample_num_bytes: int,
    workers: int,
    timeout_seconds: float,
    device: torch.device,
) -> Generator[Columns]:
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


def _collate_samples(samples: Iterator[SampleArrays | None], batch_size: int, pin_memory: bool) -> Iterator[Columns]:
    for first in samples:
        columns: list[Tensor] = []
        num_samples = 0
        for arrays in chain([first], islice(samples, batch_size - 1)):
            if arrays is not None:
                columns = columns or [_allocate_column(array, batch_size, pin_memory) for array in arrays]
                for column, array in zip(columns, arrays, strict=True):
                    column.numpy()[num_samples * len(array) : (num_samples + 1) * len(array)] = array
                num_samples += 1
        yield tuple(column[: len(column) // batch_size * num_samples] for column in columns)


def _allocate_column(array: np.ndarray, batch_size: int, pin_memory: bool) -> Tensor:
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    return torch.empty((batch_size * len(array), *array.shape[1:]), dtype=dtype, pin_memory=pin_memory)


def _prefetch_batches(batches: Iterator[Columns], stop: Callable[[], None], device: torch.device) -> Generator[Columns]:
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
