"""How many clips a second the training loader delivers."""

import time
from dataclasses import dataclass

import torch

from vidstill.data.datasets.train_clips import ClipsConfig, TrainClips
from vidstill.data.loader.loader import train_batches
from vidstill.data.manifest.manifest import Listing
from vidstill.utils.terminal import progress_bar

WORKERS = (0, 1, 2)
_BATCH = 4  # videos, where there are so many


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Clips a second with so many worker processes, from the videos as they are and from packed ones."""

    workers: int
    raw: float
    packed: float


def loading(raw: Listing, packed: Listing, clips: int, config: ClipsConfig, seed: int) -> list[Loaded]:
    """The loader's rates over at least so many clips, none of them the first batch's: workers begin with it."""
    with progress_bar("loading") as done:
        found = []
        for workers in WORKERS:
            rates = [_rate(listing, clips, config, workers, seed) for listing in (raw, packed)]
            found.append(Loaded(workers=workers, raw=rates[0], packed=rates[1]))
            done(len(found), len(WORKERS))
    return found


def _rate(listing: Listing, clips: int, config: ClipsConfig, workers: int, seed: int) -> float:
    batch = min(_BATCH, len(listing.rows))
    steps = 1 + -(-clips // batch)
    batches = train_batches(
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
