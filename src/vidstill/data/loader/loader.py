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
from torch import Tensor

from vidstill.data.loader.collate import Batch, Give, Parts, Take, Taken, batches
from vidstill.data.loader.protocols import B, TrainSet, ViewSet
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.parallel.pool import STUCK_SECONDS, Lost, in_order
from vidstill.utils.rng import numpy_chance
from vidstill.utils.types import InputError

BROKEN_SHARE = 0.01
"""The share of a training set that may be broken before training stops; of ten videos or more, one may be."""

log = logging.getLogger("vidstill")


def epoch_order(
    videos: int, seed: int, epoch: int, times: Float[np.ndarray, "n"] | None = None
) -> Int64[np.ndarray, "n"]:
    """The order in which an epoch sees the videos.

    Args:
        times: how often each is expected, in all as many as there are videos; None: once. Of 2.3 times, an epoch sees
            a video twice or three times, and no other number of times.
    """
    chance = numpy_chance(seed, f"order {epoch}")
    order = chance.permutation(videos)
    if times is None:
        return order
    # the order as a line on which a video is as long as it is often expected, and a stick at every whole length
    sticks = np.arange(videos) + chance.random()
    ends = np.cumsum(times[order])
    ends[-1] = videos  # as it is, but for rounding
    return chance.permutation(order[np.searchsorted(ends, sticks, side="right")])


