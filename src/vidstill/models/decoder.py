"""The decoder: visible tokens and mask tokens → a prediction for each masked token."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.layers import NORM_EPS, TransformerConfig, init_xavier_weights
from vidstill.models.position_embeddings import PositionEmbedding
from vidstill.models.vit import Features
from vidstill.utils.types import Grid, InputError, check_range


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(TransformerConfig):
    """A narrow transformer that reconstructs what the encoder did not see."""

    # The first token: none, the encoder's class token (MAE), or the decoder's own (mae_st)
    class_token: Literal["none", "encoder", "own"] = "none"
    embed_bias: bool = False  # bias of the layer that projects the encoder's tokens
    final_norm_eps: float = NORM_EPS  # eps of the LayerNorm before the head (transformers' VideoMAE: torch's 1e-5)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(0, math.inf, final_norm_eps=self.final_norm_eps)

    def build(self, encoder_dim: int, *, out_dim: int) -> "Decoder":
        return Decoder(self, encoder_dim, out_dim)


MAE_DECODER = DecoderConfig(  # for encoders of all sizes (arXiv:2111.06377, section 4.1)
    dim=512, depth=8, heads=16, positions="sincos2d", class_token="encoder", embed_bias=True, attention_bias="qkv"
)


class DecoderTrunk(nn.Module):
    """Blocks over [class token, visible tokens, mask tokens] with position embeddings; returns the masked tokens."""

    cls_token: nn.Parameter | None

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.positions = PositionEmbedding(
            config.positions, config.dim, config.learned_grid, class_token=config.class_token != "none"
        )
        self.mask_token = nn.Parameter(torch.empty(1, config.dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)  # truncated at one std, as the authors do
        self.cls_token = nn.Parameter(torch.zeros(1, config.dim)) if config.class_token == "own" else None
        self.blocks = config.build_blocks()
        init_xavier_weights(self.blocks)

    def forward(
        self,
        visible_tokens: Float[Tensor, "b v d"],
        visible: Int[Tensor, "b v"],
        masked: Int[Tensor, "b m"],
        grid: Grid,
        cls_token: Float[Tensor, "b k d"] | None = None,
    ) -> Float[Tensor, "b m d"]:
        """Return one token per masked token, in the order of `masked`.

        Args:
            visible_tokens: Projected to the decoder's width.
            visible: Their token numbers.
            masked: Token numbers to reconstruct.
            grid: All tokens of the clip.
            cls_token: The encoder's class token, projected as well, if the config has it.
        """
        positions = self.positions(grid, visible_tokens.device).to(self.mask_token.dtype)
        parts = [visible_tokens + positions[visible], self.mask_token + positions[masked]]
        if self.config.class_token != "none":
            first = self.cls_token.expand(len(visible_tokens), 1, -1) if self.cls_token is not None else cls_token
            if first is None or first.shape[1] != 1:
                raise InputError(
                    "the decoder needs the encoder's class token, and the encoder has none; give "
                    "--method.encoder.class-token or --method.decoder.class-token none"
                )
            parts.insert(0, first if self.positions.cls_embedding is None else first + self.positions.cls_embedding)
        tokens = torch.cat(parts, dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, tokens.shape[1] - masked.shape[1] :]


class Decoder(nn.Module):
    """Project the encoder's tokens, run the blocks, and predict the target of each masked token."""

    def __init__(self, config: DecoderConfig, encoder_dim: int, out_dim: int):
        super().__init__()
        self.embed = nn.Linear(encoder_dim, config.dim, bias=config.embed_bias)  # torch's weights, as VideoMAE's code
        self.trunk = DecoderTrunk(config)
        self.norm = nn.LayerNorm(config.dim, eps=config.final_norm_eps)
        self.head = nn.Linear(config.dim, out_dim)
        init_xavier_weights(self.head)

    def forward(
        self, features: Features, visible: Int[Tensor, "b v"], masked: Int[Tensor, "b m"], grid: Grid
    ) -> Float[Tensor, "b m p"]:
        """Return one prediction per masked token, in the order of `masked`.

        Args:
            features: The encoder's, of the visible tokens.
            visible: Their token numbers.
            masked: Token numbers to reconstruct.
            grid: All tokens of the clip.
        """
        cls_token = self.embed(features.cls_token) if self.trunk.config.class_token == "encoder" else None
        return self.head(self.norm(self.trunk(self.embed(features.tokens), visible, masked, grid, cls_token)))
