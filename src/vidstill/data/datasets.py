"""Rows become samples: a training clip in its augmented copies, or all the views of a test video."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from vidstill.chance import numpy_chance, sample_seed
from vidstill.data.annotations import Listing
from vidstill.data.augment import MultiScaleCrop, RandomResizedCrop, flip, view_crops
from vidstill.data.randaugment import RandAugment
from vidstill.data.sampling import DenseSampling, SegmentSampling, SpanSampling
from vidstill.data.video import Frames, count_frames, is_picture, read_frames
from vidstill.types import InputError, within

Sampling = SpanSampling | DenseSampling | SegmentSampling


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """What a training clip is: which frames, how they are cropped and coloured, in how many copies.

    Args:
        dataset: what the recipe's numbers are for, such as "kinetics400"; it changes nothing.
        size: rows and columns of a clip.
        flip: the probability of a left-right flip.
        repeats: augmented copies of a video ("repeated augmentation").
        repeat_frames: "same" if all copies show one draw of frames (AMD, fine-tuning), "own" if each shows a segment of
            its own (MVD).
    """

    dataset: str
    sampling: Sampling
    size: tuple[int, int] = (224, 224)
    crop: MultiScaleCrop | RandomResizedCrop = field(default_factory=MultiScaleCrop)
    flip: float = 0.0
    randaugment: RandAugment | None = None
    repeats: int = 1
    repeat_frames: Literal["same", "own"] = "same"

    def __post_init__(self) -> None:
        within(0, 1, flip=self.flip)
        for side in self.size:
            within(1, math.inf, size=side)
        if self.repeats < 1:
            raise InputError(f"a video gives {self.repeats} copies; set repeats to 1 or more")
        if self.repeat_frames == "own" and not isinstance(self.sampling, SpanSampling):
            raise InputError(f'repeat_frames "own" is a rule of SpanSampling, not of {type(self.sampling).__name__}')


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """What is looked at in a test: `views` draws of frames, each in `crops` places.

    Args:
        views: draws of frames from a video.
        crops: places in each of them.
        short_side: pixels that the shorter side is resized to before cropping.
        size: rows and columns of a clip.
    """

    sampling: Sampling
    views: int
    crops: int
    short_side: int = 224
    size: tuple[int, int] = (224, 224)

    def __post_init__(self) -> None:
        within(1, math.inf, views=self.views, crops=self.crops, short_side=self.short_side)
        for side in self.size:
            within(1, math.inf, size=side)


class Sample(NamedTuple):
    """A video's copies: clips in bytes, its label (-1 for none) for each, and the seed that each was drawn from."""

    clip: UInt8[Tensor, "r 3 t h w"]
    label: Int64[Tensor, "r"]
    seed: Int64[Tensor, "r"]


class Views(NamedTuple):
    """A video's views in bytes, by frames and then by crop; its label (-1 for none); its place in the listing."""

    clip: UInt8[Tensor, "v 3 t h w"]
    label: int
    place: int


class TrainClips(Dataset[Sample]):
    """Training samples: a pure function of (seed, epoch, index)."""

    def __init__(self, listing: Listing, config: ClipsConfig, *, seed: int):
        self.listing, self.config, self.seed = listing, config, seed
        self._counts = _Counts(listing, config.sampling.frames)

    def __len__(self) -> int:
        return len(self.listing.rows)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        return self.sample(epoch, index)

    def sample(self, epoch: int, index: int, *, stand_in: int | None = None) -> Sample:
        """The sample of a place in the listing.

        Args:
            stand_in: the place of the video that is shown instead, with the chance of the one it stands in for, so that
                a video that is seen twice in an epoch is not cropped and masked alike.

        Raises:
            BrokenVideo: the video does not decode.
        """
        config = self.config
        place = index if stand_in is None else stand_in
        row = self.listing.rows[place]
        seeds = [sample_seed(self.seed, epoch, index, copy) for copy in range(config.repeats)]
        clips = [
            self._augmented(frames, seed)
            for frames, seed in zip(self._drawn(place, row.path, seeds[0]), seeds, strict=True)
        ]
        return Sample(
            torch.from_numpy(np.stack(clips)),
            torch.full((config.repeats,), -1 if row.label is None else row.label),
            torch.tensor(seeds),
        )

    def _drawn(self, place: int, path: Path, seed: int) -> list[Frames]:
        """Each copy's frames, decoded in one go."""
        config, total = self.config, self._counts[place]
        chance = numpy_chance(seed, "frames")
        if config.repeat_frames == "same" or not isinstance(config.sampling, SpanSampling):
            return [read_frames(path, config.sampling.draw(total, chance))] * config.repeats
        return _read_each(path, config.sampling.draw_segments(total, config.repeats, chance))

    def _augmented(self, frames: Frames, seed: int) -> UInt8[np.ndarray, "3 t rows cols"]:
        config = self.config
        if config.randaugment is not None:
            frames = config.randaugment.apply(frames, numpy_chance(seed, "randaugment"))
        frames = config.crop.apply(frames, config.size, numpy_chance(seed, "crop"))
        if numpy_chance(seed, "flip").random() < config.flip:
            frames = flip(frames)
        return rearrange(frames, "t h w c -> c t h w")


class ViewClips(Dataset[Views]):
    """Test samples: every view of a video at once, nothing drawn."""

    def __init__(self, listing: Listing, config: ViewsConfig):
        self.listing, self.config = listing, config
        self._counts = _Counts(listing, config.sampling.frames)

    def __len__(self) -> int:
        return len(self.listing.rows)

    def __getitem__(self, index: int) -> Views:
        """
        Raises:
            BrokenVideo: the video does not decode.
        """
        config, row = self.config, self.listing.rows[index]
        views = _read_each(row.path, config.sampling.views(self._counts[index], config.views))
        crops = [
            rearrange(crop, "t h w c -> c t h w")
            for frames in views
            for crop in view_crops(frames, config.short_side, config.size, config.crops)
        ]
        return Views(torch.from_numpy(np.stack(crops)), -1 if row.label is None else row.label, index)


class _Counts:
    """The videos' numbers of frames, each counted when first asked for and kept."""

    def __init__(self, listing: Listing, wanted: int):
        self._rows = listing.rows
        self._known = np.zeros(len(listing.rows), np.int32)
        self._wanted = wanted
        self._refuse_picture(self._rows[0].path)

    def __getitem__(self, index: int) -> int:
        if not self._known[index]:
            row = self._rows[index]
            self._refuse_picture(row.path)
            # a stated number is taken for a folder of frames only: a video's is known better by its packets
            self._known[index] = row.frames if row.frames and row.path.is_dir() else count_frames(row.path)
        return int(self._known[index])

    def _refuse_picture(self, path: Path) -> None:
        if self._wanted > 1 and is_picture(path):
            raise InputError(
                f"{path} is a picture, a clip of one frame, and clips of {self._wanted} frames are asked for"
            )


def _read_each(path: Path, draws: list[list[int]]) -> list[Frames]:
    """The frames of several draws, decoded in one go."""
    places = sorted({n for draw in draws for n in draw})
    frames = read_frames(path, places)
    return [frames[np.searchsorted(places, draw)] for draw in draws]
