"""The target of a masked autoencoder: the pixels of the masked tubelets."""

from functools import lru_cache
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


@torch.no_grad()
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
    rows = patchify(clip, model.tubelet, indices)
    if not rows.shape[1]:  # no tokens have no mean
        return rows
    match kind:
        case "per_patch":  # MAE (arXiv:2111.06377, section 3) and ST-MAE
            pixels = normalize_input(_put_channels_last(rows, model.tubelet), model)
            std = _center(pixels)
            return pixels.div_((std.square() + _EPS).sqrt())
        case "per_channel":  # VideoMAE (section 3.1)
            if rows.shape[-1] == 3:
                raise InputError("a tubelet of one pixel has no variance; take larger tubelets, or --method.target raw")
            pixels = rearrange(rows, "b m (c p) -> b m c p", c=3)
            std = _center(pixels)
            target = torch.empty_like(pixels.mT, memory_format=torch.contiguous_format)
            torch.div(pixels.mT, (std + _EPS).mT, out=target)
            return rearrange(target, "b m p c -> b m (p c)")
        case "raw":
            return _put_channels_last(rows, model.tubelet)
        case "input":
            return normalize_input(_put_channels_last(rows, model.tubelet), model)


def gather_pixels(
    clip: Float[Tensor, "b 3 t h w"], tubelet: Tubelet, indices: Int[Tensor, "b m"]
) -> Float[Tensor, "b m p"]:
    """Return the pixels of the given tubelets, frame by frame, row by row, channels last.

    Args:
        clip: Colours in [0, 1].
        tubelet: Frames, rows and columns of one token, in pixels.
        indices: Token numbers.
    """
    return _put_channels_last(patchify(clip, tubelet, indices), tubelet)


def _put_channels_last(patches: Float[Tensor, "b m p"], tubelet: Tubelet) -> Float[Tensor, "b m p"]:
    t, h, w = tubelet
    return rearrange(patches, "b m (c t h w) -> b m (t h w c)", c=3, t=t, h=h, w=w)


def _center(pixels: Float[Tensor, "... p"]) -> Float[Tensor, "... 1"]:
    """Subtract each row's mean in place, and return its unbiased std.

    Torch's own `var` takes fifty times as long on a CPU.
    """
    pixels.sub_(pixels.mean(dim=-1, keepdim=True))
    return torch.linalg.vector_norm(pixels, dim=-1, keepdim=True) / (pixels.shape[-1] - 1) ** 0.5


def normalize_input(patches: Float[Tensor, "b m p"], model: ViTConfig) -> Float[Tensor, "b m p"]:
    """Normalize rows of colours in [0, 1] by a model's mean and std."""
    mean, std = _build_statistics(model.mean, model.std, patches.shape[-1] // 3, patches.dtype, patches.device)
    return (patches - mean) / std


def denormalize_input(patches: Float[Tensor, "b m p"], model: ViTConfig) -> Float[Tensor, "b m p"]:
    """Invert `normalize_input`."""
    mean, std = _build_statistics(model.mean, model.std, patches.shape[-1] // 3, patches.dtype, patches.device)
    return patches * std + mean


@lru_cache(maxsize=64)
def _build_statistics(
    mean: tuple[float, ...], std: tuple[float, ...], repeats: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "2 p"]:
    """Return mean and std of each number of a row; kept, since each copy from the host makes it wait for a device."""
    return torch.tensor([mean, std], dtype=dtype, device=device).repeat(1, repeats)
