"""Clips per second that the training loader delivers."""

import time
from dataclasses import dataclass

import torch

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.manifest.manifest import Manifest
from vidstill.utils.terminal import show_progress_bar

WORKER_COUNTS = (0, 1, 2)
_BATCH_SIZE = 4  # videos, or all if there are fewer


@dataclass(frozen=True, kw_only=True)
class LoaderTiming:
    """Clips per second from raw and from packed videos, with a number of worker processes."""

    num_workers: int
    raw_clips_per_second: float
    packed_clips_per_second: float


def measure_loading(
    raw_manifest: Manifest, packed_manifest: Manifest, num_clips: int, config: ClipsConfig, seed: int
) -> list[LoaderTiming]:
    """Time the loader with each of `WORKER_COUNTS`.

    Args:
        num_clips: Clips to time at least; the first batch, in which workers start, is not timed.
        config: Sampling and augmentation of the clips.
        seed: Random seed of the sampling.
    """
    with show_progress_bar("loading") as report_progress:
        timings = []
        for num_workers in WORKER_COUNTS:
            raw, packed = (
                _measure_rate(m, num_clips, config, num_workers, seed) for m in (raw_manifest, packed_manifest)
            )
            timings.append(
                LoaderTiming(num_workers=num_workers, raw_clips_per_second=raw, packed_clips_per_second=packed)
            )
            report_progress(len(timings), len(WORKER_COUNTS))
    return timings


def _measure_rate(manifest: Manifest, num_clips: int, config: ClipsConfig, num_workers: int, seed: int) -> float:
    batch_size = min(_BATCH_SIZE, len(manifest.rows))
    steps = 1 + -(-num_clips // batch_size)
    batches = iter_train_batches(
        TrainClips(manifest, config, seed=seed),
        videos_per_step=batch_size,
        steps_per_epoch=len(manifest.rows) // batch_size,
        total_steps=steps,
        workers=num_workers,
        device=torch.device("cpu"),
    )
    next(batches)
    start = time.perf_counter()
    num_delivered = sum(len(batch.clip) for batch in batches)
    return num_delivered / (time.perf_counter() - start)
