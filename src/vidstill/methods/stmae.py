"""ST-MAE: hide nine tokens in ten of a clip, anywhere in space and time, and rebuild pixels of the hidden ones."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.block_masking import CuboidMask
from vidstill.methods.common.losses import regression_loss
from vidstill.methods.common.masking import FrameMask, Mask, RandomMask, SlotMask, SpaceMask
from vidstill.methods.common.targets import PixelTarget, compute_pixel_target
from vidstill.models.decoder import DecoderConfig
from vidstill.models.init import init_normal_weights, init_xavier_weights
from vidstill.models.vit import LARGE, ViTConfig
from vidstill.utils.types import InputError, Output

WeightInit = Literal["slowfast", "xavier", "normal", "normal_released"]
"""PySlowFast's normal weights of deviation 0.02, with biases of 0.02 in the encoder's blocks and norms; mae_st's Xavier
weights; or its option of normal ones, as meant or as released, where the embedding has a deviation of 1."""


def build_stmae_vit_config(size: ViTConfig) -> ViTConfig:
    """A size of the family as ST-MAE has it, for 16 frames of 224 × 224 pixels: a code for each place and each slot."""
    return replace(
        size,
        positions="separable",
        learned_grid=(8, 14, 14),
        class_token=True,
        attention_bias="qkv",
        mean=(0.45, 0.45, 0.45),
        std=(0.225, 0.225, 0.225),
    )


@dataclass(frozen=True, kw_only=True)
class STMAEConfig:
    """The defaults are PySlowFast's, which the published weights were made with; mae_st's others are named beside."""

    encoder: ViTConfig = build_stmae_vit_config(LARGE)
    decoder: DecoderConfig = DecoderConfig(  # for encoders of all sizes
        dim=512,
        depth=4,
        heads=8,  # mae_st: 16
        positions="learned",  # mae_st: separable
        learned_grid=(8, 14, 14),
        class_token="encoder",  # mae_st: own
        embed_bias=True,
        attention_bias="qkv",
    )
    mask: RandomMask | SpaceMask | FrameMask | CuboidMask | SlotMask = RandomMask(ratio=0.90)  # figure 4
    target: PixelTarget = "per_patch"  # pixels normalised tubelet by tubelet; "input": as they enter the encoder
    predicted_frames: int = 1  # that are rebuilt of each tubelet
    # Which they are: every second one of the clip, or as many, spread evenly from the first to the last and rounded
    # down (mae_st): 0, 2, …, 10, 12 and then 15, not 14.
    frame_selection: Literal["stride", "linspace"] = "stride"
    weight_init: WeightInit = "slowfast"  # mae_st: xavier

    def __post_init__(self) -> None:
        frames = self.encoder.tubelet[0]
        divides = self.frame_selection == "linspace" or frames % max(self.predicted_frames, 1) == 0
        if not (1 <= self.predicted_frames <= frames and divides):
            near = "a divisor of it" if self.frame_selection == "stride" else f"1 to {frames}"
            raise InputError(
                f"{self.predicted_frames} frames cannot be rebuilt of each tubelet of {frames}; take {near}"
            )

    def build(self) -> "STMAE":
        return STMAE(self)

    @property
    def target_config(self) -> ViTConfig:
        """The encoder's settings with what is rebuilt of a tubelet in the place of its tubelets."""
        return replace(self.encoder, tubelet=(self.predicted_frames, *self.encoder.tubelet[1:]))


class STMAE(nn.Module):
    """Masked Autoencoders As Spatiotemporal Learners (Feichtenhofer et al., NeurIPS 2022, arXiv:2205.09113).

    loss = mean over masked tokens p of |norm(V(p)) - rebuilt(p)|^2, V(p) being one frame of the tubelet
    """

    def __init__(self, config: STMAEConfig):
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build(config.encoder.dim, out_dim=config.target_config.pixels_per_token)
        self._init_weights(config.weight_init)

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        label: Int[Tensor, "b"] | None = None,
        seed: Int[Tensor, "b"] | None = None,
        *,
        mask: Mask | None = None,
    ) -> Output:
        """The loss of a batch of clips of colours in [0, 1]; the mask is drawn from the seeds where none is given."""
        grid = self.encoder.grid(clip)
        mask = mask or self.config.mask.draw(seed, grid)
        seen = self.encoder(clip, mask.visible)
        rebuilt = self.decoder(seen.tokens, mask.visible, mask.masked, grid, seen.cls_token)
        loss = regression_loss(rebuilt, self.compute_target(clip, mask.masked), "l2")
        return Output(loss, {"reconstruction": loss})

    def compute_target(self, clip: Float[Tensor, "b 3 t h w"], indices: Int[Tensor, "b m"]) -> Float[Tensor, "b m p"]:
        """What is to be guessed at the named tokens: see `compute_pixel_target`."""
        frames = select_predicted_frames(clip.shape[2], self.config)
        return compute_pixel_target(clip[:, :, frames], self.config.target_config, indices, self.config.target)

    def _init_weights(self, kind: WeightInit) -> None:
        """The authors' start; norms, tokens and learned positions start alike in all of them (deviation 0.02).

        The embedding counts as a linear layer, but for its bias, which keeps torch's own start as a convolution has it.
        """
        encoder, decoder = self.encoder, self.decoder
        bias = encoder.patch_embed.bias.detach().clone()
        nn.init.normal_(decoder.trunk.mask_token, std=0.02)
        match kind:
            case "slowfast":
                init_normal_weights(encoder, bias=0.02)
                for part in (decoder.trunk, decoder.norm, decoder.head):  # the layer that narrows keeps torch's own
                    init_normal_weights(part)
            case "xavier":
                init_xavier_weights(self, separate_qkv=True)
            case "normal" | "normal_released":
                init_normal_weights(self)
                if kind == "normal_released":
                    nn.init.trunc_normal_(encoder.patch_embed.weight, std=1.0, a=-2.0, b=2.0)
        with torch.no_grad():
            encoder.patch_embed.bias.copy_(bias)


def select_predicted_frames(frames: int, config: STMAEConfig) -> list[int]:
    """The numbers of the frames that are rebuilt of a clip."""
    tubelet, each = config.encoder.tubelet[0], config.predicted_frames
    if config.frame_selection == "stride":
        return list(range(0, frames, tubelet // each))
    count = frames // tubelet * each
    return [place * (frames - 1) // max(count - 1, 1) for place in range(count)]
