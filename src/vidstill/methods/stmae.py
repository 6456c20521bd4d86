"""ST-MAE: mask nine tokens in ten of a clip, anywhere in space and time, and reconstruct pixels of the masked ones."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.methods.common.masked_autoencoder import MaskedAutoencoder
from vidstill.methods.common.masking import RandomMask
from vidstill.methods.common.method import AnyMask, Clips
from vidstill.methods.common.targets import PixelTarget, compute_pixel_target
from vidstill.models.decoder import DecoderConfig
from vidstill.models.layers import init_normal_weights, init_xavier_weights
from vidstill.models.vit import LARGE, ViTConfig
from vidstill.utils.types import InputError

WeightInit = Literal["slowfast", "xavier", "normal", "normal_released"]
"""PySlowFast: normal weights of std 0.02, and biases of 0.02 in the encoder's blocks and norms. mae_st: Xavier weights,
or optionally normal ones, as intended or as released, where the patch embedding has std 1."""


def build_stmae_vit_config(size: ViTConfig) -> ViTConfig:
    """Return ST-MAE's encoder of a size, for 16 frames of 224 × 224 pixels: separable space and time embeddings."""
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
class STMAEQuirks:
    """Where the two released codes differ. Defaults: PySlowFast, which the published weights were trained with."""

    # Frames of the target: every second one of the clip, or equally many spread evenly from the first to the last and
    # rounded down (mae_st): 0, 2, …, 10, 12 and then 15 instead of 14.
    frame_selection: Literal["stride", "linspace"] = "stride"
    weight_init: WeightInit = "slowfast"  # mae_st: xavier


@dataclass(frozen=True, kw_only=True)
class STMAEConfig:
    """ST-MAE on clips."""

    encoder: ViTConfig = build_stmae_vit_config(LARGE)
    decoder: DecoderConfig = DecoderConfig(  # the same for encoders of all sizes
        dim=512,
        depth=4,
        heads=8,  # mae_st: 16
        positions="learned",  # mae_st: separable
        learned_grid=(8, 14, 14),
        class_token="encoder",  # mae_st: own
        embed_bias=True,
        attention_bias="qkv",
    )
    mask: AnyMask = RandomMask(ratio=0.90)  # figure 4
    target: PixelTarget = "per_patch"  # normalized per tubelet; "input": pixels as they enter the encoder
    predicted_frames: int = 1  # frames of each tubelet that are reconstructed
    released: STMAEQuirks = STMAEQuirks()

    def __post_init__(self) -> None:
        frames = self.encoder.tubelet[0]
        linspace = self.released.frame_selection == "linspace"
        if not 1 <= self.predicted_frames <= frames or not (linspace or frames % self.predicted_frames == 0):
            raise InputError(
                f"{self.predicted_frames} frames of each tubelet of {frames} cannot be reconstructed; "
                f"take {f'1 to {frames}' if linspace else 'a divisor of it'}"
            )

    def build(self) -> "STMAE":
        return STMAE(self)

    @property
    def target_config(self) -> ViTConfig:
        """The encoder config whose tubelets are what is reconstructed of each tubelet."""
        return replace(self.encoder, tubelet=(self.predicted_frames, *self.encoder.tubelet[1:]))


class STMAE(MaskedAutoencoder):
    """Masked Autoencoders As Spatiotemporal Learners (Feichtenhofer et al., NeurIPS 2022, arXiv:2205.09113).

    loss = mean over masked tokens p of |norm(V(p)) - reconstruction(p)|^2, V(p) being one frame of the tubelet
    """

    config: STMAEConfig

    def __init__(self, config: STMAEConfig):
        super().__init__(config, out_dim=config.target_config.pixels_per_token)
        self._init_weights(config.released.weight_init)

    def compute_target(self, clip: Clips, indices: Int[Tensor, "b m"]) -> Float[Tensor, "b m p"]:
        frames = select_predicted_frames(clip.shape[2], self.config)
        return compute_pixel_target(clip[:, :, frames], self.config.target_config, indices, self.config.target)

    def _init_weights(self, kind: WeightInit) -> None:
        """Initialise as the released codes do; norms, tokens and learned positions are the same in all (std 0.02).

        The patch embedding is initialised as a linear layer, but its bias keeps torch's default, as a convolution's.
        """
        encoder, decoder = self.encoder, self.decoder
        bias = encoder.patch_embed.bias.detach().clone()
        nn.init.normal_(decoder.trunk.mask_token, std=0.02)
        match kind:
            case "slowfast":
                init_normal_weights(encoder, bias=0.02)
                for part in (decoder.trunk, decoder.norm, decoder.head):  # decoder.embed keeps torch's default
                    init_normal_weights(part)
            case "xavier":
                init_xavier_weights(self, separate_qkv=True)
            case "normal" | "normal_released":
                init_normal_weights(self)
                if kind == "normal_released":
                    nn.init.trunc_normal_(encoder.patch_embed.weight, std=1.0, a=-2.0, b=2.0)
        with torch.no_grad():
            encoder.patch_embed.bias.copy_(bias)


def select_predicted_frames(num_frames: int, config: STMAEConfig) -> list[int]:
    """Return the numbers of a clip's frames that are reconstructed."""
    tubelet, per_tubelet = config.encoder.tubelet[0], config.predicted_frames
    if config.released.frame_selection == "stride":
        return list(range(0, num_frames, tubelet // per_tubelet))
    count = num_frames // tubelet * per_tubelet
    return [index * (num_frames - 1) // max(count - 1, 1) for index in range(count)]
