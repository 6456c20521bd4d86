"""The vision transformer, for images and clips: encodes the visible tokens and returns the requested features."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.attention import AttentionMap
from vidstill.models.layers import TransformerConfig, init_xavier_weights
from vidstill.models.position_embeddings import PositionEmbedding
from vidstill.models.relative_positions import compute_token_coordinates
from vidstill.utils.types import Grid, InputError, Tubelet, check_range, gather_tokens

_MIN_COPIED_SHARE = 0.6  # of the tokens: from here on, to copy all and gather rows is faster than to read only these

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class ViTConfig(TransformerConfig):
    """A plain ViT, for clips of any number of frames, rows and columns; its final norm has the blocks' eps, too."""

    tubelet: Tubelet = (2, 16, 16)  # frames, rows, columns of one token; (1, 16, 16) for images
    # Clips that do not divide into tubelets are refused, or cropped at their end, bottom and right, as by a convolution
    # without padding (ST-MAE's 312 × 312 pixels).
    drop_remainder: bool = False
    relative_positions: bool = False  # besides the others (ST-MAE's detection); initialised with zeros
    class_token: bool = False  # prepended to the tokens of each clip
    mean: tuple[float, float, float] = IMAGENET_MEAN  # mean of colours in [0, 1]; subtracted by the model
    std: tuple[float, float, float] = IMAGENET_STD  # standard deviation of colours in [0, 1]; the model divides by it

    def __post_init__(self) -> None:
        super().__post_init__()
        for side in self.tubelet:
            check_range(1, math.inf, tubelet=side)
        for mean, std in zip(self.mean, self.std, strict=True):
            check_range(0, 1, mean=mean)
            check_range(1e-6, math.inf, std=std)

    @property
    def relative_grid(self) -> Grid | None:
        if self.relative_positions and self.learned_grid is None:
            raise InputError(
                "relative positions need the grid that they are learned on; give its learned-grid, e.g. 8 14 14"
            )
        return Grid(*self.learned_grid) if self.relative_positions and self.learned_grid else None

    @property
    def pixels_per_token(self) -> int:
        t, h, w = self.tubelet
        return 3 * t * h * w

    def crop_to_tubelets(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 3 _t _h _w"]:
        """Crop a clip to whole tubelets, if `drop_remainder`; one that is smaller than a tubelet is left as it is."""
        if not self.drop_remainder:
            return clip
        t, h, w = (size - size % step or size for size, step in zip(clip.shape[-3:], self.tubelet, strict=True))
        return clip[..., :t, :h, :w]

    def grid(self, clip: Float[Tensor, "b 3 t h w"]) -> Grid:
        """Return the tokens of a clip, counted along time, rows and columns.

        Raises:
            InputError: The clip does not divide into whole tubelets.
        """
        return Grid.from_clip(self.crop_to_tubelets(clip), self.tubelet)

    def build(self, *, final_norm: bool = True) -> "ViT":
        return ViT(self, final_norm=final_norm)


SMALL = ViTConfig(dim=384, depth=12, heads=6)
BASE = ViTConfig(dim=768, depth=12, heads=12)
LARGE = ViTConfig(dim=1024, depth=24, heads=16)
HUGE = ViTConfig(dim=1280, depth=32, heads=16)


def _build_image_config(size: ViTConfig, *, patch: int = 16) -> ViTConfig:
    return replace(size, tubelet=(1, patch, patch), positions="sincos2d", class_token=True, attention_bias="qkv")


# MAE's (arXiv:2111.06377, appendix A); S is DMAE's and AMD's
IMAGE_SMALL = _build_image_config(SMALL)
IMAGE_BASE = _build_image_config(BASE)
IMAGE_LARGE = _build_image_config(LARGE)
IMAGE_HUGE = _build_image_config(HUGE, patch=14)


@dataclass(frozen=True, kw_only=True)
class Features:
    """What an encoder returns: its tokens after the final norm, and the requested intermediate features.

    Blocks are counted from 1. The v tokens of each clip stand in the order in which they were requested.
    """

    tokens: Float[Tensor, "b v d"]
    cls_token: Float[Tensor, "b k d"]  # k is 1 with a class token, else 0
    layers: Mapping[int, Float[Tensor, "b u d"]] = field(default_factory=dict)  # output of block l
    cls_layers: Mapping[int, Float[Tensor, "b j d"]] = field(default_factory=dict)  # its class token
    attention: Mapping[int, AttentionMap] = field(default_factory=dict)  # of block l, class token first


class ViT(nn.Module):
    """Clip → tokens → features. Tokens are numbered time first, then rows, then columns."""

    mean: Tensor
    std: Tensor
    cls_token: nn.Parameter | None

    def __init__(self, config: ViTConfig, *, final_norm: bool = True):
        super().__init__()
        self.config = config
        self.patch_embed = nn.Linear(config.pixels_per_token, config.dim)
        self.positions = PositionEmbedding(
            config.positions, config.dim, config.learned_grid, class_token=config.class_token
        )
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, config.dim)) if config.class_token else None
        self.blocks = config.build_blocks()
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps) if final_norm else nn.Identity()
        init_xavier_weights(self.blocks)  # the patch embedding keeps torch's default weights, as a convolution's
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)

    def grid(self, clip: Float[Tensor, "b 3 t h w"]) -> Grid:
        return self.config.grid(clip)

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None = None,
        *,
        layers: Collection[int] = (),
        attention: Collection[int] = (),
        intermediates_only: bool = False,
    ) -> Features:
        """Encode the visible tokens of a clip with colours in [0, 1].

        Args:
            visible: Token numbers, equally many per clip; only their pixels are read. None: all tokens.
            layers: Blocks, counted from 1, whose outputs are returned.
            attention: Blocks, counted from 1, whose attention logits and values are returned.
            intermediates_only: Stop after the last requested block; `tokens` and `cls_token` are empty then.

        Raises:
            InputError: The clip does not divide into whole tubelets, or a requested block does not exist.
        """
        for number in (*layers, *attention):
            if not 1 <= number <= len(self.blocks):
                raise InputError(
                    f"an encoder of {len(self.blocks)} blocks has no block {number}; take 1 to {len(self.blocks)}"
                )
        last = len(self.blocks)
        if intermediates_only:
            last = max((*layers, *(number - 1 for number in attention)), default=0)
        uses_coordinates = self.config.relative_positions
        coordinates = compute_token_coordinates(self.grid(clip), visible, clip.device) if uses_coordinates else None
        tokens = self._prepare_tokens(clip, visible)
        outputs, cls_outputs, maps = {}, {}, {}
        for number, block in enumerate(self.blocks, start=1):
            attention_map = None
            if number in attention:
                attention_map = maps[number] = block.compute_attention_map(tokens, coordinates)  # type: ignore[operator]  # torch forgets what a list holds
            if number > last:
                break
            tokens = block(tokens, attention_map, coordinates)
            if number in layers:
                cls_outputs[number], outputs[number] = self._split_cls_token(tokens)
        cls_token, tokens = self._split_cls_token(self.norm(tokens[:, :0] if intermediates_only else tokens))
        return Features(tokens=tokens, cls_token=cls_token, layers=outputs, cls_layers=cls_outputs, attention=maps)

    def embed_tokens(
        self, clip: Float[Tensor, "b 3 t h w"], visible: Int[Tensor, "b v"] | None = None
    ) -> Float[Tensor, "b v d"]:
        """Return the input of the first block without class token: embedded tubelets plus position embeddings."""
        grid = self.grid(clip)
        pixels = self.normalize_input(patchify(self.config.crop_to_tubelets(clip), self.config.tubelet, visible))
        dtype = self.patch_embed.weight.dtype
        positions = self.positions(grid, clip.device).to(dtype)
        return self.patch_embed(pixels.to(dtype)) + (positions if visible is None else positions[visible])

    def normalize_input(self, pixels: Float[Tensor, "b v p"]) -> Float[Tensor, "b v p"]:
        """Normalize tubelets of colours in [0, 1] by the model's mean and std."""
        repeats = pixels.shape[-1] // 3
        return (pixels - self.mean.repeat_interleave(repeats)) / self.std.repeat_interleave(repeats)

    def _prepare_tokens(
        self, clip: Float[Tensor, "b 3 t h w"], visible: Int[Tensor, "b v"] | None
    ) -> Float[Tensor, "b n d"]:
        """Return the input of the first block: the class token, if there is one, and the tokens."""
        tokens = self.embed_tokens(clip, visible)
        if self.cls_token is None:
            return tokens
        cls_embedding = self.positions.cls_embedding
        first = self.cls_token if cls_embedding is None else self.cls_token + cls_embedding
        return torch.cat([first.expand(tokens.shape[0], 1, -1).to(tokens.dtype), tokens], dim=1)

    def _split_cls_token(self, tokens: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b k d"], Float[Tensor, "b v d"]]:
        """Split class token and other tokens."""
        cut = 0 if self.cls_token is None else 1
        return tokens[:, :cut], tokens[:, cut:]


def patchify(
    clip: Float[Tensor, "b 3 t h w"], tubelet: Tubelet, indices: Int[Tensor, "b v"] | None = None
) -> Float[Tensor, "b v p"]:
    """Return the pixels of tubelets; channel first, then frame, row, column.

    Args:
        clip: Colours, or other numbers per pixel.
        tubelet: Frames, rows and columns of one token, in pixels.
        indices: Token numbers; None: all.
    """
    grid = Grid.from_clip(clip, tubelet)
    cubes = rearrange(clip, "b c (gt t) (gh h) (gw w) -> b gt gh gw c t h w", gt=grid.t, gh=grid.h, gw=grid.w)
    if indices is None or indices.shape[1] > _MIN_COPIED_SHARE * grid.num_tokens:
        rows = rearrange(cubes, "b gt gh gw c t h w -> b (gt gh gw) (c t h w)")
        return rows if indices is None else gather_tokens(rows, indices)
    batch = torch.arange(len(clip), device=clip.device)[:, None]
    selected = cubes[batch, *torch.unravel_index(indices, (grid.t, grid.h, grid.w))]
    return rearrange(selected, "b v c t h w -> b v (c t h w)")
