"""How fast a loader worker augments clips: a horizontal flip and RandAugment of the crop."""

import time

import numpy as np

from vidstill.bench.timing import pin_to_one_core
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.decode.reader import Frames
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.terminal import show_progress_bar


def measure_augmentation(crops: list[Frames], config: ClipsConfig, rounds: int, seed: int) -> float:
    """Return the clips per second that one core augments: the median over rounds of all crops.

    Args:
        crops: Clips of `config.size`.
        config: The flip and RandAugment that are applied.
        rounds: Times that all crops are augmented, each time with other draws.
        seed: Random seed of the draws.
    """
    rates = []
    with show_progress_bar("augmenting") as report_progress, pin_to_one_core():
        for n in range(rounds):
            start = time.perf_counter()
            for k, crop in enumerate(crops):
                config.augment_crop(crop, derive_sample_seed(seed, n, k))
            rates.append(len(crops) / (time.perf_counter() - start))
            report_progress(n + 1, rounds)
    return float(np.median(rates))
