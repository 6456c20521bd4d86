"""Mixup and CutMix of clips on the device."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.utils.rng import draw_uniform
from vidstill.utils.types import InputError, check_range

_BETA_TRIES = 128  # Jöhnk's method accepts one draw in six at alpha = 2: all fail once in 10**10


@dataclass(frozen=True, kw_only=True)
class MixupCutmix:
    """Mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899), drawn once for each group of clips."""

    mixup_alpha: float = 0.8  # of the Beta(alpha, alpha) that the mixing ratio is drawn from, at most 2; 0: no mixup
    cutmix_alpha: float = 1.0  # the same for CutMix
    probability: float = 1.0  # probability that a group is mixed
    switch_probability: float = 0.5  # probability of CutMix instead of mixup, if both are on
    # Clips that are mixed with one another, consecutive in the global batch (released: a GPU's batch); a smaller batch
    # is one group. A device's batch must hold whole groups.
    group_clips: int = 8

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
        """Mix the clips of each group, as the seed of its first one decides, and their labels.

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
            mix_pairs(clips, targets, self.draw_pixel_weights(seeds[:1], *clip.shape[-2:]))
            for clips, targets, seeds in zip(clip.split(group), target.split(group), seed.split(group), strict=True)
        ]
        return torch.cat([clips for clips, _ in mixed]), torch.cat([targets for _, targets in mixed])

    def draw_pixel_weights(self, seed: Int[Tensor, "1"], height: int, width: int) -> Float[Tensor, "h w"]:
        """Draw each pixel's weight of its own clip: lambda everywhere (mixup), or 0 in a box and 1 outside (CutMix)."""
        mix_draw, switch_draw, center_y, center_x = draw_uniform(seed, "mixing", 4)[0]
        ones = torch.ones(height, width, device=seed.device)
        weights = ones * draw_beta(seed, "mixup", self.mixup_alpha) if self.mixup_alpha else ones
        if self.cutmix_alpha:
            center = torch.floor(center_y * height), torch.floor(center_x * width)
            cutmix = make_cutmix_mask(draw_beta(seed, "cutmix", self.cutmix_alpha)[0], center, ones)
            weights = (
                torch.where(switch_draw < self.switch_probability, cutmix, weights) if self.mixup_alpha else cutmix
            )
        return torch.where(mix_draw < self.probability, weights, ones)


def mix_pairs(
    clip: Float[Tensor, "b 3 t h w"], target: Float[Tensor, "b classes"], pixel_weights: Float[Tensor, "h w"]
) -> tuple[Float[Tensor, "b 3 t h w"], Float[Tensor, "b classes"]]:
    """Mix clips and labels with those of the group in reverse order; the mean weight is the papers' lambda."""
    return clip.flip(0).lerp(clip, pixel_weights.to(clip.dtype)), target.flip(0).lerp(target, pixel_weights.mean())


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


def make_cutmix_mask(
    lam: Float[Tensor, ""], center: tuple[Float[Tensor, ""], Float[Tensor, ""]], like: Float[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """Return 0 in CutMix's box and 1 outside; its sides are the frame's times sqrt(1 - lambda), and it may be clipped.

    Args:
        lam: Lambda, the area outside of the box.
        center: Row and column of the box's centre.
        like: A tensor of the frame's size.
    """
    ratio = torch.sqrt(1 - lam)
    half_sides = [torch.floor(torch.floor(ratio * length) / 2) for length in like.shape]
    rows, columns = ((middle - side, middle + side) for middle, side in zip(center, half_sides, strict=True))
    return make_box_mask(rows, columns, like)


def make_box_mask(
    rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], like: Float[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """Return 0 in a box and 1 outside; the box reaches from its first row and column to before its second ones."""
    row = torch.arange(like.shape[0], device=like.device)
    column = torch.arange(like.shape[1], device=like.device)
    inside = ((row >= rows[0]) & (row < rows[1]))[:, None] & (column >= columns[0]) & (column < columns[1])
    return 1 - inside.to(like.dtype)


def draw_beta(seeds: Int[Tensor, "b"], purpose: str, alpha: float) -> Float[Tensor, "b"]:
    """Draw a Beta(alpha, alpha) number for each seed, 0 < alpha <= 2, by Jöhnk's method (1964), all tries at once."""
    # logarithms of u ** (1 / alpha), which may underflow
    x, y = (torch.log1p(-draw_uniform(seeds, purpose, 2 * _BETA_TRIES)) / alpha).chunk(2, dim=1)
    total = torch.logaddexp(x, y)
    first = (total <= 0).int().argmax(dim=1, keepdim=True)
    return torch.exp(x - total).take_along_dim(first, dim=1)[:, 0]
