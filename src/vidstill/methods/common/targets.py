"""The target of a masked autoencoder: the pixels of the masked tubelets."""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.models.vit import ViTConfig, patchify
from vidstill.utils.types import InputError, Tubelet

PixelTarget = Literal["per_channel", "per_patch", "raw", "input"]
"""Normalized per tubelet and colour channel (VideoMAE) or per tubelet (MAE, ST-MAE) to zero mean and unit (unbiased)
variance, or not normalized: colours in [0, 1] (VideoMAE's raw pixels), or as they enter the encoder (MAE's)."""

_EPS = 1e-6  # the authors'; added to the std (VideoMAE) or to the variance (MAE)


def compute_pixel_target(
    clip: Float[Tensor, "b 3 t h w"], model: ViTConfig, indices: Int[Tensor, "b m"], kind: PixelTarget
) -> Float[Tensor, "b m p"]:
    """Return the pixel target of the given tokens, in the clip's precision.

    Args:
        clip: Colours in [0, 1].
        model: Its tubelets are used, and its mean and std where MAE does so.
        indices: Token numbers.
        kind: The normalization.

    Returns:
        One row per token, in the order of `indices`; pixels frame by frame, row by row, channels last.

    Raises:
        InputError: The clip does not divide into whole tubelets, or a tubelet has a single pixel.
    """
    rows = gather_pixels(clip, model.tubelet, indices)
    if kind == "raw" or not rows.shape[1]:  # no tokens have no mean
        return rows
    match kind:
        case "input":
            return normalize_input(rows, model)
        case "per_patch":  # MAE (arXiv:2111.06377, section 3) and ST-MAE
            rows = normalize_input(rows, model)
            return (rows - rows.mean(dim=2, keepdim=True)) / (rows.var(dim=2, keepdim=True) + _EPS).sqrt()
        case "per_channel":  # VideoMAE (section 3.1)
            if rows.shape[-1] == 3:
                raise InputError("a tubelet of one pixel has no variance; take larger tubelets, or --method.target raw")
            colours = rearrange(rows, "b m (p c) -> b m p c", c=3)
            std = colours.var(dim=2, keepdim=True).sqrt() + _EPS
            return rearrange((colours - colours.mean(dim=2, keepdim=True)) / std, "b m p c -> b m (p c)")


def gather_pixels(
    clip: Float[Tensor, "b 3 t h w"], tubelet: Tubelet, indices: Int[Tensor, "b m"]
) -> Float[Tensor, "b m p"]:
    """Return the pixels of the given tubelets, frame by frame, row by row, channels last.

    Args:
        clip: Colours in [0, 1].
        tubelet: Frames, rows and columns of one token, in pixels.
        indices: Token numbers.
    """
    t, h, w = tubelet
    return rearrange(patchify(clip, tubelet, indices), "b m (c t h w) -> b m (t h w c)", c=3, t=t, h=h, w=w)


def normalize_input(patches: Float[Tensor, "b m p"], model: ViTConfig) -> Float[Tensor, "b m p"]:
    """Normalize rows of colours in [0, 1] by a model's mean and std."""
    mean, std = _repeat_statistics(patches, model)
    return (patches - mean) / std


def denormalize_input(patches: Float[Tensor, "b m p"], model: ViTConfig) -> Float[Tensor, "b m p"]:
    """Invert `normalize_input`."""
    mean, std = _repeat_statistics(patches, model)
    return patches * std + mean


def _repeat_statistics(patches: Float[Tensor, "b m p"], model: ViTConfig) -> Float[Tensor, "2 p"]:
    statistics = torch.tensor([model.mean, model.std], dtype=patches.dtype, device=patches.device)
    return statistics.repeat(1, patches.shape[-1] // 3)
