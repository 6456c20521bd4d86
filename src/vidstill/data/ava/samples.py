"""Key frames become samples: a training clip with its boxes and actions, or the clip of a test."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from vidstill.data.ava.box_ops import BoxRule, extended, have_area, in_pixels
from vidstill.data.ava.clip_reader import FilmReader
from vidstill.data.ava.frame_sampling import KeySampling
from vidstill.data.ava.hsv_jitter import HSVJitter
from vidstill.data.ava.keyframes import KeyFrames, PersonBoxes
from vidstill.data.ava.transforms import central, drawn
from vidstill.data.decode.reader import Frames
from vidstill.data.loader.collate import Parts
from vidstill.utils.rng import numpy_chance, sample_seed
from vidstill.utils.types import InputError, within

MOST_BOXES = 100
"""Of a training clip; of more, some are drawn (VideoMAE's detection code)."""


@dataclass(frozen=True, kw_only=True)
class BoxClipsConfig:
    """What a training clip of a detector is.

    Args:
        dataset: what the recipe's numbers are for; it changes nothing.
        short_side: pixels that the shorter side is resized to, drawn between these.
        draw: the side itself uniformly, or what is inverse to it (PySlowFast).
        size: rows and columns of the crop, anywhere in the frame.
        flip: the probability of a left-right flip.
        persons: detected boxes that join the annotated ones; None: none do.
    """

    dataset: str
    sampling: KeySampling
    short_side: tuple[int, int] = (256, 256)
    draw: Literal["side", "inverse"] = "side"
    size: tuple[int, int] = (224, 224)
    flip: float = 0.5
    hsv: HSVJitter | None = None
    persons: PersonBoxes | None = None
    rule: BoxRule = "videomae"

    def __post_init__(self) -> None:
        low, high = self.short_side
        within(1, math.inf, short_side=low)
        within(0, 1, flip=self.flip)
        if low > high:
            raise InputError(f"short_side is drawn from {low} to {high}; give the smaller one first")
        _check_crop(self.size, low)
        _check_sampling(self.sampling)


@dataclass(frozen=True, kw_only=True)
class BoxViewsConfig:
    """What is looked at in a test of a detector.

    Args:
        short_side: pixels that the shorter side is resized to.
        crop: rows and columns in the middle of the frame; None: the whole frame.
        persons: detected boxes with this score or more are asked about.
        extend: shares of a box's width and height that it grows by, half of them at each side.
    """

    sampling: KeySampling
    short_side: int = 256
    crop: tuple[int, int] | None = None
    persons: float = 0.8
    extend: tuple[float, float] = (0.0, 0.0)
    rule: BoxRule = "videomae"

    def __post_init__(self) -> None:
        within(1, math.inf, short_side=self.short_side)
        within(0, 1, persons=self.persons)
        for share in self.extend:
            within(0, math.inf, extend=share)
        if self.crop is not None:
            _check_crop(self.crop, self.short_side)
        _check_sampling(self.sampling)


class BoxBatch(NamedTuple):
    """A micro-batch on the device. A clip has as many rows of boxes as the one that has most; `present` are its own.

    Boxes are x1, y1, x2, y2 in pixels of the clip.
    """

    clip: Float[Tensor, "b 3 t h w"]
    boxes: Float[Tensor, "b m 4"]
    labels: Float[Tensor, "b m a"]
    present: Bool[Tensor, "b m"]
    seed: Int64[Tensor, "b"]


class BoxView(NamedTuple):
    """One key frame of a test on the device, with all its boxes; `place` is where it stands among the key frames."""

    clip: Float[Tensor, "1 3 t h w"]
    boxes: Float[Tensor, "1 m 4"]
    place: Int64[Tensor, "1"]


class TrainBoxes:
    """Training samples: a pure function of (seed, epoch, index).

    Where another key frame stands in for one that is broken, its boxes are shown with its frames.
    """

    batch = BoxBatch
    unit = "key frame"
    repeats = 1
    notes = ()
    times = None
    changed = None

    def __init__(self, key_frames: KeyFrames, config: BoxClipsConfig, *, seed: int):
        self.listing, self.config, self.seed = key_frames, config, seed
        self._films = FilmReader()

    @property
    def rows(self) -> int:
        """Of boxes, which every sample has."""
        return min(self.listing.most_boxes, MOST_BOXES)

    @property
    def room(self) -> int:
        config = self.config
        row = 4 * (4 + len(self.listing.actions)) + 1
        return 3 * config.sampling.frames * math.prod(config.size) + self.rows * row + 1024

    def __len__(self) -> int:
        return len(self.listing)

    def name(self, place: int) -> str:
        return f"key frame {self.listing[place].name}"

    def parts(self, epoch: int, index: int, again: int, shown: int) -> Parts:
        """
        Raises:
            BrokenVideo: the frames are not there, or do not decode.
        """
        config, key_frame = self.config, self.listing[shown]
        seed = sample_seed(self.seed, epoch, index, again)
        frames = self._films.around(key_frame.film, key_frame.second, config.sampling)
        size = frames.shape[1], frames.shape[2]
        boxes, labels = in_pixels(key_frame.boxes, size, config.rule), key_frame.labels
        if config.rule == "videomae":
            kept = have_area(boxes)
            boxes, labels = boxes[kept], labels[kept]
        if len(boxes) > MOST_BOXES:
            some = np.sort(numpy_chance(seed, "boxes").choice(len(boxes), MOST_BOXES, replace=False))
            boxes, labels = boxes[some], labels[some]
        look = drawn(
            size,
            short_side=config.short_side,
            by=config.draw,
            crop=config.size,
            flip=config.flip,
            rule=config.rule,
            chance=partial(numpy_chance, seed),
        )
        frames, boxes = look.apply(frames, boxes, config.rule)
        if config.hsv is not None:
            frames = config.hsv.apply(frames, numpy_chance(seed, "colours"))
        return (
            _clip(frames),
            _filled(boxes, self.rows)[None].astype(np.float32),
            _filled(labels, self.rows)[None].astype(np.float32),
            (np.arange(self.rows) < len(boxes))[None],
            np.array([seed]),
        )


class ViewBoxes:
    """Test samples: the clip of a key frame and all its boxes, nothing drawn."""

    batch = BoxView

    def __init__(self, key_frames: KeyFrames, config: BoxViewsConfig):
        self.listing, self.config = key_frames, config
        self._films = FilmReader()

    @property
    def room(self) -> int:
        """For frames of the widest films, where they are shown whole."""
        config = self.config
        rows, columns = config.crop or (config.short_side, math.ceil(2.8 * config.short_side))
        return 3 * config.sampling.frames * rows * columns + 16 * self.listing.most_boxes + 1024

    def __len__(self) -> int:
        return len(self.listing)

    def name(self, place: int) -> str:
        return f"key frame {self.listing[place].name}"

    def parts(self, index: int) -> Parts:
        """
        Raises:
            BrokenVideo: the frames are not there, or do not decode.
        """
        config, key_frame = self.config, self.listing[index]
        frames = self._films.around(key_frame.film, key_frame.second, config.sampling)
        size = frames.shape[1], frames.shape[2]
        look = central(size, config.short_side, config.crop, config.rule)
        frames, boxes = look.apply(frames, in_pixels(key_frame.boxes, size, config.rule), config.rule)
        boxes = extended(boxes, config.extend, (frames.shape[1], frames.shape[2]))
        return _clip(frames), boxes[None].astype(np.float32), np.array([index])


def _clip(frames: Frames) -> UInt8[np.ndarray, "1 3 t h w"]:
    return np.ascontiguousarray(rearrange(frames, "t h w c -> 1 c t h w"))


def _filled(rows: np.ndarray, count: int) -> np.ndarray:
    """The rows, and so many of nothing behind them that there are `count`."""
    return np.pad(rows, ((0, count - len(rows)), (0, 0)))


def _check_crop(size: tuple[int, int], short_side: int) -> None:
    for side in size:
        within(1, math.inf, size=side)
    if min(size) > short_side:
        raise InputError(
            f"a crop of {size[0]}x{size[1]} is larger than the shorter side of a frame, {short_side}; take a "
            f"short_side of {min(size)} or more, or a smaller crop"
        )


def _check_sampling(sampling: KeySampling) -> None:
    if (shown := len(sampling.offsets())) != sampling.frames:
        raise InputError(
            f"PySlowFast's rule gives {shown} of {sampling.frames} frames that are 1 apart; take an even number"
        )
