"""The vision transformer of the family, for images and clips: embeds what is visible, and gives what is asked for."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.layers import NORM_EPS, AttentionBias, AttentionMap, BlockConfig, initialise, stack
from vidstill.models.positions import Positions, position_table, resize_table
from vidstill.types import Grid, InputError, Tubelet, within

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """A plain ViT. Frames, rows and columns are free: the clip decides."""

    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    tubelet: Tubelet = (2, 16, 16)  # frames, rows, columns of one token; (1, 16, 16) for images
    positions: Positions = "sinusoid"
    learned_grid: tuple[int, int, int] | None = None  # what a learned position table is for, in tokens
    layer_scale: float = 0.0  # first value of the branch factors; 0: there are none
    drop_path: float = 0.0  # rate of dropped branches in the last block
    attention_bias: AttentionBias = "qv"
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of the colours in [0, 1], taken off at the door
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        for side in self.tubelet:
            within(1, math.inf, tubelet=side)
        for side in self.learned_grid or ():
            within(1, math.inf, learned_grid=side)
        within(1, math.inf, width=self.dim)
        for mean, std in zip(self.mean, self.std, strict=True):
            within(0, 1, mean=mean)
            within(1e-6, math.inf, std=std)

    @property
    def blocks(self) -> BlockConfig:
        return BlockConfig(
            dim=self.dim,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            layer_scale=self.layer_scale,
            attention_bias=self.attention_bias,
        )

    @property
    def pixels_per_token(self) -> int:
        t, h, w = self.tubelet
        return 3 * t * h * w

    def build(self, *, final_norm: bool = True) -> "ViT":
        return ViT(self, final_norm=final_norm)


TINY = ViTConfig(dim=192, depth=12, heads=3)
SMALL = ViTConfig(dim=384, depth=12, heads=6)
BASE = ViTConfig(dim=768, depth=12, heads=12)
LARGE = ViTConfig(dim=1024, depth=24, heads=16)
HUGE = ViTConfig(dim=1280, depth=32, heads=16)


@dataclass(frozen=True)
class Encoded:
    """What an encoder gives back: v tokens a clip, in the order in which they were asked for."""

    tokens: Float[Tensor, "b v d"]  # after the final norm
    layers: Mapping[int, Float[Tensor, "b v d"]] = field(default_factory=dict)  # as block l left them, counted from 1
    attention: Mapping[int, AttentionMap] = field(default_factory=dict)  # of block l, counted from 1


class ViT(nn.Module):
    """Clip → tokens → features. Tokens are numbered time first, then rows, then columns."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ViTConfig, *, final_norm: bool = True):
        super().__init__()
        self.config = config
        self.embed = nn.Linear(config.pixels_per_token, config.dim)
        if config.positions == "learned":
            if config.learned_grid is None:
                raise InputError("learned positions need the grid they are learned on; set learned_grid, e.g. 8 14 14")
            self.learned_grid = Grid(*config.learned_grid)
            self.positions = nn.Parameter(torch.zeros(self.learned_grid.tokens, config.dim))
            nn.init.trunc_normal_(self.positions, std=0.02)
        self.blocks = stack(config.blocks, config.depth, config.drop_path)
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS) if final_norm else nn.Identity()
        initialise(self.blocks)  # the embedding keeps torch's own start, as the authors' convolution does
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)

    def grid(self, clip: Float[Tensor, "b 3 t h w"]) -> Grid:
        return Grid.of(clip, self.config.tubelet)

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None = None,
        *,
        layers: Collection[int] = (),
        attention: Collection[int] = (),
    ) -> Encoded:
        """Encodes the visible tokens of a clip of colours in [0, 1]; all of them where none are named.

        Args:
            visible: token numbers; only their pixels are read. Every clip has equally many.
            layers: the blocks, counted from 1, whose outputs are wanted.
            attention: the blocks, counted from 1, whose attention logits and values are wanted.

        Raises:
            InputError: the clip does not divide into whole tubelets, or a block is asked for that is not there.
        """
        tokens, outputs, maps = self._through(len(self.blocks), self.tokens(clip, visible), layers, attention)
        return Encoded(self.norm(tokens), outputs, maps)

    def layers(
        self, clip: Float[Tensor, "b 3 t h w"], visible: Int[Tensor, "b v"] | None, wanted: Collection[int]
    ) -> Mapping[int, Float[Tensor, "b v d"]]:
        """As `forward(..., layers=wanted).layers`, but the blocks after the last wanted one do not run."""
        return self._through(max(wanted, default=0), self.tokens(clip, visible), wanted, ())[1]

    def tokens(
        self, clip: Float[Tensor, "b 3 t h w"], visible: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b v d"]:
        """What enters the first block: embedded tubelets, each with the code of its position."""
        grid = self.grid(clip)
        pixels = self.normalised(tubelets(clip, self.config.tubelet, visible))
        codes = self.codes(grid, clip.device).to(self.embed.weight.dtype)  # a model in half precision stays in it
        return self.embed(pixels) + (codes if visible is None else codes[visible])

    def normalised(self, pixels: Float[Tensor, "b v p"]) -> Float[Tensor, "b v p"]:
        """Tubelets of colours in [0, 1], with this model's mean and deviation taken off."""
        repeats = pixels.shape[-1] // 3
        return (pixels - self.mean.repeat_interleave(repeats)) / self.std.repeat_interleave(repeats)

    def codes(self, grid: Grid, device: torch.device) -> Float[Tensor, "n d"]:
        """The position code of every token of a grid."""
        if self.config.positions == "learned":
            return resize_table(self.positions, self.learned_grid, grid)
        return position_table(self.config.positions, grid, self.config.dim, device)

    def _through(
        self, last: int, tokens: Float[Tensor, "b v d"], layers: Collection[int], attention: Collection[int]
    ) -> tuple[Tensor, dict[int, Tensor], dict[int, AttentionMap]]:
        for number in (*layers, *attention):
            if not 1 <= number <= len(self.blocks):
                raise InputError(
                    f"block {number} is asked of an encoder of {len(self.blocks)} blocks; take 1 to {len(self.blocks)}"
                )
        outputs, maps = {}, {}
        for number, block in enumerate(self.blocks[:last], start=1):
            if number in attention:
                maps[number] = block.attention_map(tokens)  # type: ignore[operator]  # torch forgets what a list holds
            tokens = block(tokens)
            if number in layers:
                outputs[number] = tokens
        return tokens, outputs, maps


def tubelets(
    clip: Float[Tensor, "b 3 t h w"], tubelet: Tubelet, places: Int[Tensor, "b v"] | None = None
) -> Float[Tensor, "b v p"]:
    """The pixels of the named tubelets (of all where none are named); colour first, then frame, row, column.

    Only the named ones are read: the clip is never copied as a whole.
    """
    grid = Grid.of(clip, tubelet)
    cubes = rearrange(clip, "b c (gt t) (gh h) (gw w) -> b gt gh gw c t h w", gt=grid.t, gh=grid.h, gw=grid.w)
    if places is None:
        return rearrange(cubes, "b gt gh gw c t h w -> b (gt gh gw) (c t h w)")
    batch = torch.arange(len(clip), device=clip.device)[:, None]
    frame, place = places // (grid.h * grid.w), places % (grid.h * grid.w)
    chosen = cubes[batch, frame, place // grid.w, place % grid.w]
    return rearrange(chosen, "b v c t h w -> b v (c t h w)")
