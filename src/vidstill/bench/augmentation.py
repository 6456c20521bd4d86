"""How fast clips are augmented, flip and RandAugment of the crop, in the loader's workers and on the device."""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange

from vidstill.bench.timing import pin_to_one_core, time_in_random_order
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.decode.reader import Frames
from vidstill.data.transforms.crop import flip_horizontal
from vidstill.data.transforms.on_device import augmented
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.terminal import show_progress_bar

_MAX_ROUNDS = 3  # at most: a turn of the workers' takes seconds


@dataclass(frozen=True, kw_only=True)
class AugmentationTiming:
    """Clips a second, at one size of batch.

    Args:
        worker_clips_per_second: for each core that does nothing else.
        device_clips_per_second: where it does nothing else.
        pixel_difference: between the two outcomes, in levels, mean over all pixels.
    """

    batch_size: int
    worker_clips_per_second: float
    device_clips_per_second: float
    pixel_difference: float


@dataclass(frozen=True, kw_only=True)
class BenchmarkDevice:
    """What this machine computes on.

    Args:
        num_threads: where that is the CPU; else none.
    """

    name: str
    num_threads: int | None


def describe_device() -> BenchmarkDevice:
    device = _get_device()
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return BenchmarkDevice(name=f"cpu, {threads} thread{'s' * (threads > 1)}", num_threads=threads)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return BenchmarkDevice(name=name, num_threads=None)


def _get_device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def measure_augmentation(
    crops: list[Frames], batch_sizes: tuple[int, ...], config: ClipsConfig, rounds: int, seed: int
) -> list[AugmentationTiming]:
    """Both places' rates, from the same draws.

    Args:
        crops: clips of the same size, repeated until a batch is full.
    """
    with show_progress_bar("augmenting") as done:
        found = []
        for batch in batch_sizes:
            found.append(_measure_batch(crops, batch, config, min(rounds, _MAX_ROUNDS), seed))
            done(len(found), len(batch_sizes))
    return found


def _measure_batch(crops: list[Frames], batch: int, config: ClipsConfig, rounds: int, seed: int) -> AugmentationTiming:
    device = _get_device()
    clips = [crops[k % len(crops)] for k in range(batch)]
    seeds = [derive_sample_seed(seed, 0, k) for k in range(batch)]
    sent = torch.from_numpy(np.stack([rearrange(clip, "t h w c -> c t h w") for clip in clips])).to(device)

    def in_workers() -> list[Frames]:
        with pin_to_one_core():
            return [_augment_in_worker(clip, of, config) for clip, of in zip(clips, seeds, strict=True)]

    def on_device() -> torch.Tensor:
        made = augmented(sent, torch.tensor(seeds), config)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return made

    here, there = np.stack(in_workers()), rearrange(on_device().cpu(), "b c t h w -> b t h w c").numpy()
    difference = float(np.abs(here.astype(np.int16) - there).mean())
    works = {"workers": in_workers, "device": on_device}
    took = [time_in_random_order(works, numpy_rng(seed, f"turns {n}")) for n in range(rounds)]
    rates = {name: batch / float(np.median([each[name] for each in took])) for name in works}
    return AugmentationTiming(batch_size=batch, pixel_difference=difference, **rates)


def _augment_in_worker(frames: Frames, seed: int, config: ClipsConfig) -> Frames:
    """What a worker does to a crop."""
    frames = flip_horizontal(frames) if numpy_rng(seed, "flip").random() < config.flip_probability else frames
    return config.randaugment.apply(frames, numpy_rng(seed, "randaugment")) if config.randaugment else frames
