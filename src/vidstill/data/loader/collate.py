"""Samples side by side, gathered while the batch before is used."""

import math
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from vidstill.parallel.pool import LostTask, WorkerPool

T = TypeVar("T")

SampleArrays = tuple[np.ndarray, ...]
"""A sample's arrays, each with a row for each of its copies."""

SubmitSample = Callable[[Any], Any]
"""Asks for a sample; gives a ticket."""

GetSample = Callable[[Any], SampleArrays | LostTask]
"""The ticket's sample, whose memory is used again with the next `SubmitSample`."""


class LoadedSample(NamedTuple):
    """A sample, if there is one; which videos were found broken on the way, by their place in the listing, and why."""

    arrays: SampleArrays | None
    broken_videos: dict[int, str]


SampleStream = Callable[[SubmitSample, GetSample, int], Iterator[LoadedSample]]
"""Samples in their order, so many asked for before the first is taken."""


class CollatedBatch(NamedTuple):
    """Samples side by side, in this machine's memory, if there are any; what was found broken on the way to them."""

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
    """The samples, `size` of them side by side.

    Without workers `work` is done here, when a sample is taken. Else a thread gathers the batch that comes next; for
    the one after it the workers keep as many samples ready as it has, and two more each.

    Args:
        load_sample: what a sample is asked for by → the sample; in a worker.
        sample_num_bytes: bytes of a sample.
        device: where the batches are to go: a GPU reads memory that is page-locked.
    """
    pin = device.type == "cuda"
    if not workers:
        yield from _collate_samples(stream(lambda asked: asked, load_sample, 1), batch_size, pin)
        return
    ahead = batch_size + 2 * workers
    depth = math.ceil(ahead / workers)  # the thread hands nothing out while it waits for the batch to be used
    with WorkerPool(
        load_sample,
        workers=workers,
        max_pending=ahead,
        tasks_per_worker=depth,
        slot_num_bytes=sample_num_bytes,
        timeout_seconds=timeout_seconds,
    ) as crew:
        yield from _prefetch_batches(
            _collate_samples(stream(crew.submit, crew.get_result, ahead), batch_size, pin), crew.stop, device
        )


def _collate_samples(samples: Iterator[LoadedSample], batch_size: int, pin_memory: bool) -> Iterator[CollatedBatch]:
    while True:
        columns: list[Tensor] = []
        broken: dict[int, str] = {}
        met = filled = 0
        for parts, found in islice(samples, batch_size):
            met += 1
            broken |= found
            if parts is not None:
                columns = columns or [_allocate_column(part, batch_size, pin_memory) for part in parts]
                for column, part in zip(columns, parts, strict=True):
                    column.numpy()[filled * len(part) : (filled + 1) * len(part)] = part
                filled += 1
        if not met:
            return
        yield CollatedBatch(
            tuple(column[: len(column) // batch_size * filled] for column in columns) if filled else None, broken
        )


def _allocate_column(array: np.ndarray, batch_size: int, pin_memory: bool) -> Tensor:
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    return torch.empty((batch_size * len(array), *array.shape[1:]), dtype=dtype, pin_memory=pin_memory)


def _prefetch_batches(items: Iterator[T], stop: Callable[[], None], device: torch.device) -> Generator[T]:
    """The same, each made in a thread while the one before it is used.

    Args:
        stop: makes the thread's work end soon.
    """
    begin = partial(torch.cuda.set_device, _get_device_index(device)) if device.type == "cuda" else None
    with ThreadPoolExecutor(1, initializer=begin) as thread:  # a thread begins on the first GPU, whichever is ours
        try:
            coming = thread.submit(next, items, None)
            while (item := coming.result()) is not None:
                coming = thread.submit(next, items, None)
                yield item
        finally:
            stop()


def _get_device_index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
