"""Visible tokens and mask tokens → a guess for each hidden token."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.init import init_xavier_weights
from vidstill.models.layers import NORM_EPS, AttentionBias, BlockConfig, build_blocks
from vidstill.models.position_embeddings import PositionEmbedding, PositionKind
from vidstill.utils.types import Grid, InputError, check_range


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A narrow transformer that fills in what the encoder did not see."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    positions: PositionKind = "sinusoid"
    learned_grid: tuple[int, int, int] | None = None  # what learned positions are for, in tokens
    # What stands before the tokens: nothing, the encoder's class token (MAE), or one of its own (mae_st)
    class_token: Literal["none", "encoder", "own"] = "none"
    embed_bias: bool = False  # of the layer that narrows the encoder's tokens
    layer_scale: float = 0.0
    drop_path: float = 0.0
    attention_bias: AttentionBias = "qv"
    norm_eps: float = NORM_EPS  # of the LayerNorms in the blocks
    final_norm_eps: float = NORM_EPS  # of the one before the head (transformers' VideoMAE has torch's 1e-5)

    def __post_init__(self) -> None:
        check_range(0, math.inf, norm_eps=self.norm_eps, final_norm_eps=self.final_norm_eps)

    @property
    def block_config(self) -> BlockConfig:
        return BlockConfig(
            dim=self.dim,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            layer_scale=self.layer_scale,
            attention_bias=self.attention_bias,
            norm_eps=self.norm_eps,
        )

    def build(self, encoder_dim: int, *, out_dim: int) -> "Decoder":
        return Decoder(self, encoder_dim, out_dim)


MAE_DECODER = DecoderConfig(  # for encoders of all sizes (arXiv:2111.06377, section 4.1)
    dim=512,
    depth=8,
    heads=16,
    positions="sincos2d",
    class_token="encoder",
    embed_bias=True,
    attention_bias="qkv",
)


class DecoderTrunk(nn.Module):
    """Blocks over [class token, seen tokens, mask tokens], each with the code of its place; gives the last of them."""

    cls_token: nn.Parameter | None

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.positions = PositionEmbedding(
            config.positions, config.dim, config.learned_grid, class_token=config.class_token != "none"
        )
        self.mask_token = nn.Parameter(torch.empty(1, config.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)  # cut off at one deviation, as the authors do
        self.cls_token = nn.Parameter(torch.zeros(1, config.dim)) if config.class_token == "own" else None
        self.blocks = build_blocks(config.block_config, config.depth, config.drop_path)
        init_xavier_weights(self.blocks)

    def forward(
        self,
        visible_tokens: Float[Tensor, "b v d"],
        visible: Int[Tensor, "b v"],
        masked: Int[Tensor, "b m"],
        grid: Grid,
        cls_token: Float[Tensor, "b k d"] | None = None,
    ) -> Float[Tensor, "b m d"]:
        """A token for each wanted place, in the order of the places.

        Args:
            cls_token: the encoder's class token, where the configuration asks for it.
        """
        tokens = self.forward_blocks(self.concat_tokens(visible_tokens, visible, masked, grid, cls_token))
        return tokens[:, tokens.shape[1] - masked.shape[1] :]

    def concat_tokens(
        self,
        visible_tokens: Float[Tensor, "b v d"],
        visible: Int[Tensor, "b v"],
        masked: Int[Tensor, "b m"],
        grid: Grid,
        cls_token: Float[Tensor, "b k d"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """What enters the first block: the class token, the seen tokens, a mask token for each wanted place."""
        codes = self.positions(grid, visible_tokens.device).to(self.mask_token.dtype)
        tokens = [visible_tokens + codes[visible], self.mask_token + codes[masked]]
        if self.config.class_token != "none":
            first = self.cls_token.expand(len(visible_tokens), 1, -1) if self.cls_token is not None else cls_token
            if first is None or first.shape[1] != 1:
                raise InputError(
                    "the decoder takes the encoder's class token, which it has not; set class_token of the encoder, or "
                    "that of the decoder to none"
                )
            tokens.insert(0, first if self.positions.cls_embedding is None else first + self.positions.cls_embedding)
        return torch.cat(tokens, dim=1)

    def forward_blocks(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """All tokens as the last block leaves them."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class Decoder(nn.Module):
    """Narrows the encoder's tokens, fills in the hidden ones, and maps each to what is to be guessed."""

    def __init__(self, config: DecoderConfig, encoder_dim: int, out_dim: int):
        super().__init__()
        # the layer that narrows keeps torch's own start, as VideoMAE's authors' does
        self.embed = nn.Linear(encoder_dim, config.dim, bias=config.embed_bias)
        self.trunk = DecoderTrunk(config)
        self.norm = nn.LayerNorm(config.dim, eps=config.final_norm_eps)
        self.head = nn.Linear(config.dim, out_dim)
        init_xavier_weights(self.head)

    def forward(
        self,
        visible_tokens: Float[Tensor, "b v d_encoder"],
        visible: Int[Tensor, "b v"],
        masked: Int[Tensor, "b m"],
        grid: Grid,
        cls_token: Float[Tensor, "b k d_encoder"] | None = None,
    ) -> Float[Tensor, "b m p"]:
        """A guess for each masked token, in the order of `masked`.

        Args:
            cls_token: the encoder's class token, where the configuration asks for it.
        """
        narrow = self.embed(cls_token) if cls_token is not None and self.trunk.config.class_token == "encoder" else None
        return self.head(self.norm(self.trunk(self.embed(visible_tokens), visible, masked, grid, narrow)))
