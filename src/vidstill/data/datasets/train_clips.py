"""Rows become samples: a training clip in its augmented copies, or all the views of a test video."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from vidstill.data.datasets.lookup import Sampling, _clips_bytes, _label, _read_each, _Videos
from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.loader.collate import Parts
from vidstill.data.loader.protocols import Sample, TrainBatch
from vidstill.data.manifest.manifest import Listing
from vidstill.data.storage.fetch import Source, name_of
from vidstill.data.transforms.crop import MultiScaleCrop, RandomResizedCrop, flip
from vidstill.data.transforms.frame_sampling import SpanSampling, TimedSampling
from vidstill.data.transforms.randaugment import RandAugment
from vidstill.utils.rng import numpy_chance, sample_seed
from vidstill.utils.text import one_line
from vidstill.utils.types import InputError, within


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """What a training clip is: which frames, how they are cropped and coloured, in how many copies.

    Args:
        dataset: what the recipe's numbers are for, such as "kinetics400"; it changes nothing.
        sampling: which frames; of one frame for pictures, which are clips of one frame.
        size: rows and columns of a clip.
        flip: the probability of a left-right flip.
        randaugment_on: the whole "frame", before it is cropped (the video papers), or the "crop", after it is flipped
            (the image papers).
        repeats: augmented copies of a video ("repeated augmentation").
        repeat_frames: "same" if all copies show one draw of frames (AMD, fine-tuning), "own" if each has a draw of its
            own: from a segment of its own with SpanSampling (MVD), from anywhere with TimedSampling (ST-MAE).
        balance: how much is made up for classes of unequal sizes: at 0 an epoch shows every video once, at 1 every
            class equally often; between, a class's share of an epoch is its share of the videos to the power of
            1 - balance. Of several labels a video's rarest counts.
    """

    dataset: str
    sampling: Sampling
    size: tuple[int, int] = (224, 224)
    crop: MultiScaleCrop | RandomResizedCrop = field(default_factory=MultiScaleCrop)
    flip: float = 0.0
    randaugment: RandAugment | None = None
    randaugment_on: Literal["frame", "crop"] = "frame"
    repeats: int = 1
    repeat_frames: Literal["same", "own"] = "same"
    balance: float = 0.0

    def __post_init__(self) -> None:
        within(0, 1, flip=self.flip, balance=self.balance)
        for side in self.size:
            within(1, math.inf, size=side)
        if self.repeats < 1:
            raise InputError(f"a video gives {self.repeats} copies; set repeats to 1 or more")
        if self.repeat_frames == "own" and not isinstance(self.sampling, SpanSampling | TimedSampling):
            rule = type(self.sampling).__name__
            raise InputError(f'repeat_frames "own" is a rule of SpanSampling and TimedSampling, not of {rule}')


AugmentOn = Literal["workers", "device"]
"""Where clips are flipped, and RandAugment changes crops: in the workers, or on the device in whole batches.

