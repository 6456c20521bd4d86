"""Training clips: a row of a manifest becomes the augmented clips of one video."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8

from vidstill.data.datasets.base import FrameSampling, ManifestDataset
from vidstill.data.datasets.frame_cache import FrameCache
from vidstill.data.decode.frames import Frames
from vidstill.data.loader.protocols import SampleArrays, TrainBatch
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.transforms.crop import MultiScaleCrop, RandomResizedCrop, flip_horizontal
from vidstill.data.transforms.frame_sampling import SpanSampling, TimedSampling
from vidstill.data.transforms.randaugment import RandAugment
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.text import format_one_line
from vidstill.utils.types import InputError, check_range


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """What a training clip is: which frames, how they are cropped and coloured, in how many copies."""

    # the dataset that the recipe's numbers are for, such as "kinetics400"; it changes nothing
    dataset: str = field(compare=False)
    sampling: FrameSampling  # which frames; of one frame for images, which are clips of one frame
    size: tuple[int, int] = (224, 224)  # rows and columns of a clip
    # how a clip is cut out of its frames
    crop: MultiScaleCrop | RandomResizedCrop = field(default_factory=MultiScaleCrop)
    flip_probability: float = 0.0  # probability of a horizontal flip
    randaugment: RandAugment | None = None  # RandAugment; None for none
    # apply RandAugment to the whole "frame", before it is cropped (the video papers), or to the "crop", after it is
    # flipped (the image papers)
    randaugment_stage: Literal["frame", "crop"] = "frame"
    repeats: int = 1  # augmented copies of a video in a batch ("repeated augmentation")
    # "same" if all copies show the same frames (AMD, fine-tuning), "own" if each draws its own: from its own segment of
    # the video with SpanSampling (MVD), from anywhere with TimedSampling (ST-MAE)
    repeat_sampling: Literal["same", "own"] = "same"
    # Oversampling of rare classes: at 0 an epoch shows every video once, at 1 every class equally often; between, a
    # class's share of an epoch is its share of the videos to the power of 1 - class_balance. Of several labels a
    # video's rarest counts.
    class_balance: float = 0.0

    def __post_init__(self) -> None:
        check_range(0, 1, flip=self.flip_probability, balance=self.class_balance)
        check_range(1, math.inf, size=min(self.size))
        if self.repeats < 1:
            raise InputError(f"clips.repeats is {self.repeats}; take 1 or more")
        if self.repeat_sampling == "own" and not isinstance(self.sampling, SpanSampling | TimedSampling):
            rule = type(self.sampling).__name__
            raise InputError(f'clips.repeat_sampling "own" is a rule of SpanSampling and TimedSampling, not of {rule}')

    def augment_crop(self, frames: Frames, seed: int) -> Frames:
        """Flip a cropped clip or not, and apply RandAugment where that comes after the crop, by the sample's seed."""
        if self.flip_probability and numpy_rng(seed, "flip").random() < self.flip_probability:
            frames = flip_horizontal(frames)
        if self.randaugment is not None and self.randaugment_stage == "crop":
            frames = self.randaugment.apply(frames, numpy_rng(seed, "randaugment"))
        return frames


class TrainClips(ManifestDataset):
    """Training samples: a pure function of (seed, epoch, index).

    Args:
        seed: Of the run.
        cache: As for `ManifestDataset`.

    Raises:
        InputError: Classes are to be balanced and there are no labels, or the first row is an image and clips have
            several frames.
    """

    batch_type = TrainBatch

    def __init__(self, manifest: Manifest, config: ClipsConfig, *, seed: int, cache: FrameCache | None = None):
        super().__init__(manifest, config.sampling, clips_per_sample=config.repeats, size=config.size, cache=cache)
        self.config, self.seed, self.repeats = config, seed, config.repeats
        self.expected_counts = compute_expected_counts(manifest, config.class_balance) if config.class_balance else None

    @property
    def noun(self) -> str:
        return self.manifest.noun

    @property
    def messages(self) -> Sequence[str]:
        return () if self.expected_counts is None else (_format_expected_counts(self.manifest, self.expected_counts),)

    def load_arrays(self, epoch: int, index: int, occurrence: int, source_index: int) -> SampleArrays:
        """Load a row's clips, labels and seeds, `repeats` of each.

        Args:
            occurrence: How often the epoch has shown the row before, where it shows a video more than once.
            source_index: The row whose video is shown: `index`, or another that replaces a broken video. The draws stay
                those of `index`, so that a video seen twice in an epoch is not cropped and masked the same way.

        Raises:
            BrokenVideo: The video does not decode.
        """
        repeats = range(occurrence * self.repeats, (occurrence + 1) * self.repeats)
        seeds = [derive_sample_seed(self.seed, epoch, index, repeat) for repeat in repeats]
        clips, label = self.read_clips(source_index, partial(self._draw_indices, numpy_rng(seeds[0], "frames")))
        copies = clips * self.repeats if len(clips) == 1 else clips
        clips = [self._augment(frames, seed) for frames, seed in zip(copies, seeds, strict=True)]
        return np.stack(clips), np.stack([label] * self.repeats), np.array(seeds)

    def _draw_indices(self, rng: np.random.Generator, sampling: FrameSampling, num_frames: int) -> list[list[int]]:
        if self.config.repeat_sampling == "own" and isinstance(sampling, SpanSampling | TimedSampling):
            return sampling.draw_repeat_indices(num_frames, self.repeats, rng)
        return [sampling.draw_indices(num_frames, rng)]

    def _augment(self, frames: Frames, seed: int) -> UInt8[np.ndarray, "3 t rows cols"]:
        config = self.config
        if config.randaugment is not None and config.randaugment_stage == "frame":
            frames = config.randaugment.apply(frames, numpy_rng(seed, "randaugment"))
        frames = config.crop.apply(frames, config.size, numpy_rng(seed, "crop"))
        return rearrange(config.augment_crop(frames, seed), "t h w c -> c t h w")


def compute_expected_counts(manifest: Manifest, class_balance: float) -> Float[np.ndarray, "n"]:
    """Return how often an epoch is expected to show each video (`ClipsConfig.class_balance`); the sum is their number.

    Raises:
        InputError: There are no labels.
    """
    rows, labels = manifest.rows.list_label_pairs()
    if not len(labels):
        raise InputError(
            f"{manifest.source} has no labels, so that classes cannot be balanced; take clips.class_balance 0"
        )
    class_sizes = np.bincount(labels)
    weights = np.zeros(len(manifest.rows))
    np.maximum.at(weights, rows, class_sizes[labels] ** -float(class_balance))
    unlabelled = weights == 0
    weights[unlabelled] = max(1, unlabelled.sum()) ** -float(class_balance)  # they count as one class
    return weights * (len(weights) / weights.sum())


def _format_expected_counts(manifest: Manifest, expected_counts: Float[np.ndarray, "n"]) -> str:
    """Name the classes whose videos an epoch shows most and least often."""
    examples = []
    for index in (int(expected_counts.argmax()), int(expected_counts.argmin())):
        classes = " and ".join(manifest.classes[label] for label in manifest.rows[index].labels) or "no class"
        examples.append(f"a video of {format_one_line(classes)} {expected_counts[index]:.2f} times")
    return f"an epoch is expected to show {examples[0]}, {examples[1]}"
