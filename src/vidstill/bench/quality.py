"""PSNR and SSIM of a clip against its source."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from vidstill.data.decode.reader import Frames
from vidstill.utils.types import LUMA_WEIGHTS

_MAX_PSNR = 100.0  # dB, for equal clips
_WINDOW_SIZE, _SIGMA = 11, 1.5  # SSIM's window and constants, as its authors set them
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(frames: Frames, reference: Frames) -> float:
    """Return the peak signal-to-noise ratio in dB over all pixels and channels; at most 100."""
    error = float(np.mean((frames.astype(np.float32) - reference) ** 2))
    return min(_MAX_PSNR, 10 * math.log10(255**2 / error)) if error else _MAX_PSNR


def ssim(frames: Frames, reference: Frames) -> float:
    """Return the structural similarity (Wang et al., IEEE TIP 13, 2004) of the luma, a mean over frames; 1 if equal."""
    x, y = _compute_luma(frames), _compute_luma(reference)
    mean_x, mean_y = _blur_gaussian(x), _blur_gaussian(y)
    variances = _blur_gaussian(x**2) - mean_x**2 + _blur_gaussian(y**2) - mean_y**2
    covariance = _blur_gaussian(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return float((luminance * (2 * covariance + _C2) / (variances + _C2)).mean())


def _compute_luma(frames: Frames) -> Float[Tensor, "t 1 h w"]:
    weights = torch.tensor(LUMA_WEIGHTS)
    return reduce(torch.from_numpy(frames).float() * weights, "t h w c -> t 1 h w", "sum")


def _blur_gaussian(clip: Float[Tensor, "t 1 h w"]) -> Float[Tensor, "t 1 rows cols"]:
    """Return means under a Gaussian window, at the positions where it lies within the frame."""
    offsets = torch.arange(_WINDOW_SIZE) - _WINDOW_SIZE // 2
    weights = torch.softmax(-(offsets**2) / (2 * _SIGMA**2), 0)
    vertical, horizontal = rearrange(weights, "k -> 1 1 k 1"), rearrange(weights, "k -> 1 1 1 k")
    return F.conv2d(F.conv2d(clip, vertical), horizontal)
