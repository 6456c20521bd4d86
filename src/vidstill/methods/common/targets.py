"""What a masked autoencoder has to guess: the pixels of the hidden tubelets."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.models.vit import ViTConfig, tubelets
from vidstill.utils.types import InputError, Tubelet

PixelTarget = Literal["per_channel", "per_patch", "raw", "input"]
"""Normalised with one mean for each colour of a tubelet (VideoMAE) or one for all of it (MAE, ST-MAE), or not at all:
colours in [0, 1] (VideoMAE's raw pixels), or what enters the encoder (MAE's)."""

_EPS = 1e-6  # the authors': added to the deviation (VideoMAE) or to the variance (MAE)


def pixel_target(
    clip: Float[Tensor, "b 3 t h w"], model: ViTConfig, places: Int[Tensor, "b m"], kind: PixelTarget
) -> Float[Tensor, "b m p"]:
    """What is to be guessed at the named tokens of a model; without gradient, in the clip's precision.

    Args:
        clip: colours in [0, 1].
        model: its tubelets are cut, and its mean and deviation taken off where MAE does so.

    Returns:
        A row for each named token, in the order of the places; its pixels frame by frame, row by row, colours last.

    Raises:
        InputError: the clip does not divide into whole tubelets, or a tubelet has a single pixel.
    """
    rows = pixels(clip, model.tubelet, places)
    match kind:
        case "raw":
            return rows
        case "input":
            return inputs(rows, model)
        case "per_channel":
            return per_channel(rows)
        case "per_patch":
            return per_patch(inputs(rows, model))


def pixels(clip: Float[Tensor, "b 3 t h w"], tubelet: Tubelet, places: Int[Tensor, "b m"]) -> Float[Tensor, "b m p"]:
    """The colours in [0, 1] of the named tubelets; frame by frame, row by row, colours last."""
    t, h, w = tubelet
    return rearrange(tubelets(clip, tubelet, places), "b m (c t h w) -> b m (t h w c)", c=3, t=t, h=h, w=w)


def inputs(rows: Float[Tensor, "b m p"], model: ViTConfig) -> Float[Tensor, "b m p"]:
    """Rows of colours in [0, 1] as they enter a model: its mean taken off, divided by its deviation."""
    mean, std = (torch.tensor(x, dtype=rows.dtype, device=rows.device) for x in (model.mean, model.std))
    repeats = rows.shape[-1] // 3
    return (rows - mean.repeat(repeats)) / std.repeat(repeats)


def colours_of(rows: Float[Tensor, "b m p"], model: ViTConfig) -> Float[Tensor, "b m p"]:
    """The way back from `inputs`: colours in [0, 1]."""
    mean, std = (torch.tensor(x, dtype=rows.dtype, device=rows.device) for x in (model.mean, model.std))
    repeats = rows.shape[-1] // 3
    return rows * std.repeat(repeats) + mean.repeat(repeats)


def per_channel(rows: Float[Tensor, "b m p"]) -> Float[Tensor, "b m p"]:
    """Rows in which each colour has zero mean and unit (unbiased) variance: VideoMAE's target (section 3.1)."""
    if rows.shape[-1] == 3:
        raise InputError("a tubelet of one pixel has no deviation from its mean; take larger tubelets, or target raw")
    colours = rearrange(rows, "b m (p c) -> b m p c", c=3)
    if rows.shape[1]:  # nothing has no mean
        spread = colours.var(dim=2, keepdim=True).sqrt() + _EPS
        colours = (colours - colours.mean(dim=2, keepdim=True)) / spread
    return rearrange(colours, "b m p c -> b m (p c)")


def per_patch(rows: Float[Tensor, "b m p"]) -> Float[Tensor, "b m p"]:
    """Rows of zero mean and unit (unbiased) variance: the target of MAE (arXiv:2111.06377, section 3) and ST-MAE."""
    if not rows.shape[1]:  # nothing has no mean
        return rows
    return (rows - rows.mean(dim=2, keepdim=True)) / (rows.var(dim=2, keepdim=True) + _EPS).sqrt()
