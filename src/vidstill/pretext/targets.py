"""What a masked autoencoder has to guess: the pixels of the hidden tubelets."""

from typing import Literal

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.models.vit import tubelets
from vidstill.types import InputError, Tubelet

PixelTarget = Literal["per_channel", "per_patch", "raw"]
"""Pixels normalised with one mean for each colour (VideoMAE), with one for the patch (MAE), or colours in [0, 1]."""

_EPS = 1e-6  # the authors': added to the deviation (VideoMAE) or to the variance (MAE)


def pixel_target(
    clip: Float[Tensor, "b 3 t h w"], tubelet: Tubelet, places: Int[Tensor, "b m"], kind: PixelTarget
) -> Float[Tensor, "b m p"]:
    """The pixels of the named tubelets, normalised as the kind says; without gradient, in the clip's precision."""
    if kind == "raw" or places.shape[1] == 0:  # nothing has no mean
        return pixels(clip, tubelet, places)
    return normalised_pixels(clip, tubelet, places, per_channel=kind == "per_channel")


def pixels(clip: Float[Tensor, "b 3 t h w"], tubelet: Tubelet, places: Int[Tensor, "b m"]) -> Float[Tensor, "b m p"]:
    """The colours in [0, 1] of the named tubelets; frame by frame, row by row, colours last."""
    t, h, w = tubelet
    return rearrange(tubelets(clip, tubelet, places), "b m (c t h w) -> b m (t h w c)", c=3, t=t, h=h, w=w)


def normalised_pixels(
    clip: Float[Tensor, "b 3 t h w"], tubelet: Tubelet, places: Int[Tensor, "b m"], *, per_channel: bool
) -> Float[Tensor, "b m p"]:
    """The named tubelets' pixels at zero mean and unit variance: the target of MAE (arXiv:2111.06377, section 3).

    Args:
        clip: colours in [0, 1].
        tubelet: frames, rows and columns of one token, in pixels.
        per_channel: one mean for each colour (VideoMAE), or one for the whole patch (MAE, ST-MAE).

    Returns:
        A row for each named token, in the order of the places; its pixels frame by frame, row by row, colours last.

    Raises:
        InputError: the clip does not divide into whole tubelets.
    """
    rows = pixels(clip, tubelet, places)
    if per_channel and rows.shape[-1] == 3:
        raise InputError("a tubelet of one pixel has no deviation from its mean; take larger tubelets, or target raw")
    if per_channel:
        colours = rearrange(rows, "b m (p c) -> b m p c", c=3)
        spread = colours.var(dim=2, keepdim=True).sqrt() + _EPS
        return rearrange((colours - colours.mean(dim=2, keepdim=True)) / spread, "b m p c -> b m (p c)")
    spread = (rows.var(dim=2, keepdim=True) + _EPS).sqrt()
    return (rows - rows.mean(dim=2, keepdim=True)) / spread
