"""Rows become samples: a training clip in its augmented copies, or all the views of a test video."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch.utils.data import Dataset

from vidstill.data.datasets.lookup import (
    FrameSampling,
    _compute_sample_num_bytes,
    _get_label,
    _read_clips,
    _VideoMetadataCache,
)
from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.loader.collate import SampleArrays
from vidstill.data.loader.protocols import Sample, TrainBatch
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.storage.fetch import VideoSource, source_name
from vidstill.data.transforms.crop import MultiScaleCrop, RandomResizedCrop, flip_horizontal
from vidstill.data.transforms.frame_sampling import SpanSampling, TimedSampling
from vidstill.data.transforms.randaugment import RandAugment
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.text import format_one_line
from vidstill.utils.types import InputError, check_range


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """What a training clip is: which frames, how they are cropped and coloured, in how many copies.

    Args:
        dataset: what the recipe's numbers are for, such as "kinetics400"; it changes nothing.
        sampling: which frames; of one frame for pictures, which are clips of one frame.
        size: rows and columns of a clip.
        flip_probability: the probability of a left-right flip.
        randaugment_stage: the whole "frame", before it is cropped (the video papers), or the "crop", after it is flipped
            (the image papers).
        repeats: augmented copies of a video ("repeated augmentation").
        repeat_sampling: "same" if all copies show one draw of frames (AMD, fine-tuning), "own" if each has a draw of its
            own: from a segment of its own with SpanSampling (MVD), from anywhere with TimedSampling (ST-MAE).
        class_balance: how much is made up for classes of unequal sizes: at 0 an epoch shows every video once, at 1 every
            class equally often; between, a class's share of an epoch is its share of the videos to the power of
            1 - balance. Of several labels a video's rarest counts.
    """

    dataset: str
    sampling: FrameSampling
    size: tuple[int, int] = (224, 224)
    crop: MultiScaleCrop | RandomResizedCrop = field(default_factory=MultiScaleCrop)
    flip_probability: float = 0.0
    randaugment: RandAugment | None = None
    randaugment_stage: Literal["frame", "crop"] = "frame"
    repeats: int = 1
    repeat_sampling: Literal["same", "own"] = "same"
    class_balance: float = 0.0

    def __post_init__(self) -> None:
        check_range(0, 1, flip=self.flip_probability, balance=self.class_balance)
        for side in self.size:
            check_range(1, math.inf, size=side)
        if self.repeats < 1:
            raise InputError(f"a video gives {self.repeats} copies; set repeats to 1 or more")
        if self.repeat_sampling == "own" and not isinstance(self.sampling, SpanSampling | TimedSampling):
            rule = type(self.sampling).__name__
            raise InputError(f'repeat_frames "own" is a rule of SpanSampling and TimedSampling, not of {rule}')

    def augment_crop(self, frames: Frames, seed: int) -> Frames:
        """Flip a cropped clip horizontally, or not, and apply RandAugment to it where that comes after the crop.

        Args:
            frames: The cropped clip.
            seed: The sample's seed, from which the flip and the operations are drawn.
        """
        if numpy_rng(seed, "flip").random() < self.flip_probability:
            frames = flip_horizontal(frames)
        if self.randaugment is not None and self.randaugment_stage == "crop":
            frames = self.randaugment.apply(frames, numpy_rng(seed, "randaugment"))
        return frames


class TrainClips(Dataset[Sample]):
    """Training samples: a pure function of (seed, epoch, index).

    Args:
    Raises:
        InputError: classes are to be balanced and there are no labels.
    """

    batch_type = TrainBatch
    noun = "video"

    def __init__(self, manifest: Manifest, config: ClipsConfig, *, seed: int):
        self.manifest, self.config, self.seed = manifest, config, seed
        self._video_metadata = _VideoMetadataCache(manifest, config.sampling)
        self.expected_counts = compute_expected_counts(manifest, config.class_balance) if config.class_balance else None

    @property
    def repeats(self) -> int:
        return self.config.repeats

    @property
    def messages(self) -> Sequence[str]:
        return () if self.expected_counts is None else (_format_expected_counts(self.manifest, self.expected_counts),)

    @property
    def sample_num_bytes(self) -> int:
        config = self.config
        return _compute_sample_num_bytes(config.repeats, config.sampling.num_frames, config.size, self.manifest)

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def sample_name(self, index: int) -> str:
        return source_name(self.manifest.rows[index].source)

    def load_arrays(self, epoch: int, index: int, occurrence: int, source_index: int) -> SampleArrays:
        return tuple(
            part.numpy() for part in self.load_sample(epoch, index, occurrence=occurrence, source_index=source_index)
        )

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        return self.load_sample(epoch, index)

    def load_sample(self, epoch: int, index: int, *, occurrence: int = 0, source_index: int | None = None) -> Sample:
        """The sample of a place in the listing.

        Args:
            occurrence: how often the epoch has shown it before, where it shows a video more than once.
            source_index: the place of the video that is shown instead, with the chance of the one it stands in for, so that
                a video that is seen twice in an epoch is not cropped and masked alike.

        Raises:
            BrokenVideo: the video does not decode.
        """
        config = self.config
        place = index if source_index is None else source_index
        row = self.manifest.rows[place]
        copies = range(occurrence * config.repeats, (occurrence + 1) * config.repeats)
        seeds = [derive_sample_seed(self.seed, epoch, index, copy) for copy in copies]
        clips = [
            self._augment_clip(frames, seed)
            for frames, seed in zip(self._read_copies(place, row.source, seeds[0]), seeds, strict=True)
        ]
        label = torch.as_tensor(_get_label(self.manifest, place, row))
        return Sample(
            torch.from_numpy(np.stack(clips)),
            label.expand(config.repeats, *label.shape).contiguous(),
            torch.tensor(seeds),
        )

    def _read_copies(self, source_index: int, source: VideoSource, seed: int) -> list[Frames]:
        """Each copy's frames, decoded in one go."""
        config, total = self.config, self._video_metadata.get_num_frames(source_index)
        sampling = self._video_metadata.get_sampling(source_index)
        chance = numpy_rng(seed, "frames")
        if config.repeat_sampling == "own" and isinstance(sampling, SpanSampling | TimedSampling):
            return _read_clips(source, sampling.draw_repeat_indices(total, config.repeats, chance))
        return [read_frames(source, sampling.draw_indices(total, chance))] * config.repeats

    def _augment_clip(self, frames: Frames, seed: int) -> UInt8[np.ndarray, "3 t rows cols"]:
        config = self.config
        if config.randaugment is not None and config.randaugment_stage == "frame":
            frames = config.randaugment.apply(frames, numpy_rng(seed, "randaugment"))
        frames = config.crop.apply(frames, config.size, numpy_rng(seed, "crop"))
        return rearrange(config.augment_crop(frames, seed), "t h w c -> c t h w")


