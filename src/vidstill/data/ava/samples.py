"""Loads samples of key frames: a training clip with its boxes and actions, or a test clip with its boxes."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vidstill.data.ava.clip_reader import KeyframeClipReader
from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.hsv_jitter import HSVJitter
from vidstill.data.ava.keyframes import Keyframe, Keyframes, PersonBoxesConfig
from vidstill.data.ava.transforms import (
    BoxArray,
    BoxRule,
    FrameSize,
    ResizeCropFlip,
    compute_resized_size,
    expand_boxes,
    find_nonempty_boxes,
    to_pixel_boxes,
)
from vidstill.data.decode.reader import Frames
from vidstill.data.loader.protocols import SampleArrays
from vidstill.data.transforms.crop import CropBox, list_view_boxes
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.types import InputError, check_range

MAX_TRAIN_BOXES = 100
"""Most boxes of a training clip; of more, some are drawn (VideoMAE's detection code)."""


@dataclass(frozen=True, kw_only=True)
class BoxClipsConfig:
    """Training clips of a detector."""

    dataset: str = field(compare=False)  # dataset that the recipe's numbers are for; it changes nothing
    sampling: KeyframeSampling  # frames around a key frame
    short_side: tuple[int, int] = (256, 256)  # smallest and largest shorter side of the resized frames, in pixels
    # whether the shorter side or its inverse (PySlowFast) is uniformly distributed
    short_side_sampling: Literal["uniform", "inverse_uniform"] = "uniform"
    size: tuple[int, int] = (224, 224)  # rows and columns of a random crop
    flip_probability: float = 0.5  # probability of a horizontal flip
    hsv_jitter: HSVJitter | None = None  # colour jitter; None: none
    # how boxes of a person detector join the annotated ones; None: they do not
    person_boxes: PersonBoxesConfig | None = None
    rule: BoxRule = "videomae"  # whose arithmetic of boxes is used

    def __post_init__(self) -> None:
        low, high = self.short_side
        check_range(1, math.inf, short_side=low)
        check_range(0, 1, flip_probability=self.flip_probability)
        if low > high:
            raise InputError(f"short_side is drawn from {low} to {high}; give the smaller one first")
        _check_crop(self.size, low)
        _check_sampling(self.sampling)

    def draw_transform(self, frame_size: FrameSize, make_rng: Callable[[str], np.random.Generator]) -> ResizeCropFlip:
        """Draw the transform of a clip from the random number generators of the purposes "scale", "crop" and "flip".

        If there is room, a crop never reaches the last row or column (as both codes are released).
        """
        low, high = self.short_side
        if self.short_side_sampling == "uniform":
            side = round(make_rng("scale").uniform(low, high))
        else:
            side = round(1 / make_rng("scale").uniform(1 / high, 1 / low))
        resized = compute_resized_size(frame_size, side, self.rule)
        _check_crop_fits(resized, self.size)
        rng = make_rng("crop")
        rooms = (resized[0] - self.size[0], resized[1] - self.size[1])
        top, left = (int(rng.integers(0, room)) if room else 0 for room in rooms)
        hflip = bool(make_rng("flip").random() < self.flip_probability)
        return ResizeCropFlip(short_side=side, crop=CropBox(top, left, *self.size), hflip=hflip, rule=self.rule)


@dataclass(frozen=True, kw_only=True)
class BoxViewsConfig:
    """Test clips of a detector."""

    sampling: KeyframeSampling  # frames around a key frame
    short_side: int = 256  # shorter side of the resized frames, in pixels
    crop_size: tuple[int, int] | None = None  # rows and columns of a central crop; None: the whole frame
    min_person_score: float = 0.8  # smallest score of a detected box that is tested
    # shares of a box's width and height that it grows by, half of them at each side
    box_expansion: tuple[float, float] = (0.0, 0.0)
    rule: BoxRule = "videomae"  # whose arithmetic of boxes is used

    def __post_init__(self) -> None:
        check_range(1, math.inf, short_side=self.short_side)
        check_range(0, 1, min_person_score=self.min_person_score)
        check_range(0, math.inf, box_expansion=min(self.box_expansion))
        if self.crop_size is not None:
            _check_crop(self.crop_size, self.short_side)
        _check_sampling(self.sampling)

    def build_transform(self, frame_size: FrameSize) -> ResizeCropFlip:
        """Build the transform of a clip whose frames have this size."""
        crop = None
        if self.crop_size is not None:
            resized = compute_resized_size(frame_size, self.short_side, self.rule)
            _check_crop_fits(resized, self.crop_size)
            (crop,) = list_view_boxes(*resized, self.crop_size, 1, "videomae" if self.rule == "videomae" else "stmae")
        return ResizeCropFlip(short_side=self.short_side, crop=crop, rule=self.rule)


class KeyframeBatch(NamedTuple):
    """A micro-batch on the device; boxes are x1, y1, x2, y2 in pixels of the clip, padded to equal numbers."""

    clip: Float[Tensor, "b 3 t h w"]
    boxes: Float[Tensor, "b m 4"]
    labels: Float[Tensor, "b m a"]
    box_mask: Bool[Tensor, "b m"]
    seed: Int64[Tensor, "b"]


class KeyframeView(NamedTuple):
    """One key frame of a test on the device, with all its boxes and its index."""

    clip: Float[Tensor, "1 3 t h w"]
    boxes: Float[Tensor, "1 m 4"]
    keyframe_index: Int64[Tensor, "1"]


class _KeyframeDataset:
    def __init__(self, keyframes: Keyframes, config: Any):
        self.manifest, self.config = keyframes, config
        self._clip_reader = KeyframeClipReader()

    def _read(self, keyframe: Keyframe) -> tuple[Frames, FrameSize, BoxArray]:
        """Read the clip of a key frame, and its boxes in pixels."""
        frames = self._clip_reader.read_clip(keyframe.video, keyframe.second, self.config.sampling)
        size = frames.shape[1], frames.shape[2]
        return frames, size, to_pixel_boxes(keyframe.boxes, size, self.config.rule)

    def __len__(self) -> int:
        return len(self.manifest)

    def sample_name(self, index: int) -> str:
        return f"key frame {self.manifest[index].key}"


class KeyframeTrainDataset(_KeyframeDataset):
    """Training samples: a pure function of (seed, epoch, index).

    A broken key frame is replaced by another one, frames and boxes together.
    """

    batch_type = KeyframeBatch
    config: BoxClipsConfig
    noun = "key frame"
    repeats = 1
    messages = ()
    expected_counts = None

    def __init__(self, keyframes: Keyframes, config: BoxClipsConfig, *, seed: int):
        super().__init__(keyframes, config)
        self.seed = seed
        self.max_boxes = min(keyframes.max_boxes, MAX_TRAIN_BOXES)  # rows of boxes of every sample
        box_bytes = self.max_boxes * (4 * (4 + len(keyframes.label_map)) + 1)
        self.sample_num_bytes = 3 * config.sampling.num_frames * math.prod(config.size) + box_bytes + 1024

    def load_arrays(self, epoch: int, index: int, occurrence: int, source_index: int) -> SampleArrays:
        """Load one sample; a BrokenVideo says that frames are missing or do not decode."""
        config, keyframe = self.config, self.manifest[source_index]
        seed = derive_sample_seed(self.seed, epoch, index, occurrence)
        (frames, size, boxes), labels = self._read(keyframe), keyframe.labels
        if config.rule == "videomae":
            nonempty = find_nonempty_boxes(boxes)
            boxes, labels = boxes[nonempty], labels[nonempty]
        if len(boxes) > MAX_TRAIN_BOXES:
            subset = np.sort(numpy_rng(seed, "boxes").choice(len(boxes), MAX_TRAIN_BOXES, replace=False))
            boxes, labels = boxes[subset], labels[subset]
        frames, boxes = config.draw_transform(size, partial(numpy_rng, seed)).apply(frames, boxes)
        if config.hsv_jitter is not None:
            frames = config.hsv_jitter.apply(frames, numpy_rng(seed, "colours"))
        padding = (0, self.max_boxes - len(boxes)), (0, 0)
        box_mask = (np.arange(self.max_boxes) < len(boxes))[None]
        boxes, labels = (np.pad(each, padding)[None].astype(np.float32) for each in (boxes, labels))
        return _to_clip_array(frames), boxes, labels, box_mask, np.array([seed])


class KeyframeViewDataset(_KeyframeDataset):
    """Test samples: the clip of a key frame and all its boxes, without randomness."""

    batch_type = KeyframeView
    config: BoxViewsConfig

    @property
    def sample_num_bytes(self) -> int:
        """Bytes of the largest sample; without a crop, of frames 2.8 times as wide as they are high."""
        config = self.config
        rows, columns = config.crop_size or (config.short_side, math.ceil(2.8 * config.short_side))
        return 3 * config.sampling.num_frames * rows * columns + 16 * self.manifest.max_boxes + 1024

    def load_arrays(self, index: int) -> SampleArrays:
        """Load one sample; a BrokenVideo says that frames are missing or do not decode."""
        frames, size, boxes = self._read(self.manifest[index])
        frames, boxes = self.config.build_transform(size).apply(frames, boxes)
        boxes = expand_boxes(boxes, self.config.box_expansion, (frames.shape[1], frames.shape[2]))
        return _to_clip_array(frames), boxes[None].astype(np.float32), np.array([index])


def _to_clip_array(frames: Frames) -> UInt8[np.ndarray, "1 3 t h w"]:
    return np.ascontiguousarray(rearrange(frames, "t h w c -> 1 c t h w"))


def _check_crop(size: tuple[int, int], short_side: int) -> None:
    check_range(1, math.inf, size=min(size))
    if min(size) > short_side:
        raise InputError(
            f"a crop of {size[0]}x{size[1]} is larger than the shorter side of a frame, {short_side}; "
            f"take a short_side of {min(size)} or more, or a smaller crop"
        )


def _check_crop_fits(size: FrameSize, crop: FrameSize) -> None:
    if crop[0] > size[0] or crop[1] > size[1]:
        raise InputError(
            f"a frame of {size[0]}x{size[1]} has no room for a crop of {crop[0]}x{crop[1]}; "
            "take a larger short_side or a smaller crop"
        )


def _check_sampling(sampling: KeyframeSampling) -> None:
    if (count := len(sampling.compute_offsets())) != sampling.num_frames:
        raise InputError(
            f"PySlowFast's rule gives {count} of {sampling.num_frames} frames at stride 1; take an even number"
        )
