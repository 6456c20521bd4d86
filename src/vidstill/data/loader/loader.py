"""Samples become batches on the device: which process and micro-batch sees which video, and what if one is broken."""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import lru_cache, partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64

from vidstill.data.loader.collate import (
    CollatedBatch,
    GetSample,
    LoadedSample,
    SampleArrays,
    SubmitSample,
    iter_collated_batches,
)
from vidstill.data.loader.protocols import B, TrainDataset, ViewDataset
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.parallel.pool import WORKER_TIMEOUT_SECONDS, LostTask, map_in_order
from vidstill.utils.rng import numpy_rng
from vidstill.utils.types import InputError

MAX_BROKEN_FRACTION = 0.01
"""The share of a training set that may be broken before training stops; of ten videos or more, one may be."""

log = logging.getLogger("vidstill")


def draw_epoch_order(
    num_videos: int, seed: int, epoch: int, expected_counts: Float[np.ndarray, "n"] | None = None
) -> Int64[np.ndarray, "n"]:
    """The order in which an epoch sees the videos.

    Args:
        expected_counts: how often each is expected, in all as many as there are videos; None: once. Of 2.3 times, an epoch sees
            a video twice or three times, and no other number of times.
    """
    chance = numpy_rng(seed, f"order {epoch}")
    order = chance.permutation(num_videos)
    if expected_counts is None:
        return order
    # the order as a line on which a video is as long as it is often expected, and a stick at every whole length
    sticks = np.arange(num_videos) + chance.random()
    ends = np.cumsum(expected_counts[order])
    ends[-1] = num_videos  # as it is, but for rounding
    return chance.permutation(order[np.searchsorted(ends, sticks, side="right")])


def count_previous_occurrences(order: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """For each place of an order, how often its video stands before it."""
    by_video = np.argsort(order, kind="stable")
    firsts = np.flatnonzero(np.diff(order[by_video], prepend=-1))
    counts = np.diff(firsts, append=len(order))
    before = np.empty_like(order)
    before[by_video] = np.arange(len(order)) - np.repeat(firsts, counts)
    return before


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
    """This process's micro-batches, `accumulation` of them a step, from `start_step` to `total_steps` (excluded).

    A step's videos are cut into chunks by their place in the epoch's order, and chunk `micro * world + rank` is this
    process's: so two processes see what one sees in two micro-batches, and a resumed run sees what it would have seen.

    A video that does not decode is named once and not tried again, and the next in the epoch's order stands in for it.
    So it is with one whose decoder is stuck or ends its process, a worker's; without workers the decoder is in this
    process, where nothing can end it.

    The micro-batch that comes next is kept ready, and of the one after it as many videos as it has, and two for each
    worker: clips in bytes, in memory that the workers share.

    Args:
        videos_per_step: over all processes and micro-batches; not counting the copies of repeated augmentation.
        steps_per_epoch: the videos that they leave over are seen in other epochs, whose order is another.
        max_broken_fraction: of the data set; if more is broken than this, training stops. Of ten videos or more, one may be.
        timeout_seconds: a decoder that takes longer for a video, while it is waited for, is ended.

    Raises:
        InputError: a step does not divide into equal chunks, there are fewer videos than an epoch takes, or too many
            are broken. `StorageUnreachable`: a place does not answer, which is no video's fault.
    """
    if videos_per_step % (accumulation_steps * world_size):
        raise InputError(
            f"{videos_per_step} videos a step do not divide into {accumulation_steps} micro-batches on {world_size} processes; "
            f"set --batch to a multiple of {accumulation_steps * world_size}"
        )
    if len(dataset) < steps_per_epoch * videos_per_step:
        raise InputError(
            f"{len(dataset)} videos do not fill {steps_per_epoch} steps of {videos_per_step}; take a smaller batch"
        )
    made = iter_collated_batches(
        partial(_load_train_arrays, dataset),
        partial(
            _iter_train_samples,
            dataset,
            _iter_epoch_positions(
                range(start_step, total_steps), videos_per_step, steps_per_epoch, accumulation_steps, rank, world_size
            ),
            int(max_broken_fraction * len(dataset)) or int(len(dataset) >= 10),
        ),
        videos_per_step // (accumulation_steps * world_size),
        sample_num_bytes=dataset.sample_num_bytes,
        workers=workers,
        timeout_seconds=timeout_seconds,
        device=device,
    )
    return _iter_device_batches(dataset.batch_type, made, {}, f"another {dataset.noun} stands in for it", device)


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
    """Every video of this process once, in the listing's order; nothing stands in for one that does not decode.

    Nor for one whose decoder is stuck or ends its process. What is kept ready, and what cannot be ended without
    workers, is as in `iter_train_batches`.

    Args:
        broken_videos: is given the places of those that do not decode, and why; their rows are left out of the batches.

    Raises:
        InputError: a place does not answer (`StorageUnreachable`), or the list names what no clips can be taken from.
    """
    made = iter_collated_batches(
        dataset.load_arrays,
        partial(_iter_view_samples, dataset, range(rank, len(dataset), world_size)),
        videos_per_batch,
        sample_num_bytes=dataset.sample_num_bytes,
        workers=workers,
        timeout_seconds=timeout_seconds,
        device=device,
    )
    return _iter_device_batches(dataset.batch_type, made, broken_videos, "it is not scored", device)


def _iter_epoch_positions(
    steps: range, videos_per_step: int, steps_per_epoch: int, accumulation_steps: int, rank: int, world_size: int
) -> Iterator[tuple[int, int]]:
    """For each video of one process its epoch and its place in the epoch's order."""
    size = videos_per_step // (accumulation_steps * world_size)
    for step in steps:
        epoch, within = divmod(step, steps_per_epoch)
        for micro in range(accumulation_steps):
            first = within * videos_per_step + (micro * world_size + rank) * size
            yield from ((epoch, place) for place in range(first, first + size))


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
) -> Iterator[LoadedSample]:
    """Samples by their place in an epoch's order; the next in the order stands in for one that is broken."""
    videos, broken = len(dataset), dict[int, str]()

    @lru_cache(maxsize=2)  # samples are asked for ahead, across the border of two epochs
    def order_of(epoch: int) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        order = draw_epoch_order(videos, dataset.seed, epoch, dataset.expected_counts)
        return order, count_previous_occurrences(order)

    def ask(place: tuple[int, int]) -> _PendingSample:
        epoch, within = place
        order, before = order_of(epoch)
        all_of_them = chain(order[within:], order[:within], range(videos))  # an epoch may leave some out
        shown = next(video for video in map(int, all_of_them) if video not in broken)
        return _PendingSample(epoch, within, shown, submit((epoch, int(order[within]), int(before[within]), shown)))

    def taken(asked: _PendingSample) -> LoadedSample:
        found: dict[int, str] = {}
        while isinstance(parts := _get_arrays(dataset, asked.source_index, get_result, asked.ticket), str):
            if asked.source_index not in broken:  # it may have been asked for twice
                broken[asked.source_index] = found[asked.source_index] = parts
            if len(broken) > min(max_broken, videos - 1):
                raise InputError(_format_broken_videos(broken, max_broken, videos, dataset.noun))
            asked = ask((asked.epoch, asked.position))
        return LoadedSample(parts, found)

    return map_in_order(ask, taken, positions, max_pending)


