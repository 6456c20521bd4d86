"""Attention, MLP and block of a plain pre-norm vision transformer (Dosovitskiy et al., arXiv:2010.11929)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vidstill.models.attention import AttentionMap, compute_attention, compute_attention_logits
from vidstill.models.position_embeddings import PositionKind
from vidstill.models.relative_positions import RelativePositionEmbedding, TokenCoordinates
from vidstill.utils.types import Grid, InputError, check_range

NORM_EPS = 1e-6  # of all papers here; torch's default is 1e-5, transformers' VideoMAE has 1e-12

_MAX_DEPTH = 10_000  # blocks
_MAX_GRID_TOKENS = 2**16  # the table of a wide model's positions takes 1 GB then

AttentionBias = Literal["qkv", "qv", "none"]
"""Biases besides the output's: of all three (MAE, ST-MAE), of queries and values (VideoMAE), or none."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A stack of blocks and the position embeddings of its tokens: what encoders and decoders have in common."""

    dim: int  # width: numbers per token; the heads divide it
    depth: int  # blocks
    heads: int  # attention heads per block
    mlp_ratio: float = 4.0  # hidden width of a block's MLP, in widths
    # position embeddings: fixed over the token's index (sinusoid: VideoMAE), fixed by rows and columns (sincos2d: MAE)
    # and time (sincos3d: MVD), or learned for each token, or for its time and place apart (separable: ST-MAE)
    positions: PositionKind = "sinusoid"
    # Grid of learned and relative positions, in tokens, and of fixed ones that are resized for other grids.
    learned_grid: tuple[int, int, int] | None = None
    layer_scale: float = 0.0  # initial value of the branch scales; 0: none
    drop_path: float = 0.0  # in the last block; rises linearly from 0
    attention_bias: AttentionBias = "qv"  # biases of queries, keys, values (MAE), not of keys (VideoMAE), or none
    norm_eps: float = NORM_EPS  # eps of the LayerNorms in the blocks

    def __post_init__(self) -> None:
        check_range(1, math.inf, dim=self.dim, heads=self.heads)
        check_range(0, _MAX_DEPTH, depth=self.depth)
        check_range(0, math.inf, mlp_ratio=self.mlp_ratio, layer_scale=self.layer_scale)
        check_range(0, math.inf, norm_eps=self.norm_eps)
        check_range(0, 1, exclusive=True, drop_path=self.drop_path)
        for side in self.learned_grid or ():
            check_range(1, math.inf, learned_grid=side)
        if (num_tokens := math.prod(self.learned_grid or ())) > _MAX_GRID_TOKENS:
            raise InputError(f"learned-grid has {num_tokens} tokens; take a grid of at most {_MAX_GRID_TOKENS}")

    @property
    def relative_grid(self) -> Grid | None:
        """The grid that relative positions are learned on; None: there are none."""
        return None

    def build_blocks(self) -> nn.ModuleList:
        rates = torch.linspace(0, self.drop_path, self.depth, device="cpu").tolist()
        return nn.ModuleList(Block(self, rate) for rate in rates)


