"""VideoMAE: mask nine tubes in ten of a clip and reconstruct their pixels."""

from dataclasses import dataclass

from vidstill.methods.common.masked_autoencoder import MaskedAutoencoder
from vidstill.methods.common.masking import TubeMask
from vidstill.methods.common.method import AnyMask
from vidstill.methods.common.targets import PixelTarget
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, ViTConfig


@dataclass(frozen=True, kw_only=True)
class VideoMAEConfig:
    """VideoMAE on clips."""

    encoder: ViTConfig = BASE
    decoder: DecoderConfig = DecoderConfig(dim=384, depth=4, heads=6)
    mask: AnyMask = TubeMask(ratio=0.90)
    target: PixelTarget = "per_channel"  # normalized per tubelet and colour channel; "raw": colours in [0, 1]

    def build(self) -> "VideoMAE":
        return VideoMAE(self)


class VideoMAE(MaskedAutoencoder):
    """VideoMAE (Tong et al., NeurIPS 2022, arXiv:2203.12602).

    loss = mean over masked tokens p of |norm(V(p)) - reconstruction(p)|^2      eq. (1)
    """
