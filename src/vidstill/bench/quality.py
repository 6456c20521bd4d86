"""How far a clip is from what it was made of: PSNR and SSIM."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from vidstill.data.decode.reader import Frames

_MAX_PSNR = 100.0  # dB, where nothing differs
_WINDOW_SIZE, _SIGMA = 11, 1.5  # of SSIM, and its two constants below, as its authors set them
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(frames: Frames, reference: Frames) -> float:
    """The peak signal-to-noise ratio of a clip in dB, over all its pixels and colours; at most 100."""
    error = float(np.mean((frames.astype(np.float32) - reference) ** 2))
    return min(_MAX_PSNR, 10 * math.log10(255**2 / error)) if error else _MAX_PSNR


def ssim(frames: Frames, reference: Frames) -> float:
    """Structural similarity (Wang et al., IEEE TIP 13, 2004) of the brightness, mean over the frames; 1 if equal."""
    one, other = _compute_luma(frames), _compute_luma(reference)
    means = _blur_gaussian(one), _blur_gaussian(other)
    variances = _blur_gaussian(one**2) - means[0] ** 2, _blur_gaussian(other**2) - means[1] ** 2
    covariance = _blur_gaussian(one * other) - means[0] * means[1]
    alike = (2 * means[0] * means[1] + _C1) / (means[0] ** 2 + means[1] ** 2 + _C1)
    return float((alike * (2 * covariance + _C2) / (variances[0] + variances[1] + _C2)).mean())


def _compute_luma(frames: Frames) -> Float[Tensor, "t 1 h w"]:
    weights = torch.tensor((0.299, 0.587, 0.114))  # ITU-R BT.601
    return reduce(torch.from_numpy(frames).float() * weights, "t h w c -> t 1 h w", "sum")


def _blur_gaussian(clip: Float[Tensor, "t 1 h w"]) -> Float[Tensor, "t 1 rows cols"]:
    """Means under a Gaussian window, where it lies within the frame."""
    places = torch.arange(_WINDOW_SIZE) - _WINDOW_SIZE // 2
    weights = torch.softmax(-(places**2) / (2 * _SIGMA**2), 0)
    down, across = rearrange(weights, "k -> 1 1 k 1"), rearrange(weights, "k -> 1 1 1 k")
    return F.conv2d(F.conv2d(clip, down), across)