def times_before(order: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """For each place of an order, how often its video stands before it."""
    by_video = np.argsort(order, kind="stable")
    firsts = np.flatnonzero(np.diff(order[by_video], prepend=-1))
    counts = np.diff(firsts, append=len(order))
    before = np.empty_like(order)
    before[by_video] = np.arange(len(order)) - np.repeat(firsts, counts)
    return before


def train_batches(
    dataset: TrainSet[B],
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
    stuck_seconds: float = STUCK_SECONDS,
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
        broken_share: of the data set; if more is broken than this, training stops. Of ten videos or more, one may be.
        stuck_seconds: a decoder that takes longer for a video, while it is waited for, is ended.

    Raises:
        InputError: a step does not divide into equal chunks, there are fewer videos than an epoch takes, or too many
            are broken. `Unreachable`: a place does not answer, which is no video's fault.
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
    made = batches(
        partial(_train_parts, dataset),
        partial(
            _train_samples,
            dataset,
            _places(range(start_step, total_steps), videos_per_step, steps_per_epoch, accumulation, rank, world),
            int(broken_share * len(dataset)) or int(len(dataset) >= 10),
        ),
        videos_per_step // (accumulation * world),
        room=dataset.room,
        workers=workers,
        stuck_seconds=stuck_seconds,
        device=device,
    )
    return _delivered(dataset.batch, made, {}, f"another {dataset.unit} stands in for it", device, dataset.changed)


def view_batches(
    dataset: ViewSet[B],
    *,
    videos_per_batch: int,
    broken: dict[int, str],
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    device: torch.device,
    stuck_seconds: float = STUCK_SECONDS,
) -> Iterator[B]:
    """Every video of this process once, in the listing's order; nothing stands in for one that does not decode.

    Nor for one whose decoder is stuck or ends its process. What is kept ready, and what cannot be ended without
    workers, is as in `train_batches`.

    Args:
        broken: is given the places of those that do not decode, and why; their rows are left out of the batches.

    Raises:
        InputError: a place does not answer (`Unreachable`), or the list names what no clips can be taken from.
    """
    made = batches(
        dataset.parts,
        partial(_view_samples, dataset, range(rank, len(dataset), world)),
        videos_per_batch,
        room=dataset.room,
        workers=workers,
        stuck_seconds=stuck_seconds,
        device=device,
    )
    return _delivered(dataset.batch, made, broken, "it is not scored", device)


def _places(
    steps: range, videos_per_step: int, steps_per_epoch: int, accumulation: int, rank: int, world: int
) -> Iterator[tuple[int, int]]:
    """For each video of one process its epoch and its place in the epoch's order."""
    size = videos_per_step // (accumulation * world)
    for step in steps:
        epoch, within = divmod(step, steps_per_epoch)
        for micro in range(accumulation):
            first = within * videos_per_step + (micro * world + rank) * size
            yield from ((epoch, place) for place in range(first, first + size))


def _train_parts(dataset: TrainSet[B], asked: tuple[int, int, int, int]) -> Parts:
    return dataset.parts(*asked)


class _Asked(NamedTuple):
    epoch: int
    place: int
    shown: int
    ticket: Any


def _train_samples(
    dataset: TrainSet[B], places: Iterable[tuple[int, int]], allowed: int, give: Give, take: Take, ahead: int
) -> Iterator[Taken]:
    """Samples by their place in an epoch's order; the next in the order stands in for one that is broken."""
    videos, broken = len(dataset), dict[int, str]()

    @lru_cache(maxsize=2)  # samples are asked for ahead, across the border of two epochs
    def order_of(epoch: int) -> tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
        order = epoch_order(videos, dataset.seed, epoch, dataset.times)
        return order, times_before(order)

    def ask(place: tuple[int, int]) -> _Asked:
        epoch, within = place
        order, before = order_of(epoch)
        all_of_them = chain(order[within:], order[:within], range(videos))  # an epoch may leave some out
        shown = next(video for video in map(int, all_of_them) if video not in broken)
        return _Asked(epoch, within, shown, give((epoch, int(order[within]), int(before[within]), shown)))

    def taken(asked: _Asked) -> Taken:
        found: dict[int, str] = {}
        while isinstance(parts := _taken(dataset, asked.shown, take, asked.ticket), str):
            if asked.shown not in broken:  # it may have been asked for twice
                broken[asked.shown] = found[asked.shown] = parts
            if len(broken) > min(allowed, videos - 1):
                raise InputError(_too_many(broken, allowed, videos, dataset.unit))
            asked = ask((asked.epoch, asked.place))
        return Taken(parts, found)

    return in_order(ask, taken, places, ahead)


def _view_samples(dataset: ViewSet[B], places: range, give: Give, take: Take, ahead: int) -> Iterator[Taken]:
    """Samples in the listing's order; none for one that is broken."""

    def taken(asked: tuple[int, Any]) -> Taken:
        place, ticket = asked
        parts = _taken(dataset, place, take, ticket)
        return Taken(None, {place: parts}) if isinstance(parts, str) else Taken(parts, {})

    return in_order(lambda place: (place, give(place)), taken, places, ahead)


def _taken(dataset: TrainSet[B] | ViewSet[B], place: int, take: Take, ticket: Any) -> Parts | str:
    """A video's sample, or a sentence on why there is none."""
    try:
        parts = take(ticket)
    except BrokenVideo as error:
        return str(error)
    return f"{dataset.name(place)} {parts.why}" if isinstance(parts, Lost) else parts


def _delivered(
    kind: Callable[..., B],
    made: Generator[Batch],
    broken: dict[int, str],
    then: str,
    device: torch.device,
    change: Callable[..., Tensor] | None = None,
) -> Generator[B]:
    """The batches on the device, where bytes become colours; says what is broken, and what is done about it.

    Args:
        broken: is given the videos that are.
        change: of the clips' bytes on the device, by what is beside them in this machine's memory.
    """
    with closing(made):
        for columns, found in made:
            for why in found.values():
                log.warning("%s; %s", why, then)
            broken |= found
            if columns is not None:
                clip, *beside = columns
                clip = clip.to(device, non_blocking=True)
                if change is not None:
                    clip = change(clip, *beside)
                yield kind(clip.float().div_(255), *(column.to(device, non_blocking=True) for column in beside))


def _too_many(broken: dict[int, str], allowed: int, videos: int, unit: str) -> str:
    shown = "; ".join(list(broken.values())[:10])
    more = f"; and {len(broken) - 10} more" if len(broken) > 10 else ""
    return (
        f"{len(broken)} of {videos} {unit}s are broken and {allowed} may be; mend them or leave them out: {shown}{more}"
    )
