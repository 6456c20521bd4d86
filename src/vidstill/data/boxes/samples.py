"""Key frames become samples: a training clip with its boxes and actions, or the clip of a test."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from vidstill.data.boxes.hsv import HSVJitter
from vidstill.data.boxes.timing import KeySampling

BoxRule = Literal["videomae", "slowfast"]
"""Whose arithmetic boxes and frames have: of VideoMAE's detection code, where a box holds its last pixel, or
PySlowFast's."""


@dataclass(frozen=True, kw_only=True)
class PersonBoxes:
    """Boxes that a detector found, which join the annotated ones in training.

    Args:
        score: those with this score or more.
        iou: a box has the actions of the annotated box that it overlaps most, if by this much or more; None: those that
            its file states. One that has no actions is a negative: all of them are to be told as absent.
        most: of a key frame's boxes that have actions by `iou`, beside the annotated ones; None: all.
    """

    score: float = 0.9
    iou: float | None = None
    most: int | None = None


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
