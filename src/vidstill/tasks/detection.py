"""Encoder → mean over time → each box's features → head: what the persons in boxes do."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vidstill.models.init import init_normal_weights
from vidstill.models.vit import ViTConfig
from vidstill.utils.rng import draw_uniform
from vidstill.utils.types import Grid, InputError, Output, check_range


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """
    Args:
        num_actions: that each box is scored for.
        roi_size: rows and columns of a box's features before their maximum is taken.
        aligned: RoIAlign's shift by half a pixel; without it, a box has one token at least in each direction.
        dropout: before the head, or before the maximum over the bins (`dropout_on`).
        head_init_scale: the head starts this much smaller.
        edge: a clip that does not divide into tubelets is filled up with the mean colour at its right and bottom, or
            what is left over there is not seen.
    """

    encoder: ViTConfig
    num_actions: int
    roi_size: int = 7
    aligned: bool = False
    dropout: float = 0.0
    dropout_on: Literal["head", "bins"] = "head"
    head_init_scale: float = 0.001
    edge: Literal["pad", "drop"] = "pad"

    def __post_init__(self) -> None:
        check_range(1, math.inf, actions=self.num_actions, bins=self.roi_size)
        check_range(0, 1, dropout=self.dropout)
        check_range(0, math.inf, head_scale=self.head_init_scale)
        _, rows, columns = self.encoder.tubelet
        if rows != columns:
            raise InputError(
                f"a detector's tubelets have as many rows as columns, and these have {rows} and {columns}; "
                f"take a square of {rows}, and an encoder that has it"
            )

    def build(self) -> "Detector":
        return Detector(self)


class Detector(nn.Module):
    """The detection model of the family: RoIAlign (arXiv:1703.06870) of the tokens' mean over time; a box's largest
    values enter the head (SlowFast, arXiv:1812.03982, section 5). A class token has no part in it.
    """

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.config = config
        dropping = replace(config.encoder, drop_remainder=True)
        self.encoder = (dropping if config.edge == "drop" else config.encoder).build()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.encoder.dim, config.num_actions)
        init_normal_weights(self.head)
        with torch.no_grad():
            self.head.weight.mul_(config.head_init_scale)

    def forward(self, clip: Float[Tensor, "b 3 t h w"], boxes: Float[Tensor, "b m 4"]) -> Float[Tensor, "b m a"]:
        """Logits of every box of clips of colours in [0, 1].

        Args:
            boxes: x1, y1, x2, y2 in pixels of the clip.
        """
        if self.config.edge == "pad":
            clip = self.pad_to_tubelets(clip)
        return self.forward_head(self.encoder(clip).tokens, self.encoder.grid(clip), boxes)

    def forward_head(
        self, tokens: Float[Tensor, "b n d"], grid: Grid, boxes: Float[Tensor, "b m 4"]
    ) -> Float[Tensor, "b m a"]:
        """Of every box, from what the encoder gives."""
        features = self.forward_box_features(tokens, grid, boxes)
        return self.head(self.dropout(features) if self.config.dropout_on == "head" else features)

    def forward_box_features(
        self, tokens: Float[Tensor, "b n d"], grid: Grid, boxes: Float[Tensor, "b m 4"]
    ) -> Float[Tensor, "b m d"]:
        """Of every box, the largest value of each channel; made in float32 or better, whatever the tokens are."""
        precise = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        places = reduce(precise, "b (t h w) d -> b d h w", "mean", t=grid.t, h=grid.h, w=grid.w)
        found = pool_box_features(
            places,
            boxes,
            scale=1 / self.config.encoder.tubelet[1],
            roi_size=self.config.roi_size,
            aligned=self.config.aligned,
        )
        if self.config.dropout_on == "bins":
            found = self.dropout(found)
        return found.amax(dim=(-2, -1)).to(tokens.dtype)

    def pad_to_tubelets(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 3 t _h _w"]:
        """A clip of whole tubelets: more rows and columns, of the mean colour, at its bottom and right."""
        (_, tall, wide), (rows, columns) = self.config.encoder.tubelet, clip.shape[-2:]
        if rows % tall == columns % wide == 0:
            return clip
        mean = self.encoder.mean.to(clip.dtype).view(3, 1, 1, 1)
        filled = mean.expand(*clip.shape[:3], math.ceil(rows / tall) * tall, math.ceil(columns / wide) * wide).clone()
        filled[..., :rows, :columns] = clip
        return filled


def pool_box_features(
    feature_map: Float[Tensor, "b d h w"], boxes: Float[Tensor, "b m 4"], *, scale: float, roi_size: int, aligned: bool
) -> Float[Tensor, "b m d bins bins"]:
    """RoIAlign of every box with as many samples in a bin as it has places, rounded up.

    A box without area has zeros where boxes are aligned; where they are not, it has one place at least.
    """
    from torchvision.ops import roi_align  # which takes two seconds to import

    count, most = boxes.shape[:2]
    clips = torch.arange(count, device=boxes.device).view(-1, 1, 1).expand(count, most, 1)
    rows = torch.cat([clips.to(feature_map.dtype), boxes.to(feature_map.dtype)], dim=-1).flatten(0, 1)
    found = roi_align(feature_map, rows, roi_size, spatial_scale=scale, sampling_ratio=-1, aligned=aligned)
    return rearrange(found, "(b m) d i j -> b m d i j", b=count)


@dataclass(frozen=True, kw_only=True)
class BoxJitter:
    """Every box's sides, moved by shares of its width and height drawn uniformly (VideoMAE's detection code).

    Args:
        outwards, inwards: the largest share by which left and right sides move; top and bottom move half as far.
    """

    max_outward: float = 0.2
    max_inward: float = 0.1

    def __post_init__(self) -> None:
        check_range(0, 1, outwards=self.max_outward, inwards=self.max_inward)

    def apply(
        self, boxes: Float[Tensor, "b m 4"], seed: Int[Tensor, "b"], *, height: int, width: int
    ) -> Float[Tensor, "b m 4"]:
        """Boxes in a clip of so many pixels, which they do not leave; they hold their last pixel, so that one from 3
        to 5 is 3 wide. A box is moved alike however many others its clip has.
        """
        shares = rearrange(draw_uniform(seed, "box jitter", 4 * boxes.shape[1]), "b (m side) -> b m side", side=4)
        start, end = (shares * (self.max_outward + self.max_inward)).split(2, dim=-1)
        first, last = boxes.split(2, dim=-1)
        reach = (last - first + 1) * boxes.new_tensor([1.0, 0.5])
        size = boxes.new_tensor([width, height])
        first = (first + reach * (start - self.max_outward)).clamp(min=0).minimum(size - 2)
        last = (last + reach * (end - self.max_inward)).minimum(size - 1).maximum(first + 1)
        return torch.cat([first, last], dim=-1)


class DetectionTask(nn.Module):
    """Trains a detector: boxes jittered on the device, binary cross-entropy of every action of every box.

    Args:
        loss_per: "clip": a clip's loss is the sum over its boxes, the mean over actions, and a batch's the mean over clips
            (VideoMAE's detection code, but for a constant factor); "box": the mean over boxes (PySlowFast).
        boxes_per_clip: of the training set on average, by which "box" divides, so that a step is the same on any
            number of devices.
    """

    def __init__(
        self, model: Detector, *, jitter: BoxJitter | None, loss_per: Literal["clip", "box"], boxes_per_clip: float
    ):
        super().__init__()
        check_range(1e-6, math.inf, boxes_per_clip=boxes_per_clip)
        self.model, self.jitter, self.loss_per, self.boxes_per_clip = model, jitter, loss_per, boxes_per_clip

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        boxes: Float[Tensor, "b m 4"],
        labels: Float[Tensor, "b m a"],
        box_mask: Bool[Tensor, "b m"],
        seed: Int[Tensor, "b"],
    ) -> Output:
        """
        Args:
            box_mask: rows of boxes that are some; the others only fill up, and have no part in the loss.
        """
        if self.training and self.jitter is not None:
            boxes = self.jitter.apply(boxes, seed, height=clip.shape[-2], width=clip.shape[-1])
        logits = self.model(clip, boxes).float()
        of_boxes = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=2)
        total = torch.where(box_mask, of_boxes, 0.0).sum()
        return Output(total / (len(clip) * (1.0 if self.loss_per == "clip" else self.boxes_per_clip)))
