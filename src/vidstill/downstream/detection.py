"""Encoder → mean over time → each box's features → head: what the persons in boxes do."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from vidstill.models.vit import ViTConfig
from vidstill.types import Output


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """
    Args:
        actions: that each box is scored for.
        bins: rows and columns of a box's features before their maximum is taken.
        aligned: RoIAlign's shift by half a pixel; without it, a box has one token at least in each direction.
        dropout: before the head, or before the maximum over the bins (`dropout_on`).
        head_scale: the head starts this much smaller.
        edge: a clip that does not divide into tubelets is filled up with the mean colour at its right and bottom, or
            what is left over there is not seen.
    """

    encoder: ViTConfig
    actions: int
    bins: int = 7
    aligned: bool = False
    dropout: float = 0.0
    dropout_on: Literal["head", "bins"] = "head"
    head_scale: float = 0.001
    edge: Literal["pad", "drop"] = "pad"

    def build(self) -> "Detector":
        return Detector(self)


class Detector(nn.Module):
    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.config = config

    def forward(self, clip: Float[Tensor, "b 3 t h w"], boxes: Float[Tensor, "b m 4"]) -> Float[Tensor, "b m a"]:
        """Logits of every box of clips of colours in [0, 1].

        Args:
            boxes: x1, y1, x2, y2 in pixels of the clip.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class BoxJitter:
    """Every box's sides, moved by shares of its width and height drawn uniformly (VideoMAE's detection code).

    Args:
        outwards, inwards: the largest share by which left and right sides move; top and bottom move half as far.
    """

    outwards: float = 0.2
    inwards: float = 0.1


class DetectionTask(nn.Module):
    """Trains a detector: boxes jittered on the device, binary cross-entropy of every action of every box.

    Args:
        per: "clip": a clip's loss is the sum over its boxes, the mean over actions, and a batch's the mean over clips
            (VideoMAE's detection code, but for a constant factor); "box": the mean over boxes (PySlowFast).
        boxes_per_clip: of the training set on average, by which "box" divides, so that a step is the same on any
            number of devices.
    """

    def __init__(
        self, model: Detector, *, jitter: BoxJitter | None, per: Literal["clip", "box"], boxes_per_clip: float
    ):
        super().__init__()
        self.model, self.jitter, self.per, self.boxes_per_clip = model, jitter, per, boxes_per_clip

    def forward(self, clip: Tensor, boxes: Tensor, labels: Tensor, present: Tensor, seed: Tensor) -> Output:
        raise NotImplementedError
