"""Mixup and CutMix of clips on the device."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int, Num
from torch import Tensor

from vidstill.utils.rng import draw_uniform
from vidstill.utils.types import InputError, check_range

_BETA_TRIES = 128  # Jöhnk's method accepts one draw in six at alpha = 2: all fail once in 10**10


@dataclass(frozen=True, kw_only=True)
class MixupCutmix:
    """Mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899) of the clips of a group."""

    mixup_alpha: float = 0.8  # of the Beta(alpha, alpha) that the mixing ratio is drawn from, at most 2; 0: no mixup
    cutmix_alpha: float = 1.0  # the same for CutMix
    probability: float = 1.0  # probability that a group, pair or clip is mixed
    switch_probability: float = 0.5  # probability of CutMix instead of mixup, if both are on
    # Clips that are mixed with one another, consecutive in the global batch (released: a GPU's batch); a smaller batch
    # is one group. A device's batch must hold whole groups.
    group_clips: int = 8
    # What gets one draw of ratio and box: the whole group (batch), a clip with its partner (pair), or each clip (elem);
    # timm's modes.
    mode: Literal["batch", "pair", "elem"] = "batch"
    # What CutMix's box cuts. rows_columns: rows and columns of every frame; released_time_rows (MVD's fine-tuning): its
    # rows are taken for frames and its columns for rows, over the whole width; labels are mixed as for rows_columns.
    cut: Literal["rows_columns", "released_time_rows"] = "rows_columns"

    def __post_init__(self) -> None:
        check_range(0, 1, probability=self.probability, switch_probability=self.switch_probability)
        check_range(2, math.inf, group_clips=self.group_clips)
        if not (0 <= self.mixup_alpha <= 2 and 0 <= self.cutmix_alpha <= 2):
            raise InputError(
                f"mixup_alpha and cutmix_alpha are from 0 to 2, not {self.mixup_alpha} and {self.cutmix_alpha}"
            )

    def apply(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        label: Int[Tensor, "b"] | Float[Tensor, "b classes"],
        seed: Int[Tensor, "b"],
        num_classes: int,
        label_smoothing: float,
    ) -> tuple[Float[Tensor, "b 3 t h w"], Float[Tensor, "b classes"]]:
        """Mix the clips of each group, as its first seed, the pairs' first seeds or all seeds decide, and their labels.

        Args:
            clip: Whole groups, see `group_clips`.
            label: Class numbers, or 0 and 1 per class.
            seed: One per clip.
            num_classes: Columns of the returned labels.
            label_smoothing: See `smooth_labels`.

        Raises:
            InputError: The clips do not divide into groups, or a group has an odd number, whose middle clip would be
                its own partner.
        """
        group = min(self.group_clips, len(clip))
        if group % 2 or len(clip) % group:
            raise InputError(
                f"{len(clip)} clips cannot be mixed in groups of {group}; "
                "give an even --mixup.group-clips that divides a device's batch"
            )
        target = smooth_labels(label, num_classes, label_smoothing)
        mixed = [
            mix_pairs(clips, targets, *self.draw_weights(seeds, *clip.shape[-3:]))
            for clips, targets, seeds in zip(clip.split(group), target.split(group), seed.split(group), strict=True)
        ]
        return torch.cat([clips for clips, _ in mixed]), torch.cat([targets for _, targets in mixed])

    def draw_weights(
        self, seeds: Int[Tensor, "b"], frames: int, height: int, width: int
    ) -> tuple[Float[Tensor, "n #t h #w"], Float[Tensor, "n"]]:
        """Draw the weights of each clip's own pixels and of its own label in a group; n is 1 if all clips share them.

        A pixel's weight is lambda everywhere (mixup), or 0 in a box and 1 outside (CutMix); a label's is its mean.

        Args:
            seeds: The group's.
            frames: Frames of a clip.
            height: Rows of a frame.
            width: Columns of a frame.
        """
        if self.mode != "elem":
            seeds = seeds[: 1 if self.mode == "batch" else len(seeds) // 2]
        mix_draw, switch_draw, row_draw, column_draw = draw_uniform(seeds, "mixing", 4).T
        both = self.mixup_alpha and self.cutmix_alpha
        mixes = mix_draw < self.probability
        cuts = switch_draw < (self.switch_probability if both else float(self.cutmix_alpha > 0))
        lam = cut_lam = torch.ones_like(mix_draw)
        if self.mixup_alpha:
            lam = torch.where(mixes & ~cuts, draw_beta(seeds, "mixup", self.mixup_alpha), lam)
        if self.cutmix_alpha:
            cut_lam = torch.where(mixes & cuts, draw_beta(seeds, "cutmix", self.cutmix_alpha), cut_lam)
        center = torch.floor(torch.stack([row_draw * height, column_draw * width]))
        box = compute_cutmix_box(cut_lam, center, height, width)
        weights = lam[:, None, None] * make_box_mask(box, height, width)
        label_weights = weights.mean(dim=(1, 2))
        if self.cut == "released_time_rows":
            weights = (lam[:, None, None] * make_box_mask(box, frames, height))[..., None]
        else:
            weights = weights[:, None]
        if self.mode == "pair":
            return torch.cat([weights, weights.flip(0)]), torch.cat([label_weights, label_weights.flip(0)])
        return weights, label_weights


def mix_pairs(
    clip: Float[Tensor, "b 3 t h w"],
    target: Float[Tensor, "b classes"],
    pixel_weights: Float[Tensor, "n #t h #w"],
    label_weights: Float[Tensor, "n"],
) -> tuple[Float[Tensor, "b 3 t h w"], Float[Tensor, "b classes"]]:
    """Mix clips and labels with those of the group in reverse order.

    Args:
        clip: A group.
        target: Its labels.
        pixel_weights: Of each clip's own pixels, or of all clips'.
        label_weights: Of each clip's own label, the papers' lambda.
    """
    weights = pixel_weights[:, None].to(clip.dtype)
    return clip.flip(0).lerp(clip, weights), target.flip(0).lerp(target, label_weights[:, None])


def smooth_labels(
    label: Int[Tensor, "b"] | Float[Tensor, "b classes"], num_classes: int, label_smoothing: float
) -> Float[Tensor, "b classes"]:
    """Return one-hot labels with `label_smoothing` spread evenly over all classes, the right one included.

    Args:
        label: Class numbers; or 0 and 1 for each class, which is smoothed as a binary label.
        num_classes: Classes.
        label_smoothing: The weight that is spread.
    """
    if label.dim() == 2:
        return label_smoothing / 2 + (1 - label_smoothing) * label
    one_hot = label[:, None] == torch.arange(num_classes, device=label.device)
    return label_smoothing / num_classes + (1 - label_smoothing) * one_hot.float()


def compute_cutmix_box(
    lam: Float[Tensor, "n"], center: Float[Tensor, "2 n"], height: int, width: int
) -> Float[Tensor, "4 n"]:
    """Return CutMix's box, clipped to the frame: its first row, the row behind its last, and the same columns.

    Args:
        lam: Lambda, the area outside of the box; its sides are the frame's times sqrt(1 - lambda).
        center: Row and column of its centre.
        height: Rows of the frame.
        width: Columns of the frame.
    """
    ratio = torch.sqrt(1 - lam)
    sides = []
    for length, middle in zip((height, width), center, strict=True):
        half = torch.floor(torch.floor(ratio * length) / 2)
        sides += [(middle - half).clamp(min=0), (middle + half).clamp(max=length)]
    return torch.stack(sides)


def make_box_mask(box: Num[Tensor, "4 n"], height: int, width: int) -> Float[Tensor, "n h w"]:
    """Return 0 in a box and 1 outside.

    Args:
        box: Its first row, the row behind its last, and the same columns.
        height: Rows of the mask.
        width: Its columns.
    """
    first_row, end_row, first_column, end_column = rearrange(box, "four n -> four n 1")
    row, column = torch.arange(height, device=box.device), torch.arange(width, device=box.device)
    rows, columns = (row >= first_row) & (row < end_row), (column >= first_column) & (column < end_column)
    return 1 - (rows[:, :, None] & columns[:, None]).float()


def draw_beta(seeds: Int[Tensor, "b"], purpose: str, alpha: float) -> Float[Tensor, "b"]:
    """Draw a Beta(alpha, alpha) number for each seed, 0 < alpha <= 2, by Jöhnk's method (1964), all tries at once."""
    # logarithms of u ** (1 / alpha), which may underflow
    x, y = (torch.log1p(-draw_uniform(seeds, purpose, 2 * _BETA_TRIES)) / alpha).chunk(2, dim=1)
    total = torch.logaddexp(x, y)
    first = (total <= 0).int().argmax(dim=1, keepdim=True)
    return torch.exp(x - total).take_along_dim(first, dim=1)[:, 0]
