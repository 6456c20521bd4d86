"""Key frames become samples: a training clip with its boxes and actions, or the clip of a test."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vidstill.data.ava.box_ops import BoxRule, expand_boxes, find_nonempty_boxes, to_pixel_boxes
from vidstill.data.ava.clip_reader import KeyframeClipReader
from vidstill.data.ava.frame_sampling import KeyframeSampling
from vidstill.data.ava.hsv_jitter import HSVJitter
from vidstill.data.ava.keyframes import Keyframes, PersonBoxesConfig
from vidstill.data.ava.transforms import build_view_transform, draw_train_transform
from vidstill.data.decode.reader import Frames
from vidstill.data.loader.collate import SampleArrays
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.types import InputError, check_range

MAX_TRAIN_BOXES = 100
"""Of a training clip; of more, some are drawn (VideoMAE's detection code)."""


@dataclass(frozen=True, kw_only=True)
class BoxClipsConfig:
    """What a training clip of a detector is.

    Args:
        dataset: what the recipe's numbers are for; it changes nothing.
        short_side: pixels that the shorter side is resized to, drawn between these.
        short_side_sampling: the side itself uniformly, or what is inverse to it (PySlowFast).
        size: rows and columns of the crop, anywhere in the frame.
        flip_probability: the probability of a left-right flip.
        person_boxes: detected boxes that join the annotated ones; None: none do.
    """

    dataset: str
    sampling: KeyframeSampling
    short_side: tuple[int, int] = (256, 256)
    short_side_sampling: Literal["side", "inverse"] = "side"
    size: tuple[int, int] = (224, 224)
    flip_probability: float = 0.5
    hsv_jitter: HSVJitter | None = None
    person_boxes: PersonBoxesConfig | None = None
    rule: BoxRule = "videomae"

    def __post_init__(self) -> None:
        low, high = self.short_side
        check_range(1, math.inf, short_side=low)
        check_range(0, 1, flip_probability=self.flip_probability)
        if low > high:
            raise InputError(f"short_side is drawn from {low} to {high}; give the smaller one first")
        _check_crop(self.size, low)
        _check_sampling(self.sampling)


@dataclass(frozen=True, kw_only=True)
class BoxViewsConfig:
    """What is looked at in a test of a detector.

    Args:
        short_side: pixels that the shorter side is resized to.
        crop_size: rows and columns in the middle of the frame; None: the whole frame.
        min_person_score: detected boxes with this score or more are asked about.
        box_expansion: shares of a box's width and height that it grows by, half of them at each side.
    """

    sampling: KeyframeSampling
    short_side: int = 256
    crop_size: tuple[int, int] | None = None
    min_person_score: float = 0.8
    box_expansion: tuple[float, float] = (0.0, 0.0)
    rule: BoxRule = "videomae"

    def __post_init__(self) -> None:
        check_range(1, math.inf, short_side=self.short_side)
        check_range(0, 1, min_person_score=self.min_person_score)
        for share in self.box_expansion:
            check_range(0, math.inf, box_expansion=share)
        if self.crop_size is not None:
            _check_crop(self.crop_size, self.short_side)
        _check_sampling(self.sampling)


class KeyframeBatch(NamedTuple):
    """A micro-batch on the device. A clip has as many rows of boxes as the one that has most; `present` are its own.

    Boxes are x1, y1, x2, y2 in pixels of the clip.
    """

    clip: Float[Tensor, "b 3 t h w"]
    boxes: Float[Tensor, "b m 4"]
    labels: Float[Tensor, "b m a"]
    box_mask: Bool[Tensor, "b m"]
    seed: Int64[Tensor, "b"]


class KeyframeView(NamedTuple):
    """One key frame of a test on the device, with all its boxes; `place` is where it stands among the key frames."""

    clip: Float[Tensor, "1 3 t h w"]
    boxes: Float[Tensor, "1 m 4"]
    keyframe_index: Int64[Tensor, "1"]


class KeyframeTrainDataset:
    """Training samples: a pure function of (seed, epoch, index).

    Where another key frame stands in for one that is broken, its boxes are shown with its frames.
    """

    batch_type = KeyframeBatch
    noun = "key frame"
    repeats = 1
    messages = ()
    expected_counts = None

    def __init__(self, keyframes: Keyframes, config: BoxClipsConfig, *, seed: int):
        self.manifest, self.config, self.seed = keyframes, config, seed
        self._clip_reader = KeyframeClipReader()

    @property
    def max_boxes(self) -> int:
        """Of boxes, which every sample has."""
        return min(self.manifest.max_boxes, MAX_TRAIN_BOXES)

    @property
    def sample_num_bytes(self) -> int:
        config = self.config
        row = 4 * (4 + len(self.manifest.label_map)) + 1
        return 3 * config.sampling.frames * math.prod(config.size) + self.max_boxes * row + 1024

    def __len__(self) -> int:
        return len(self.manifest)

    def sample_name(self, index: int) -> str:
        return f"key frame {self.manifest[index].key}"

    def load_arrays(self, epoch: int, index: int, occurrence: int, source_index: int) -> SampleArrays:
        """
        Raises:
            BrokenVideo: the frames are not there, or do not decode.
        """
        config, key_frame = self.config, self.manifest[source_index]
        seed = derive_sample_seed(self.seed, epoch, index, occurrence)
        frames = self._clip_reader.read_clip(key_frame.video, key_frame.second, config.sampling)
        size = frames.shape[1], frames.shape[2]
        boxes, labels = to_pixel_boxes(key_frame.boxes, size, config.rule), key_frame.labels
        if config.rule == "videomae":
            kept = find_nonempty_boxes(boxes)
            boxes, labels = boxes[kept], labels[kept]
        if len(boxes) > MAX_TRAIN_BOXES:
            some = np.sort(numpy_rng(seed, "boxes").choice(len(boxes), MAX_TRAIN_BOXES, replace=False))
            boxes, labels = boxes[some], labels[some]
        look = draw_train_transform(
            size,
            short_side=config.short_side,
            short_side_sampling=config.short_side_sampling,
            crop_size=config.size,
            flip_probability=config.flip_probability,
            rule=config.rule,
            make_rng=partial(numpy_rng, seed),
        )
        frames, boxes = look.apply(frames, boxes, config.rule)
        if config.hsv_jitter is not None:
            frames = config.hsv_jitter.apply(frames, numpy_rng(seed, "colours"))
        return (
            _to_clip_array(frames),
            _pad_rows(boxes, self.max_boxes)[None].astype(np.float32),
            _pad_rows(labels, self.max_boxes)[None].astype(np.float32),
            (np.arange(self.max_boxes) < len(boxes))[None],
            np.array([seed]),
        )


class KeyframeViewDataset:
    """Test samples: the clip of a key frame and all its boxes, nothing drawn."""

    batch_type = KeyframeView

    def __init__(self, keyframes: Keyframes, config: BoxViewsConfig):
        self.manifest, self.config = keyframes, config
        self._clip_reader = KeyframeClipReader()

    @property
    def sample_num_bytes(self) -> int:
        """For frames of the widest films, where they are shown whole."""
        config = self.config
        rows, columns = config.crop_size or (config.short_side, math.ceil(2.8 * config.short_side))
        return 3 * config.sampling.frames * rows * columns + 16 * self.manifest.max_boxes + 1024

    def __len__(self) -> int:
        return len(self.manifest)

    def sample_name(self, index: int) -> str:
        return f"key frame {self.manifest[index].key}"

    def load_arrays(self, index: int) -> SampleArrays:
        """
        Raises:
            BrokenVideo: the frames are not there, or do not decode.
        """
        config, key_frame = self.config, self.manifest[index]
        frames = self._clip_reader.read_clip(key_frame.video, key_frame.second, config.sampling)
        size = frames.shape[1], frames.shape[2]
        look = build_view_transform(size, config.short_side, config.crop_size, config.rule)
        frames, boxes = look.apply(frames, to_pixel_boxes(key_frame.boxes, size, config.rule), config.rule)
        boxes = expand_boxes(boxes, config.box_expansion, (frames.shape[1], frames.shape[2]))
        return _to_clip_array(frames), boxes[None].astype(np.float32), np.array([index])


def _to_clip_array(frames: Frames) -> UInt8[np.ndarray, "1 3 t h w"]:
    return np.ascontiguousarray(rearrange(frames, "t h w c -> 1 c t h w"))


def _pad_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows, and so many of nothing behind them that there are `count`."""
    return np.pad(rows, ((0, count - len(rows)), (0, 0)))


def _check_crop(size: tuple[int, int], short_side: int) -> None:
    for side in size:
        check_range(1, math.inf, size=side)
    if min(size) > short_side:
        raise InputError(
            f"a crop of {size[0]}x{size[1]} is larger than the shorter side of a frame, {short_side}; take a "
            f"short_side of {min(size)} or more, or a smaller crop"
        )


def _check_sampling(sampling: KeyframeSampling) -> None:
    if (shown := len(sampling.compute_offsets())) != sampling.frames:
        raise InputError(
            f"PySlowFast's rule gives {shown} of {sampling.frames} frames that are 1 apart; take an even number"
        )