RandAugment of whole frames, before they are cropped (the video papers), is the workers' in either case.
"""


class TrainClips(Dataset[Sample]):
    """Training samples: a pure function of (seed, epoch, index).

    Args:
        augment_on: the device, to leave to it what comes after the crop: `on_device.augmented` does that.

    Raises:
        InputError: classes are to be balanced and there are no labels.
    """

    batch = TrainBatch
    unit = "video"

    def __init__(self, listing: Listing, config: ClipsConfig, *, seed: int, augment_on: AugmentOn = "workers"):
        self.listing, self.config, self.seed, self.augment_on = listing, config, seed, augment_on
        self._videos = _Videos(listing, config.sampling)
        self.times = times_expected(listing, config.balance) if config.balance else None

    @property
    def repeats(self) -> int:
        return self.config.repeats

    @property
    def notes(self) -> Sequence[str]:
        return () if self.times is None else (_shown_most_and_least(self.listing, self.times),)

    @property
    def room(self) -> int:
        config = self.config
        return _clips_bytes(config.repeats, config.sampling.frames, config.size, self.listing)

    @property
    def changed(self) -> Callable[..., Tensor] | None:
        return partial(_on_device, self.config) if self.augment_on == "device" else None

    def __len__(self) -> int:
        return len(self.listing.rows)

    def name(self, place: int) -> str:
        return name_of(self.listing.rows[place].source)

    def parts(self, epoch: int, index: int, again: int, shown: int) -> Parts:
        return tuple(part.numpy() for part in self.sample(epoch, index, again=again, stand_in=shown))

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        return self.sample(epoch, index)

    def sample(self, epoch: int, index: int, *, again: int = 0, stand_in: int | None = None) -> Sample:
        """The sample of a place in the listing.

        Args:
            again: how often the epoch has shown it before, where it shows a video more than once.
            stand_in: the place of the video that is shown instead, with the chance of the one it stands in for, so that
                a video that is seen twice in an epoch is not cropped and masked alike.

        Raises:
            BrokenVideo: the video does not decode.
        """
        config = self.config
        place = index if stand_in is None else stand_in
        row = self.listing.rows[place]
        copies = range(again * config.repeats, (again + 1) * config.repeats)
        seeds = [sample_seed(self.seed, epoch, index, copy) for copy in copies]
        clips = [
            self._augmented(frames, seed)
            for frames, seed in zip(self._drawn(place, row.source, seeds[0]), seeds, strict=True)
        ]
        label = torch.as_tensor(_label(self.listing, place, row))
        return Sample(
            torch.from_numpy(np.stack(clips)),
            label.expand(config.repeats, *label.shape).contiguous(),
            torch.tensor(seeds),
        )

    def _drawn(self, place: int, source: Source, seed: int) -> list[Frames]:
        """Each copy's frames, decoded in one go."""
        config, total = self.config, self._videos.frames(place)
        sampling = self._videos.sampling(place)
        chance = numpy_chance(seed, "frames")
        if config.repeat_frames == "own" and isinstance(sampling, SpanSampling | TimedSampling):
            return _read_each(source, sampling.draw_repeats(total, config.repeats, chance))
        return [read_frames(source, sampling.draw(total, chance))] * config.repeats

    def _augmented(self, frames: Frames, seed: int) -> UInt8[np.ndarray, "3 t rows cols"]:
        config = self.config
        if config.randaugment is not None and config.randaugment_on == "frame":
            frames = config.randaugment.apply(frames, numpy_chance(seed, "randaugment"))
        frames = config.crop.apply(frames, config.size, numpy_chance(seed, "crop"))
        if self.augment_on == "device":
            return rearrange(frames, "t h w c -> c t h w")
        if numpy_chance(seed, "flip").random() < config.flip:
            frames = flip(frames)
        if config.randaugment is not None and config.randaugment_on == "crop":
            frames = config.randaugment.apply(frames, numpy_chance(seed, "randaugment"))
        return rearrange(frames, "t h w c -> c t h w")


def times_expected(listing: Listing, balance: float) -> Float[np.ndarray, "n"]:
    """How often an epoch is expected to show each video, by `ClipsConfig.balance`: it shows as many as there are.

    Raises:
        InputError: there are no labels.
    """
    whose, labels = listing.rows.pairs()
    if not len(labels):
        raise InputError(f"{listing.source} has no labels, so that no classes can be balanced; take clips.balance 0")
    of_class = np.bincount(labels)
    weights = np.zeros(len(listing.rows))
    np.maximum.at(weights, whose, of_class[labels] ** -float(balance))
    unlabelled = weights == 0
    weights[unlabelled] = max(1, unlabelled.sum()) ** -float(balance)  # they are a class of their own
    return weights * (len(weights) / weights.sum())


def _shown_most_and_least(listing: Listing, times: Float[np.ndarray, "n"]) -> str:
    """How often an epoch shows a video of the classes that it shows most and least often."""
    named = []
    for place in (int(times.argmax()), int(times.argmin())):
        whose = " and ".join(listing.classes[label] for label in listing.rows[place].labels) or "no class"
        named.append(f"a video of {one_line(whose)} {times[place]:.2f} times")
    return f"an epoch is expected to show {named[0]}, {named[1]}"


def _on_device(config: ClipsConfig, clip: Tensor, label: Tensor, seed: Tensor) -> Tensor:
    from vidstill.data.transforms.on_device import augmented

    return augmented(clip, seed, config)
