"""The order in which an epoch shows the samples, and which part of it each process takes."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int64

from vidstill.utils.rng import numpy_rng


def draw_epoch_order(
    num_videos: int, seed: int, epoch: int, expected_counts: Float[np.ndarray, "n"] | None = None
) -> Int64[np.ndarray, "n"]:
    """Draw the order in which an epoch shows the videos.

    Args:
        expected_counts: How often each video is expected, with the number of videos as the sum; None: once. A video
            expected 2.3 times is shown two or three times, never another number of times.
    """
    rng = numpy_rng(seed, f"order {epoch}")
    order = rng.permutation(num_videos)
    if expected_counts is None:
        return order
    # systematic sampling: on a line where each video is as long as its count, a point at every whole length
    points = np.arange(num_videos) + rng.random()
    ends = np.cumsum(expected_counts[order])
    ends[-1] = num_videos  # it differs by rounding only
    return rng.permutation(order[np.searchsorted(ends, points, side="right")])


def count_previous_occurrences(order: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Return for each position of an order how often its video comes before it."""
    by_video = np.argsort(order, kind="stable")
    starts = np.flatnonzero(np.diff(order[by_video], prepend=-1))
    counts = np.diff(starts, append=len(order))
    previous = np.empty_like(order)
    previous[by_video] = np.arange(len(order)) - np.repeat(starts, counts)
    return previous


def iter_epoch_positions(
    steps: range, videos_per_step: int, steps_per_epoch: int, accumulation_steps: int, rank: int, world_size: int
) -> Iterator[tuple[int, int]]:
    """Yield the epoch, and the position in its order, of each video that one process takes.

    A step's videos are cut into chunks by position; chunk `micro_batch * world_size + rank` is this process's.
    """
    size = videos_per_step // (accumulation_steps * world_size)
    for step in steps:
        epoch, step_in_epoch = divmod(step, steps_per_epoch)
        for micro_batch in range(accumulation_steps):
            start = step_in_epoch * videos_per_step + (micro_batch * world_size + rank) * size
            yield from ((epoch, position) for position in range(start, start + size))
