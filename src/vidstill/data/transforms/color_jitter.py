"""Colour jitter of clips on the device, the same for every frame of a clip."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.utils.rng import draw_uniform
from vidstill.utils.types import LUMA_WEIGHTS, check_range


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Random brightness, contrast, channel gains and grayscale.

    Where few recordings share a light, their tint gives the class away, and a model learns it. As SimCLR's
    (arXiv:2002.05709, appendix A), with channel gains in place of hue and saturation, as light and white balance differ
    in gain. Each factor is draws uniformly from 1 - amount to 1 + amount.
    """

    brightness: float = 0.3  # amount for the clip's mean
    contrast: float = 0.3  # amount for a pixel's difference from that mean
    channel_gain: float = 0.3  # amount for each colour channel
    grayscale_probability: float = 0.5  # probability of removing colours (BT.601 luma)

    def __post_init__(self) -> None:
        check_range(0, 1, brightness=self.brightness, contrast=self.contrast, channel_gain=self.channel_gain)
        check_range(0, 1, grayscale_probability=self.grayscale_probability)

    def apply(self, clip: Float[Tensor, "b 3 t h w"], seeds: Int[Tensor, "b"]) -> Float[Tensor, "b 3 t h w"]:
        """Change the clips' colours, which stay in [0, 1]."""
        draws = rearrange(draw_uniform(seeds, "colour", 6), "b n -> n b 1 1 1 1")
        brightness = 1 + self.brightness * (2 * draws[0] - 1)
        contrast = 1 + self.contrast * (2 * draws[1] - 1)
        gain = 1 + self.channel_gain * (2 * rearrange(draws[2:5], "c b 1 t h w -> b c t h w") - 1)
        mean = clip.mean(dim=(1, 2, 3, 4), keepdim=True)
        changed = (((clip - mean) * contrast + mean * brightness) * gain).clamp(0, 1)
        luma = torch.tensor(LUMA_WEIGHTS, device=clip.device, dtype=clip.dtype)
        grey = torch.einsum("bcthw,c->bthw", changed, luma)[:, None]
        return torch.where(draws[5] < self.grayscale_probability, grey, changed)