def choose_num_heads(dim: int) -> int:
    """Return the number of heads that divides a width into parts of 64 channels, or the next lower one that divides."""
    return next(heads for heads in range(max(1, dim // 64), 0, -1) if dim % heads == 0)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        if config.dim % config.heads:
            raise InputError(f"{config.heads} heads do not divide a width of {config.dim}; take a divisor of it")
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.attention_bias == "qkv")
        biased = config.attention_bias == "qv"
        self.q_bias = nn.Parameter(torch.zeros(config.dim)) if biased else None
        self.v_bias = nn.Parameter(torch.zeros(config.dim)) if biased else None
        self.proj = nn.Linear(config.dim, config.dim)
        grid = config.relative_grid
        self.rel_pos = RelativePositionEmbedding(config.dim // config.heads, grid) if grid else None

    def forward(
        self, tokens: Float[Tensor, "b n d"], coordinates: TokenCoordinates | None = None
    ) -> Float[Tensor, "b n d"]:
        return self._merge_heads(compute_attention(*self.project_heads(tokens, coordinates)))

    def compute_map(self, tokens: Float[Tensor, "b n d"], coordinates: TokenCoordinates | None = None) -> AttentionMap:
        """Return the logits and values that `forward` uses."""
        queries, keys, values = self.project_heads(tokens, coordinates)
        return AttentionMap(compute_attention_logits(queries, keys), values)

    def apply_map(self, attention_map: AttentionMap) -> Float[Tensor, "b n d"]:
        """Return the output of `forward` from its logits and values."""
        return self._merge_heads(attention_map.logits.softmax(dim=-1) @ attention_map.values)

    def project_heads(
        self, tokens: Float[Tensor, "b n d"], coordinates: TokenCoordinates | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, by head; with relative positions, the first two are longer."""
        bias: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(tokens, self.qkv.weight, bias)
        queries, keys, values = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        if self.rel_pos is not None and coordinates is not None:
            queries, keys = self.rel_pos(queries, keys, coordinates)
        return queries, keys, values

    def _merge_heads(self, heads: Float[Tensor, "b heads n d_head"]) -> Float[Tensor, "b n d"]:
        return self.proj(rearrange(heads, "b heads n d -> b n (heads d)"))


class MLP(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        hidden = int(config.dim * config.mlp_ratio)
        self.fc1 = nn.Linear(config.dim, hidden)
        self.fc2 = nn.Linear(hidden, config.dim)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """tokens + attention(norm(tokens)), then the same with the MLP; branches may be dropped or scaled.

    Stochastic depth (Huang et al., arXiv:1603.09382): a branch is dropped per clip with probability `drop_path`, and
    scaled up otherwise.
    """

    regions = ("add_branches", "compute_attention_map")  # what may be compiled and recomputed: engine/protocols.py

    def __init__(self, config: TransformerConfig, drop_path: float = 0.0):
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.mlp = MLP(config)
        self.gamma_1, self.gamma_2 = (
            nn.Parameter(torch.full((config.dim,), config.layer_scale)) if config.layer_scale > 0 else None
            for _ in range(2)
        )

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        attention_map: AttentionMap | None = None,
        coordinates: TokenCoordinates | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Return the block's output.

        Args:
            tokens: Its input.
            attention_map: Result of `compute_attention_map` for these tokens, if it is computed already.
            coordinates: Of the tokens, for relative positions.
        """
        return self.add_branches(tokens, attention_map, coordinates, *(self._draw_drop_path(tokens) for _ in range(2)))

    def add_branches(
        self,
        tokens: Float[Tensor, "b n d"],
        attention_map: AttentionMap | None,
        coordinates: TokenCoordinates | None,
        attention_factor: Float[Tensor, "b 1 1"] | None,
        mlp_factor: Float[Tensor, "b 1 1"] | None,
    ) -> Float[Tensor, "b n d"]:
        """Return the block's output without any random draw: what can be compiled; see `forward`.

        Args:
            attention_factor: What each clip's attention is multiplied by; None: 1.
            mlp_factor: What each clip's MLP is multiplied by; None: 1.
        """
        if attention_map is None:
            mixed = self.attn(self.norm1(tokens), coordinates)
        else:
            mixed = self.attn.apply_map(attention_map)
        tokens = tokens + _multiply(mixed, self.gamma_1, attention_factor)
        return tokens + _multiply(self.mlp(self.norm2(tokens)), self.gamma_2, mlp_factor)

    def compute_attention_map(
        self, tokens: Float[Tensor, "b n d"], coordinates: TokenCoordinates | None = None
    ) -> AttentionMap:
        """Return the block's attention on its input."""
        return self.attn.compute_map(self.norm1(tokens), coordinates)

    def _draw_drop_path(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b 1 1"] | None:
        """Return what each clip's branch is multiplied by: 0, or the inverse of the probability that it is kept."""
        if not self.training or self.drop_path == 0:
            return None
        keep = torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.drop_path
        return keep.to(tokens.dtype) / (1 - self.drop_path)


def _multiply(tokens: Float[Tensor, "b n d"], *factors: Tensor | None) -> Float[Tensor, "b n d"]:
    for factor in factors:
        if factor is not None:
            tokens = tokens * factor
    return tokens


# ---- Weight initialisation of the papers' released codes ---------------------------------------------------------


def init_xavier_weights(module: nn.Module, *, separate_qkv: bool = False) -> None:
    """Initialise for pre-training: Xavier uniform weights, zero biases, default LayerNorms.

    Args:
        separate_qkv: Queries, keys and values are three matrices (ST-MAE), not one that is three times as high.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    if separate_qkv:
        with torch.no_grad():
            for part in module.modules():
                if isinstance(part, Attention):
                    for matrix in part.qkv.weight.chunk(3):
                        nn.init.xavier_uniform_(matrix)


def init_normal_weights(module: nn.Module, *, bias: float = 0.0) -> None:
    """Initialise for fine-tuning: normal weights of std 0.02; all biases, those of norms too, constant."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02, a=-2.0, b=2.0)
        if isinstance(part, nn.Linear | nn.LayerNorm) and part.bias is not None:
            nn.init.constant_(part.bias, bias)
