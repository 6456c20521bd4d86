"""The yardstick's vision transformer: all tokens are embedded, masks are boolean, attention is an explicit softmax."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vidstill.models.layers import TransformerConfig
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import Grid


class EagerAttention(nn.Module):
    """softmax(q kᵀ / √d) v, whose logits and values are returned too."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.attention_bias == "qkv")
        self.q_bias = self.v_bias = None
        if config.attention_bias == "qv":
            self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(config.dim)) for _ in range(2))
        self.proj = nn.Linear(config.dim, config.dim)

    def forward(self, tokens: Float[Tensor, "b n d"]) -> tuple[Tensor, Tensor, Tensor]:
        bias: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(tokens, self.qkv.weight, bias)
        q, k, v = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        output = logits.softmax(dim=-1) @ v
        return self.proj(rearrange(output, "b heads n d -> b n (heads d)")), logits, v


class EagerBlock(nn.Module):
    def __init__(self, config: TransformerConfig, drop_path: float):
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.attn = EagerAttention(config)
        self.norm2 = nn.LayerNorm(config.dim, eps=config.norm_eps)
        hidden = int(config.dim * config.mlp_ratio)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(config.dim, hidden), "fc2": nn.Linear(hidden, config.dim)})

    def forward(self, tokens: Float[Tensor, "b n d"]) -> tuple[Tensor, Tensor, Tensor]:
        mixed, logits, values = self.attn(self.norm1(tokens))
        tokens = tokens + self._drop(mixed)
        hidden = F.gelu(self.mlp["fc1"](self.norm2(tokens)))
        return tokens + self._drop(self.mlp["fc2"](hidden)), logits, values

    def _drop(self, branch: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        if not self.training or not self.drop_path:
            return branch
        keep = 1 - self.drop_path
        return branch * torch.empty(len(branch), 1, 1, device=branch.device).bernoulli_(keep) / keep


def build_eager_blocks(config: TransformerConfig) -> nn.ModuleList:
    rates = torch.linspace(0, config.drop_path, config.depth).tolist()
    return nn.ModuleList(EagerBlock(config, rate) for rate in rates)


class EagerViT(nn.Module):
    """Embed all tokens, keep the visible ones, and return the output of every block, before any norm."""

    table: Tensor

    def __init__(self, config: ViTConfig, grid: Grid):
        super().__init__()
        self.patch_embed = nn.Conv3d(3, config.dim, kernel_size=config.tubelet, stride=config.tubelet)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.class_token else None
        self.blocks = build_eager_blocks(config)
        table = build_position_table(config.positions, grid, config.dim, torch.device("cpu"))
        self.register_buffer("table", table[None], persistent=False)

    def forward(
        self, clip: Float[Tensor, "b 3 t h w"], keep: Bool[Tensor, "b n"] | None = None
    ) -> tuple[list[Float[Tensor, "b v d"]], Tensor, Tensor]:
        """Return the blocks' outputs, and the last block's logits and values."""
        tokens = self.embed(clip)
        return self.run_blocks(tokens if keep is None else select(tokens, keep))

    def embed(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        tokens = self.patch_embed(clip).flatten(2).transpose(1, 2)
        tokens = tokens + self.table.type_as(tokens)
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1).type_as(tokens), tokens], dim=1)
        return tokens

    def run_blocks(self, tokens: Float[Tensor, "b v d"]) -> tuple[list[Float[Tensor, "b v d"]], Tensor, Tensor]:
        outputs: list[Tensor] = []
        for block in self.blocks:
            tokens, logits, values = block(tokens)
            outputs.append(tokens)
        return outputs, logits, values


class EagerDecoder(nn.Module):
    """Blocks over the visible tokens and mask tokens; returns those of the mask tokens.

    Args:
        config: A decoder's or generator's.
        grid: All tokens of a clip.
    """

    table: Tensor

    def __init__(self, config: TransformerConfig, grid: Grid):
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.blocks = build_eager_blocks(config)
        table = build_position_table(config.positions, grid, config.dim, torch.device("cpu"))
        self.register_buffer("table", table[None], persistent=False)

    def forward(
        self, tokens: Float[Tensor, "b v d"], keep: Bool[Tensor, "b n"], predict: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b m d"]:
        table = self.table.expand(len(tokens), -1, -1).type_as(tokens)
        masked = self.mask_token + select(table, predict)
        tokens = torch.cat([tokens + select(table, keep), masked], dim=1)
        for block in self.blocks:
            tokens, _, _ = block(tokens)
        return tokens[:, tokens.shape[1] - masked.shape[1] :]


class EagerHead(nn.Sequential):
    """LayerNorm and a linear layer."""

    def __init__(self, dim: int, out_dim: int, eps: float):
        super().__init__(nn.LayerNorm(dim, eps=eps), nn.Linear(dim, out_dim))


def select(tokens: Float[Tensor, "b n d"], keep: Bool[Tensor, "b n"]) -> Float[Tensor, "b v d"]:
    """Return the tokens where the mask is true, equally many of each clip."""
    return tokens[keep].reshape(len(tokens), -1, tokens.shape[-1])
