"""The masked autoencoder under ImageMAE, VideoMAE and ST-MAE, and under AMD and DMAE, which add a teacher to it."""

from collections.abc import Collection
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.losses import regression_loss
from vidstill.methods.common.masking import Mask
from vidstill.methods.common.method import Clips, Method, MethodConfig
from vidstill.methods.common.targets import PixelTarget, compute_pixel_target
from vidstill.models.decoder import DecoderConfig
from vidstill.models.layers import init_xavier_weights
from vidstill.models.vit import Features
from vidstill.utils.types import Output


@runtime_checkable
class MaskedAutoencoderConfig(MethodConfig, Protocol):
    @property
    def decoder(self) -> DecoderConfig: ...
    @property
    def target(self) -> PixelTarget: ...


class MaskedAutoencoder(Method):
    """Encode the visible tokens, decode the masked ones, regress their pixels.

    Args:
        out_dim: Predicted numbers per token; None: all pixels of a tubelet.
    """

    config: MaskedAutoencoderConfig

    def __init__(self, config: MaskedAutoencoderConfig, *, out_dim: int | None = None):
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build(config.encoder.dim, out_dim=out_dim or config.encoder.pixels_per_token)

    def compute_loss(self, clip: Clips, mask: Mask) -> Output:
        loss = self.forward_loss(clip, self.forward_decoder(clip, self.forward_encoder(clip, mask), mask), mask)
        return Output(loss, {"reconstruction": loss})

    def forward_encoder(self, clip: Clips, mask: Mask, layers: Collection[int] = ()) -> Features:
        """Encode the visible tokens.

        Args:
            layers: Blocks, counted from 1, whose outputs are returned as well.
        """
        return self.encoder(clip, mask.visible, layers=layers)

    def forward_decoder(self, clip: Clips, features: Features, mask: Mask) -> Float[Tensor, "b m p"]:
        """Reconstruct the masked tokens from the encoded visible ones; of the clip only the size is used."""
        return self.decoder(features, mask.visible, mask.masked, self.encoder.grid(clip))

    def forward_loss(self, clip: Clips, reconstruction: Float[Tensor, "b m p"], mask: Mask) -> Float[Tensor, ""]:
        """Return the mean squared error over masked tokens and pixels."""
        return regression_loss(reconstruction, self.compute_target(clip, mask.masked), "l2")

    def compute_target(self, clip: Clips, indices: Int[Tensor, "b m"]) -> Float[Tensor, "b m p"]:
        """Return the pixel target of the given tokens: see `compute_pixel_target`."""
        return compute_pixel_target(clip, self.config.encoder, indices, self.config.target)

    def init_mae_weights(self) -> None:
        """Initialise as MAE's released code does where VideoMAE's, the default here, differs.

        Xavier weights for the patch embedding (its bias stays torch's) and the decoder's embedding; mask token of std
        0.02.
        """
        nn.init.xavier_uniform_(self.encoder.patch_embed.weight)
        init_xavier_weights(self.decoder.embed)
        nn.init.normal_(self.decoder.trunk.mask_token, std=0.02)