def _iter_view_samples(
    dataset: ViewDataset[B], indices: range, submit: SubmitSample, get_result: GetSample, max_pending: int
) -> Iterator[LoadedSample]:
    """Samples in the listing's order; none for one that is broken."""

    def taken(asked: tuple[int, Any]) -> LoadedSample:
        place, ticket = asked
        parts = _get_arrays(dataset, place, get_result, ticket)
        return LoadedSample(None, {place: parts}) if isinstance(parts, str) else LoadedSample(parts, {})

    return map_in_order(lambda place: (place, submit(place)), taken, indices, max_pending)


def _get_arrays(
    dataset: TrainDataset[B] | ViewDataset[B], index: int, get_result: GetSample, ticket: Any
) -> SampleArrays | str:
    """A video's sample, or a sentence on why there is none."""
    try:
        parts = get_result(ticket)
    except BrokenVideo as error:
        return str(error)
    return f"{dataset.sample_name(index)} {parts.reason}" if isinstance(parts, LostTask) else parts


def _iter_device_batches(
    batch_type: Callable[..., B],
    batches: Generator[CollatedBatch],
    broken_videos: dict[int, str],
    consequence: str,
    device: torch.device,
) -> Generator[B]:
    """The batches on the device, where bytes become colours; says what is broken, and what is done about it.

    Args:
        broken_videos: is given the videos that are.
    """
    with closing(batches):
        for columns, found in batches:
            for why in found.values():
                log.warning("%s; %s", why, consequence)
            broken_videos |= found
            if columns is not None:
                clip, *beside = columns
                clip = clip.to(device, non_blocking=True).float().div_(255)
                yield batch_type(clip, *(column.to(device, non_blocking=True) for column in beside))


def _format_broken_videos(broken_videos: dict[int, str], max_broken: int, num_videos: int, noun: str) -> str:
    shown = "; ".join(list(broken_videos.values())[:10])
    more = f"; and {len(broken_videos) - 10} more" if len(broken_videos) > 10 else ""
    return f"{len(broken_videos)} of {num_videos} {noun}s are broken and {max_broken} may be; mend them or leave them out: {shown}{more}"