def compute_expected_counts(manifest: Manifest, class_balance: float) -> Float[np.ndarray, "n"]:
    """How often an epoch is expected to show each video, by `ClipsConfig.balance`: it shows as many as there are.

    Raises:
        InputError: there are no labels.
    """
    whose, labels = manifest.rows.list_label_pairs()
    if not len(labels):
        raise InputError(f"{manifest.source} has no labels, so that no classes can be balanced; take clips.balance 0")
    cls_embedding = np.bincount(labels)
    weights = np.zeros(len(manifest.rows))
    np.maximum.at(weights, whose, cls_embedding[labels] ** -float(class_balance))
    unlabelled = weights == 0
    weights[unlabelled] = max(1, unlabelled.sum()) ** -float(class_balance)  # they are a class of their own
    return weights * (len(weights) / weights.sum())


def _format_expected_counts(manifest: Manifest, expected_counts: Float[np.ndarray, "n"]) -> str:
    """How often an epoch shows a video of the classes that it shows most and least often."""
    named = []
    for place in (int(expected_counts.argmax()), int(expected_counts.argmin())):
        whose = " and ".join(manifest.classes[label] for label in manifest.rows[place].labels) or "no class"
        named.append(f"a video of {format_one_line(whose)} {expected_counts[place]:.2f} times")
    return f"an epoch is expected to show {named[0]}, {named[1]}"
