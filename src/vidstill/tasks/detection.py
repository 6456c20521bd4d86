"""Action detection: encoder → mean over time → RoIAlign of each person box → head."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vidstill.models.layers import init_normal_weights
from vidstill.models.vit import ViTConfig
from vidstill.utils.rng import draw_uniform
from vidstill.utils.types import Grid, InputError, Output, check_range


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    encoder: ViTConfig
    num_actions: int
    roi_size: int = 7  # rows and columns of a box's features before max pooling
    aligned: bool = False  # RoIAlign's shift by half a pixel; without it, a box is at least one token wide and high
    dropout: float = 0.0  # dropout probability
    dropout_on: Literal["head", "bins"] = "head"  # dropout before the head, or before max pooling over the bins
    head_init_scale: float = 0.001  # scale of the head's initial weights
    # a clip that does not divide into tubelets is padded at the right and bottom with the mean colour, or cropped there
    edge: Literal["pad", "drop"] = "pad"

    def __post_init__(self) -> None:
        check_range(1, math.inf, num_actions=self.num_actions, roi_size=self.roi_size)
        check_range(0, 1, dropout=self.dropout)
        check_range(0, math.inf, head_init_scale=self.head_init_scale)
        _, rows, columns = self.encoder.tubelet
        if rows != columns:
            raise InputError(
                f"a detector needs square tubelets, and these have {rows} rows and {columns} columns; "
                "choose an encoder with square tubelets"
            )

    def build(self) -> "Detector":
        return Detector(self)


class Detector(nn.Module):
    """The detection model of all methods: RoIAlign (arXiv:1703.06870) of the tokens' mean over time, then max pooling
    and a linear head (SlowFast, arXiv:1812.03982, section 5). The class token is not used.
    """

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.config = config
        cropping = replace(config.encoder, drop_remainder=True)
        self.encoder = (cropping if config.edge == "drop" else config.encoder).build()
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.encoder.dim, config.num_actions)
        init_normal_weights(self.head)
        with torch.no_grad():
            self.head.weight.mul_(config.head_init_scale)

    def forward(self, clip: Float[Tensor, "b 3 t h w"], boxes: Float[Tensor, "b m 4"]) -> Float[Tensor, "b m a"]:
        """Return the logits of every box (x1, y1, x2, y2 in pixels) of clips of colours in [0, 1]."""
        if self.config.edge == "pad":
            clip = self.pad_to_tubelets(clip)
        return self.forward_head(self.encoder(clip).tokens, self.encoder.grid(clip), boxes)

    def forward_head(
        self, tokens: Float[Tensor, "b n d"], grid: Grid, boxes: Float[Tensor, "b m 4"]
    ) -> Float[Tensor, "b m a"]:
        """Return the logits of every box from the encoder's tokens."""
        features = self.forward_box_features(tokens, grid, boxes)
        return self.head(self.dropout(features) if self.config.dropout_on == "head" else features)

    def forward_box_features(
        self, tokens: Float[Tensor, "b n d"], grid: Grid, boxes: Float[Tensor, "b m 4"]
    ) -> Float[Tensor, "b m d"]:
        """Return the maximum of every channel in every box, computed in float32 or better."""
        precise = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        features = pool_box_features(
            reduce(precise, "b (t h w) d -> b d h w", "mean", t=grid.t, h=grid.h, w=grid.w),
            boxes,
            scale=1 / self.config.encoder.tubelet[1],
            roi_size=self.config.roi_size,
            aligned=self.config.aligned,
        )
        if self.config.dropout_on == "bins":
            features = self.dropout(features)
        return features.amax(dim=(-2, -1)).to(tokens.dtype)

    def pad_to_tubelets(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 3 t _h _w"]:
        """Pad a clip to whole tubelets with the mean colour, at the bottom and right."""
        side, (rows, columns) = self.config.encoder.tubelet[1], clip.shape[-2:]
        if rows % side == columns % side == 0:
            return clip
        mean = self.encoder.mean.to(clip.dtype).view(3, 1, 1, 1)
        padded = mean.expand(*clip.shape[:3], math.ceil(rows / side) * side, math.ceil(columns / side) * side).clone()
        padded[..., :rows, :columns] = clip
        return padded


def pool_box_features(
    feature_map: Float[Tensor, "b d h w"], boxes: Float[Tensor, "b m 4"], *, scale: float, roi_size: int, aligned: bool
) -> Float[Tensor, "b m d bins bins"]:
    """RoIAlign of every box, with as many samples in a bin as it has cells of the feature map, rounded up.

    Args:
        scale: Cells of the feature map per pixel.
        aligned: A box without area pools to zeros; otherwise a box is at least one cell wide and high.
    """
    from torchvision.ops import roi_align  # two seconds to import

    # len(boxes), or a list of boxes, would fix the batch size of an exported program
    count, num_boxes = boxes.shape[:2]
    clip_index = torch.arange(count, device=boxes.device).view(-1, 1, 1).expand(count, num_boxes, 1)
    rois = torch.cat([clip_index, boxes], dim=-1).to(feature_map.dtype).flatten(0, 1)
    pooled = roi_align(feature_map, rois, roi_size, spatial_scale=scale, sampling_ratio=-1, aligned=aligned)
    return rearrange(pooled, "(b m) d i j -> b m d i j", b=count)


@dataclass(frozen=True, kw_only=True)
class BoxJitter:
    """Move each side of a box by a uniformly drawn share of its width or height (VideoMAE's detection code)."""

    max_outward: float = 0.2  # largest share of its width by which a box grows left or right; half at top or bottom
    max_inward: float = 0.1  # largest share by which it shrinks there

    def __post_init__(self) -> None:
        check_range(0, 1, max_outward=self.max_outward, max_inward=self.max_inward)

    def apply(
        self, boxes: Float[Tensor, "b m 4"], seed: Int[Tensor, "b"], *, height: int, width: int
    ) -> Float[Tensor, "b m 4"]:
        """Return jittered boxes, clipped to the clip's size in pixels; a box includes its last pixel: 3 to 5 is 3 wide.

        The jitter of a box does not depend on the number of boxes.
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
    """Train a detector by binary cross-entropy of every action of every box; boxes are jittered on the device.

    Args:
        loss_per: "clip": the mean over actions, sum over a clip's boxes and mean over clips (VideoMAE's detection
            code, but for a constant factor); "box": the mean over boxes (PySlowFast).
        boxes_per_clip: The training set's mean, by which "box" divides, so that a step does not depend on the number
            of devices.
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
        """Return the loss of the boxes that `box_mask` marks; the others are padding."""
        if self.training and self.jitter is not None:
            boxes = self.jitter.apply(boxes, seed, height=clip.shape[-2], width=clip.shape[-1])
        logits = self.model(clip, boxes).float()
        box_losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=2)
        total = torch.where(box_mask, box_losses, 0.0).sum()
        return Output(total / (len(clip) * (1.0 if self.loss_per == "clip" else self.boxes_per_clip)))
