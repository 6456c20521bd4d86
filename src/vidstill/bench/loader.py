"""How many clips a second the training loader delivers."""

import time
from dataclasses import dataclass

import torch

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.loader.loader import iter_train_batches
from vidstill.data.manifest.manifest import Manifest
from vidstill.utils.terminal import show_progress_bar

WORKER_COUNTS = (0, 1, 2)
_BATCH_SIZE = 4  # videos, where there are so many


@dataclass(frozen=True, kw_only=True)
class LoaderTiming:
    """Clips a second with so many worker processes, from the videos as they are and from packed ones."""

    num_workers: int
    raw_clips_per_second: float
    packed_clips_per_second: float


def measure_loading(
    raw_manifest: Manifest, packed_manifest: Manifest, num_clips: int, config: ClipsConfig, seed: int
) -> list[LoaderTiming]:
    """The loader's rates over at least so many clips, none of them the first batch's: workers begin with it."""
    with show_progress_bar("loading") as done:
        found = []
        for workers in WORKER_COUNTS:
            rates = [
                _measure_rate(listing, num_clips, config, workers, seed) for listing in (raw_manifest, packed_manifest)
            ]
            found.append(
                LoaderTiming(num_workers=workers, raw_clips_per_second=rates[0], packed_clips_per_second=rates[1])
            )
            done(len(found), len(WORKER_COUNTS))
    return found


def _measure_rate(listing: Manifest, clips: int, config: ClipsConfig, workers: int, seed: int) -> float:
    batch = min(_BATCH_SIZE, len(listing.rows))
    steps = 1 + -(-clips // batch)
    batches = iter_train_batches(
        TrainClips(listing, config, seed=seed),
        videos_per_step=batch,
        steps_per_epoch=len(listing.rows) // batch,
        total_steps=steps,
        workers=workers,
        device=torch.device("cpu"),
    )
    next(batches)
    begun = time.perf_counter()
    delivered = sum(len(each.clip) for each in batches)
    return delivered / (time.perf_counter() - begun)
