"""VideoMAE: hide nine tubes in ten of a clip, and rebuild their pixels."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.losses import regression_loss
from vidstill.methods.common.masking import Mask, TubeMask
from vidstill.methods.common.targets import PixelTarget, compute_pixel_target
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import BASE, ViTConfig
from vidstill.utils.types import Output


@dataclass(frozen=True, kw_only=True)
class VideoMAEConfig:
    encoder: ViTConfig = BASE
    decoder: DecoderConfig = DecoderConfig(dim=384, depth=4, heads=6)
    mask: TubeMask = TubeMask(ratio=0.90)
    target: PixelTarget = "per_channel"  # pixels normalised colour by colour, patch by patch, or as they are

    def build(self) -> "VideoMAE":
        return VideoMAE(self)


class VideoMAE(nn.Module):
    """VideoMAE (Tong et al., NeurIPS 2022, arXiv:2203.12602).

    loss = mean over masked tokens p of |norm(V(p)) - rebuilt(p)|^2        eq. (1)
    """

    def __init__(self, config: VideoMAEConfig):
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build(config.encoder.dim, out_dim=config.encoder.pixels_per_token)

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        label: Int[Tensor, "b"] | None = None,
        seed: Int[Tensor, "b"] | None = None,
        *,
        mask: Mask | None = None,
    ) -> Output:
        """The loss of a batch of clips of colours in [0, 1]; the mask is drawn from the seeds where none is given.

        The labels are there because every task is given what the loader gives; they are not looked at.
        """
        grid = self.encoder.grid(clip)
        mask = mask or self.config.mask.draw(seed, grid)
        seen = self.encoder(clip, mask.visible)
        rebuilt = self.decoder(seen.tokens, mask.visible, mask.masked, grid, seen.cls_token)
        target = compute_pixel_target(clip, self.config.encoder, mask.masked, self.config.target)
        loss = regression_loss(rebuilt, target, "l2")
        return Output(loss, {"reconstruction": loss})
