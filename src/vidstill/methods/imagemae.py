"""ImageMAE: mask three patches in four of an image and reconstruct their pixels."""

from dataclasses import dataclass

from vidstill.methods.common.masked_autoencoder import MaskedAutoencoder
from vidstill.methods.common.masking import RandomMask
from vidstill.methods.common.method import AnyMask
from vidstill.methods.common.targets import PixelTarget
from vidstill.models.decoder import MAE_DECODER, DecoderConfig
from vidstill.models.vit import IMAGE_BASE, ViTConfig


@dataclass(frozen=True, kw_only=True)
class ImageMAEConfig:
    """MAE on images, clips of one frame."""

    encoder: ViTConfig = IMAGE_BASE
    decoder: DecoderConfig = MAE_DECODER
    mask: AnyMask = RandomMask(ratio=0.75)
    target: PixelTarget = "per_patch"  # "input": pixels as they enter the encoder

    def build(self) -> "ImageMAE":
        return ImageMAE(self)


class ImageMAE(MaskedAutoencoder):
    """Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv:2111.06377).

    loss = mean over masked patches p of |norm(I(p)) - reconstruction(p)|^2     section 3, "Reconstruction target"
    """

    def __init__(self, config: ImageMAEConfig):
        super().__init__(config)
        self.init_mae_weights()
