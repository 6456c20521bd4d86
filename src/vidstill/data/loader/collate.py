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

from vidstill.parallel.pool import Crew, Lost

T = TypeVar("T")

Parts = tuple[np.ndarray, ...]
"""A sample's arrays, each with a row for each of its copies."""

Give = Callable[[Any], Any]
"""Asks for a sample; gives a ticket."""

Take = Callable[[Any], Parts | Lost]
"""The ticket's sample, whose memory is used again with the next `Give`."""


class Taken(NamedTuple):
    """A sample, if there is one; which videos were found broken on the way, by their place in the listing, and why."""

    parts: Parts | None
    broken: dict[int, str]


Samples = Callable[[Give, Take, int], Iterator[Taken]]
"""Samples in their order, so many asked for before the first is taken."""


class Batch(NamedTuple):
    """Samples side by side, in this machine's memory, if there are any; what was found broken on the way to them."""

    columns: tuple[Tensor, ...] | None
    broken: dict[int, str]


def batches(
    work: Callable[[Any], Parts],
    samples: Samples,
    size: int,
    *,
    room: int,
    workers: int,
    stuck_seconds: float,
    device: torch.device,
) -> Generator[Batch]:
    """The samples, `size` of them side by side.

    Without workers `work` is done here, when a sample is taken. Else a thread gathers the batch that comes next; for
    the one after it the workers keep as many samples ready as it has, and two more each.

    Args:
        work: what a sample is asked for by → the sample; in a worker.
        room: bytes of a sample.
        device: where the batches are to go: a GPU reads memory that is page-locked.
    """
    pin = device.type == "cuda"
    if not workers:
        yield from _side_by_side(samples(lambda asked: asked, work, 1), size, pin)
        return
    ahead = size + 2 * workers
    depth = math.ceil(ahead / workers)  # the thread hands nothing out while it waits for the batch to be used
    with Crew(work, workers=workers, ahead=ahead, depth=depth, room=room, stuck_seconds=stuck_seconds) as crew:
        yield from _one_ahead(_side_by_side(samples(crew.give, crew.take, ahead), size, pin), crew.stop, device)


def _side_by_side(samples: Iterator[Taken], size: int, pin: bool) -> Iterator[Batch]:
    while True:
        columns: list[Tensor] = []
        broken: dict[int, str] = {}
        met = filled = 0
        for parts, found in islice(samples, size):
            met += 1
            broken |= found
            if parts is not None:
                columns = columns or [_column(part, size, pin) for part in parts]
                for column, part in zip(columns, parts, strict=True):
                    column.numpy()[filled * len(part) : (filled + 1) * len(part)] = part
                filled += 1
        if not met:
            return
        yield Batch(tuple(column[: len(column) // size * filled] for column in columns) if filled else None, broken)


def _column(part: np.ndarray, size: int, pin: bool) -> Tensor:
    dtype = torch.from_numpy(np.empty(0, part.dtype)).dtype
    return torch.empty((size * len(part), *part.shape[1:]), dtype=dtype, pin_memory=pin)


def _one_ahead(items: Iterator[T], stop: Callable[[], None], device: torch.device) -> Generator[T]:
    """The same, each made in a thread while the one before it is used.

    Args:
        stop: makes the thread's work end soon.
    """
    begin = partial(torch.cuda.set_device, _number(device)) if device.type == "cuda" else None
    with ThreadPoolExecutor(1, initializer=begin) as thread:  # a thread begins on the first GPU, whichever is ours
        try:
            coming = thread.submit(next, items, None)
            while (item := coming.result()) is not None:
                coming = thread.submit(next, items, None)
                yield item
        finally:
            stop()


def _number(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
