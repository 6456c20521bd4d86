"""What a masked autoencoder has to guess: the pixels of the hidden tubelets."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.models.vit import ViTConfig, patchify
from vidstill.utils.types import InputError, Tubelet

PixelTarget = Literal["per_channel", "per_patch", "raw", "input"]
"""Normalised with one mean for each colour of a tubelet (VideoMAE) or one for all of it (MAE, ST-MAE), or not at all:
colours in [0, 1] (VideoMAE's raw pixels), or what enters the encoder (MAE's)."""

_EPS = 1e-6  # the authors': added to the deviation (VideoMAE) or to the variance (MAE)


def compute_pixel_target(
    clip: Float[Tensor, "b 3 t h w"], model: ViTConfig, indices: Int[Tensor, "b m"], kind: PixelTarget
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
    rows = gather_pixels(clip, model.tubelet, indices)
    match kind:
        case "raw":
            return rows
        case "input":
            return normalize_input(rows, model)
        case "per_channel":
            return normalize_per_channel(rows)
        case "per_patch":
            return normalize_per_patch(normalize_input(rows, model))


def gather_pixels(
    clip: Float[Tensor, "b 3 t h w"], tubelet: Tubelet, indices: Int[Tensor, "b m"]
) -> Float[Tensor, "b m p"]:
    """The colours in [0, 1] of the named tubelets; frame by frame, row by row, colours last."""
    t, h, w = tubelet
    return rearrange(patchify(clip, tubelet, indices), "b m (c t h w) -> b m (t h w c)", c=3, t=t, h=h, w=w)


def normalize_input(patches: Float[Tensor, "b m p"], model: ViTConfig) -> Float[Tensor, "b m p"]:
    """Rows of colours in [0, 1] as they enter a model: its mean taken off, divided by its deviation."""
    mean, std = (torch.tensor(x, dtype=patches.dtype, device=patches.device) for x in (model.mean, model.std))
    repeats = patches.shape[-1] // 3
    return (patches - mean.repeat(repeats)) / std.repeat(repeats)


def denormalize_input(patches: Float[Tensor, "b m p"], model: ViTConfig) -> Float[Tensor, "b m p"]:
    """The way back from `normalize_input`: colours in [0, 1]."""
    mean, std = (torch.tensor(x, dtype=patches.dtype, device=patches.device) for x in (model.mean, model.std))
    repeats = patches.shape[-1] // 3
    return patches * std.repeat(repeats) + mean.repeat(repeats)


def normalize_per_channel(patches: Float[Tensor, "b m p"]) -> Float[Tensor, "b m p"]:
    """Rows in which each colour has zero mean and unit (unbiased) variance: VideoMAE's target (section 3.1)."""
    if patches.shape[-1] == 3:
        raise InputError("a tubelet of one pixel has no deviation from its mean; take larger tubelets, or target raw")
    colours = rearrange(patches, "b m (p c) -> b m p c", c=3)
    if patches.shape[1]:  # nothing has no mean
        spread = colours.var(dim=2, keepdim=True).sqrt() + _EPS
        colours = (colours - colours.mean(dim=2, keepdim=True)) / spread
    return rearrange(colours, "b m p c -> b m (p c)")


def normalize_per_patch(patches: Float[Tensor, "b m p"]) -> Float[Tensor, "b m p"]:
    """Rows of zero mean and unit (unbiased) variance: the target of MAE (arXiv:2111.06377, section 3) and ST-MAE."""
    if not patches.shape[1]:  # nothing has no mean
        return patches
    return (patches - patches.mean(dim=2, keepdim=True)) / (patches.var(dim=2, keepdim=True) + _EPS).sqrt()
