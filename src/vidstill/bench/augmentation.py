"""How fast clips are augmented, flip and RandAugment of the crop, in the loader's workers and on the device."""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange

from vidstill.bench.timing import in_turns, one_core
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.decode.reader import Frames
from vidstill.data.transforms.crop import flip
from vidstill.data.transforms.on_device import augmented
from vidstill.utils.rng import numpy_chance, sample_seed
from vidstill.utils.terminal import progress_bar

_ROUNDS = 3  # at most: a turn of the workers' takes seconds


@dataclass(frozen=True, kw_only=True)
class Augmented:
    """Clips a second, at one size of batch.

    Args:
        workers: for each core that does nothing else.
        device: where it does nothing else.
        difference: between the two outcomes, in levels, mean over all pixels.
    """

    batch: int
    workers: float
    device: float
    difference: float


@dataclass(frozen=True, kw_only=True)
class Device:
    """What this machine computes on.

    Args:
        threads: where that is the CPU; else none.
    """

    name: str
    threads: int | None


def this_device() -> Device:
    device = _device()
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return Device(name=f"cpu, {threads} thread{'s' * (threads > 1)}", threads=threads)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Device(name=name, threads=None)


def _device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def augmentation(
    crops: list[Frames], batches: tuple[int, ...], config: ClipsConfig, rounds: int, seed: int
) -> list[Augmented]:
    """Both places' rates, from the same draws.

    Args:
        crops: clips of the same size, repeated until a batch is full.
    """
    with progress_bar("augmenting") as done:
        found = []
        for batch in batches:
            found.append(_augmented(crops, batch, config, min(rounds, _ROUNDS), seed))
            done(len(found), len(batches))
    return found


def _augmented(crops: list[Frames], batch: int, config: ClipsConfig, rounds: int, seed: int) -> Augmented:
    device = _device()
    clips = [crops[k % len(crops)] for k in range(batch)]
    seeds = [sample_seed(seed, 0, k) for k in range(batch)]
    sent = torch.from_numpy(np.stack([rearrange(clip, "t h w c -> c t h w") for clip in clips])).to(device)

    def in_workers() -> list[Frames]:
        with one_core():
            return [_in_worker(clip, of, config) for clip, of in zip(clips, seeds, strict=True)]

    def on_device() -> torch.Tensor:
        made = augmented(sent, torch.tensor(seeds), config)
        if device.type != "cpu":
            torch.accelerator.synchronize()
        return made

    here, there = np.stack(in_workers()), rearrange(on_device().cpu(), "b c t h w -> b t h w c").numpy()
    difference = float(np.abs(here.astype(np.int16) - there).mean())
    works = {"workers": in_workers, "device": on_device}
    took = [in_turns(works, numpy_chance(seed, f"turns {n}")) for n in range(rounds)]
    rates = {name: batch / float(np.median([each[name] for each in took])) for name in works}
    return Augmented(batch=batch, difference=difference, **rates)


def _in_worker(frames: Frames, seed: int, config: ClipsConfig) -> Frames:
    """What a worker does to a crop."""
    frames = flip(frames) if numpy_chance(seed, "flip").random() < config.flip else frames
    return config.randaugment.apply(frames, numpy_chance(seed, "randaugment")) if config.randaugment else frames
