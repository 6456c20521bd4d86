"""Colour jitter for clips, on the device: other lights and other cameras, the same for every frame of a clip."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from vidstill.utils.rng import draw_uniform
from vidstill.utils.types import check_range

_LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """What should not tell the class: where few recordings share a light, their tint does, and a model learns it.

    As SimCLR's (arXiv:2002.05709, appendix A), with a gain for each colour in the place of its hue and saturation: that
    is what the light and a camera's white balance do. Each factor is drawn evenly from 1 - amount to 1 + amount.

    Args:
        brightness: of the clip's mean.
        contrast: of what a pixel differs from that mean.
        channel_gain: of each colour by itself.
        grayscale_probability: the probability that colours are taken out (BT.601 luma).
    """

    brightness: float = 0.3
    contrast: float = 0.3
    channel_gain: float = 0.3
    grayscale_probability: float = 0.5

    def __post_init__(self) -> None:
        check_range(
            0,
            1,
            brightness=self.brightness,
            contrast=self.contrast,
            tint=self.channel_gain,
            grey=self.grayscale_probability,
        )

    def apply(self, clip: Float[Tensor, "b 3 t h w"], seeds: Int[Tensor, "b"]) -> Float[Tensor, "b 3 t h w"]:
        """The clips in other colours, which stay in [0, 1]."""
        drawn = rearrange(draw_uniform(seeds, "colour", 6), "b n -> n b 1 1 1 1")
        brightness = 1 + self.brightness * (2 * drawn[0] - 1)
        contrast = 1 + self.contrast * (2 * drawn[1] - 1)
        tint = 1 + self.channel_gain * (2 * rearrange(drawn[2:5], "c b 1 t h w -> b c t h w") - 1)
        mean = clip.mean(dim=(1, 2, 3, 4), keepdim=True)
        changed = (((clip - mean) * contrast + mean * brightness) * tint).clamp(0, 1)
        luma = torch.tensor(_LUMA_WEIGHTS, device=clip.device, dtype=clip.dtype)
        grey = torch.einsum("bcthw,c->bthw", changed, luma)[:, None]
        return torch.where(drawn[5] < self.grayscale_probability, grey, changed)
