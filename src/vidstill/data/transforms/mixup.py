"""Mixup and CutMix for clips, on the device: each clip takes a part of its partner's colours and label."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.utils.rng import uniform
from vidstill.utils.types import InputError, within

_TRIES = 128  # of Jöhnk's draw, which accepts one in six at alpha = 2: all fail once in 10**10


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899), drawn once for what a device takes at once.

    Args:
        mixup: alpha of the Beta(alpha, alpha) that the share is drawn from, at most 2; 0 turns mixup off.
        cutmix: the same for CutMix.
        probability: of a batch to be mixed.
        switch: the probability of CutMix rather than mixup, where both are on.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch: float = 0.5

    def __post_init__(self) -> None:
        within(0, 1, probability=self.probability, switch=self.switch)
        if not (0 <= self.mixup <= 2 and 0 <= self.cutmix <= 2):
            raise InputError(f"mixing takes alphas from 0 to 2, not mixup {self.mixup} and cutmix {self.cutmix}")

    def apply(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        label: Int[Tensor, "b"] | Float[Tensor, "b classes"],
        seed: Int[Tensor, "b"],
        classes: int,
        smoothing: float,
    ) -> tuple[Float[Tensor, "b 3 t h w"], Float[Tensor, "b classes"]]:
        """The clips, mixed as the first one's seed says, and their soft labels.

        Raises:
            InputError: the batch is odd, so that the clip in its middle would be its own partner.
        """
        if len(clip) % 2:
            raise InputError(f"{len(clip)} clips cannot be mixed in pairs; give each device an even number of clips")
        keep = self.draw(seed[:1], *clip.shape[-2:])
        return mixed(clip, smoothed(label, classes, smoothing), keep)

    def draw(self, seed: Int[Tensor, "1"], height: int, width: int) -> Float[Tensor, "h w"]:
        """How much each pixel keeps of its own clip's colours: the same everywhere, or all or nothing (CutMix)."""
        whether, which, middle_y, middle_x = uniform(seed, "mixing", 4)[0]
        whole = torch.ones(height, width, device=seed.device)
        keep = whole * beta(seed, "mixup", self.mixup) if self.mixup else whole
        if self.cutmix:
            middle = torch.floor(middle_y * height), torch.floor(middle_x * width)
            cut = outside_box(beta(seed, "cutmix", self.cutmix)[0], middle, whole)
            keep = torch.where(which < self.switch, cut, keep) if self.mixup else cut
        return torch.where(whether < self.probability, keep, whole)


def mixed(
    clip: Float[Tensor, "b 3 t h w"], target: Float[Tensor, "b classes"], keep: Float[Tensor, "h w"]
) -> tuple[Float[Tensor, "b 3 t h w"], Float[Tensor, "b classes"]]:
    """Clips and labels mixed with those of the batch in reverse; the mean of `keep` is the papers' lambda."""
    return clip.flip(0).lerp(clip, keep.to(clip.dtype)), target.flip(0).lerp(target, keep.mean())


def smoothed(
    label: Int[Tensor, "b"] | Float[Tensor, "b classes"], classes: int, smoothing: float
) -> Float[Tensor, "b classes"]:
    """One-hot labels of which a share is spread evenly over all classes, the right one included.

    Where clips may have several labels, each class is a question of its own: the share is spread over its yes and no.
    """
    if label.dim() == 2:
        return smoothing / 2 + (1 - smoothing) * label
    hot = label[:, None] == torch.arange(classes, device=label.device)
    return smoothing / classes + (1 - smoothing) * hot.float()


def outside_box(
    lam: Float[Tensor, ""], middle: tuple[Float[Tensor, ""], Float[Tensor, ""]], like: Float[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """1 outside of CutMix's box and 0 in it; its sides are the frame's times sqrt(1 - lambda), and it may be clipped.

    Args:
        middle: the row and the column of the pixel that the box is around.
    """
    ratio = torch.sqrt(1 - lam)
    rows, columns = (_side(at, ratio, length) for at, length in zip(middle, like.shape, strict=True))
    return outside(rows, columns, like)


def outside(
    rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], like: Float[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """1 outside of a box and 0 in it; the box is from its first to before its second row and column."""
    row = torch.arange(like.shape[0], device=like.device)
    column = torch.arange(like.shape[1], device=like.device)
    inside = ((row >= rows[0]) & (row < rows[1]))[:, None] & (column >= columns[0]) & (column < columns[1])
    return 1 - inside.to(like.dtype)


def beta(seeds: Int[Tensor, "b"], word: str, alpha: float) -> Float[Tensor, "b"]:
    """A Beta(alpha, alpha) number for each seed, 0 < alpha <= 2, from Jöhnk's tries (1964), all made at once."""
    logs = torch.log1p(-uniform(seeds, word, 2 * _TRIES)) / alpha  # of u ** (1 / alpha), which may be too small to hold
    one, other = logs.chunk(2, dim=1)
    both = torch.logaddexp(one, other)
    first = (both <= 0).int().argmax(dim=1, keepdim=True)
    return torch.exp(one - both).take_along_dim(first, dim=1)[:, 0]


def _side(middle: Float[Tensor, ""], ratio: Float[Tensor, ""], length: int) -> tuple[Tensor, Tensor]:
    """First and one past the last pixel of a CutMix box along one side; what lies beyond the frame is not there."""
    half = torch.floor(torch.floor(ratio * length) / 2)
    return middle - half, middle + half
