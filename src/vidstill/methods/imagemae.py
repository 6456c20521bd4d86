"""Image MAE: hide three patches in four of an image, and rebuild their pixels."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.init import init_mae_weights
from vidstill.methods.common.losses import regression_loss
from vidstill.methods.common.masking import Mask, RandomMask
from vidstill.methods.common.targets import PixelTarget, compute_pixel_target
from vidstill.models.decoder import MAE_DECODER, DecoderConfig
from vidstill.models.vit import IMAGE_BASE, ViTConfig
from vidstill.utils.types import Output


@dataclass(frozen=True, kw_only=True)
class ImageMAEConfig:
    encoder: ViTConfig = IMAGE_BASE
    decoder: DecoderConfig = MAE_DECODER
    mask: RandomMask = RandomMask(ratio=0.75)
    target: PixelTarget = "per_patch"  # pixels normalised patch by patch; "input": as they enter the encoder

    def build(self) -> "ImageMAE":
        return ImageMAE(self)


class ImageMAE(nn.Module):
    """Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv:2111.06377).

    loss = mean over masked patches p of |norm(I(p)) - rebuilt(p)|^2        section 3, "Reconstruction target"
    """

    def __init__(self, config: ImageMAEConfig):
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build(config.encoder.dim, out_dim=config.encoder.pixels_per_token)
        init_mae_weights(self.encoder, self.decoder)

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        label: Int[Tensor, "b"] | None = None,
        seed: Int[Tensor, "b"] | None = None,
        *,
        mask: Mask | None = None,
    ) -> Output:
        """The loss of a batch of images, clips of one frame; the mask is drawn from the seeds where none is given."""
        grid = self.encoder.grid(clip)
        mask = mask or self.config.mask.draw(seed, grid)
        seen = self.encoder(clip, mask.visible)
        rebuilt = self.decoder(seen.tokens, mask.visible, mask.masked, grid, seen.cls_token)
        target = compute_pixel_target(clip, self.config.encoder, mask.masked, self.config.target)
        loss = regression_loss(rebuilt, target, "l2")
        return Output(loss, {"reconstruction": loss})
