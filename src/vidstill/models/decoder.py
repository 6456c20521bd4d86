"""Visible tokens and mask tokens → a guess for each hidden token."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.layers import NORM_EPS, AttentionBias, BlockConfig, initialise, stack
from vidstill.models.positions import FixedPositions, position_table
from vidstill.types import Grid


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A narrow transformer that fills in what the encoder did not see."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    positions: FixedPositions = "sinusoid"
    layer_scale: float = 0.0
    drop_path: float = 0.0
    attention_bias: AttentionBias = "qv"

    def build(self, encoder_dim: int, *, out_dim: int) -> "Decoder":
        return Decoder(self, encoder_dim, out_dim)


class Infill(nn.Module):
    """Blocks over [seen tokens, mask tokens], each with the code of the place it stands for; gives the latter."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.mask_token = nn.Parameter(torch.empty(config.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)  # cut off at one deviation, as the authors do
        blocks = BlockConfig(
            dim=config.dim,
            heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            layer_scale=config.layer_scale,
            attention_bias=config.attention_bias,
        )
        self.blocks = stack(blocks, config.depth, config.drop_path)
        initialise(self.blocks)

    def forward(
        self,
        seen: Float[Tensor, "b v d"],
        visible: Int[Tensor, "b v"],
        wanted: Int[Tensor, "b m"],
        grid: Grid,
    ) -> Float[Tensor, "b m d"]:
        """A token for each wanted place, in the order of the places."""
        tokens = self.joined(seen, visible, wanted, grid)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, visible.shape[1] :]

    def joined(
        self,
        seen: Float[Tensor, "b v d"],
        visible: Int[Tensor, "b v"],
        wanted: Int[Tensor, "b m"],
        grid: Grid,
    ) -> Float[Tensor, "b n d"]:
        """What enters the first block: the seen tokens, then a mask token for each wanted place, with positions."""
        codes = position_table(self.config.positions, grid, self.config.dim, seen.device).to(self.mask_token.dtype)
        return torch.cat([seen + codes[visible], self.mask_token + codes[wanted]], dim=1)


class Decoder(nn.Module):
    """Narrows the encoder's tokens, fills in the hidden ones, and maps each to what is to be guessed."""

    def __init__(self, config: DecoderConfig, encoder_dim: int, out_dim: int):
        super().__init__()
        self.project = nn.Linear(encoder_dim, config.dim, bias=False)  # keeps torch's own start, as the authors' does
        self.infill = Infill(config)
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.head = nn.Linear(config.dim, out_dim)
        initialise(self.head)

    def forward(
        self,
        seen: Float[Tensor, "b v d_encoder"],
        visible: Int[Tensor, "b v"],
        masked: Int[Tensor, "b m"],
        grid: Grid,
    ) -> Float[Tensor, "b m p"]:
        """A guess for each masked token, in the order of `masked`."""
        return self.head(self.norm(self.infill(self.project(seen), visible, masked, grid)))
