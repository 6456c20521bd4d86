"""Position embeddings: the papers' fixed ones, computed for any grid, and learned ones, resized."""

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from vidstill.utils.types import Grid, InputError, evaluate_at_compilation

FixedPositionKind = Literal["sinusoid", "sincos2d", "sincos3d"]
"""VideoMAE's flat sinusoids, MAE's 2-D ones per frame, MVD's 3-D ones."""

PositionKind = Literal["sinusoid", "sincos2d", "sincos3d", "learned", "separable"]
"""Fixed, or learned: one table, or separable, with one table for space and one for time (ST-MAE)."""


class PositionEmbedding(nn.Module):
    """Position embeddings of all tokens of a grid, and of the class token.

    A learned one is resized for a clip of another grid; a fixed one is computed for the clip's grid, or resized too, if
    the grid of its training is given (detection). With fixed ones, the class token has none (MAE's is zero).

    Args:
        kind: Fixed or learned.
        dim: Channels.
        learned_grid: Time steps, rows and columns that the embeddings are stored for.
        class_token: There is a class token, which has a learned embedding if the tokens have.
    """

    cls_embedding: nn.Parameter | None

    def __init__(
        self,
        kind: PositionKind,
        dim: int,
        learned_grid: tuple[int, int, int] | None = None,
        *,
        class_token: bool = False,
    ):
        super().__init__()
        self.kind, self.dim = kind, dim
        self.cls_embedding = None
        self.learned_grid = None if learned_grid is None else Grid(*learned_grid)
        if kind not in ("learned", "separable"):
            return
        if (grid := self.learned_grid) is None:
            raise InputError(
                f"{kind} positions need the grid that they are learned on; give its learned-grid, e.g. 8 14 14"
            )
        if kind == "learned":
            self.joint = nn.Parameter(torch.empty(grid.num_tokens, dim))
        else:
            self.space = nn.Parameter(torch.empty(grid.h * grid.w, dim))
            self.time = nn.Parameter(torch.empty(grid.t, dim))
        if class_token:
            self.cls_embedding = nn.Parameter(torch.empty(1, dim))
        for table in self.parameters():
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, grid: Grid, device: torch.device) -> Float[Tensor, "n d"]:
        """Return the embedding of every token, in token order."""
        old = self.learned_grid or grid
        if self.kind == "learned":
            return resize_position_table(self.joint, old, grid)
        if self.kind == "separable":
            space = resize_position_table(self.space, Grid(1, old.h, old.w), Grid(1, grid.h, grid.w))
            time = resize_position_table(self.time, Grid(old.t, 1, 1), Grid(grid.t, 1, 1))
            return rearrange(time[:, None] + space, "t s d -> (t s) d")
        table = _get_position_table(self.kind, old.t, old.h, old.w, self.dim, device)
        return resize_position_table(table, old, grid)


@lru_cache(maxsize=64)
def build_position_table(kind: FixedPositionKind, grid: Grid, dim: int, device: torch.device) -> Float[Tensor, "n d"]:
    """Return the fixed embedding of every token of a grid, in token order, float32; cached per grid and device.

    Args:
        kind: Which of the papers'.
        grid: Of the clip.
        dim: Channels.
        device: Of the result.

    Raises:
        InputError: `dim` does not divide into the parts of the embedding.
    """
    with torch.device("meta" if device.type == "meta" else "cpu"):  # a model on "meta" needs no numbers
        match kind:
            case "sinusoid":
                table = build_sinusoid_table(grid.num_tokens, dim)
            case "sincos2d":
                table = repeat(build_sincos_2d(grid.h, grid.w, dim), "s d -> (t s) d", t=grid.t)
            case "sincos3d":
                table = build_sincos_3d(grid, dim)
    return table.float().to(device)


@evaluate_at_compilation
def _get_position_table(kind: FixedPositionKind, t: int, h: int, w: int, dim: int, device: torch.device) -> Tensor:
    return build_position_table(kind, Grid(t, h, w), dim, device)


def build_sinusoid_table(num_tokens: int, dim: int) -> Float[Tensor, "n d"]:
    """Return the table of "Attention is all you need" over flat token numbers: sine and cosine alternate (VideoMAE)."""
    channel = torch.arange(dim, dtype=torch.float64)
    angle = torch.arange(num_tokens, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / dim)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


def build_sincos_1d(length: int, dim: int) -> Float[Tensor, "n d"]:
    """Return all sines, then all cosines, per position."""
    if dim % 2:
        raise InputError(f"a width of {dim} does not divide into sines and cosines; take a multiple of 2")
    frequency = 10000 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def build_sincos_2d(rows: int, columns: int, dim: int) -> Float[Tensor, "n d"]:
    """Return MAE's embedding of a frame: one half of the channels for the column, the other for the row."""
    if dim % 4:
        raise InputError(
            f"a width of {dim} does not divide into sines and cosines of rows and columns; take a multiple of 4"
        )
    column = repeat(build_sincos_1d(columns, dim // 2), "w d -> (h w) d", h=rows)
    row = repeat(build_sincos_1d(rows, dim // 2), "h d -> (h w) d", w=columns)
    return torch.cat([column, row], dim=1)


def build_sincos_3d(grid: Grid, dim: int) -> Float[Tensor, "n d"]:
    """Return MVD's separable embedding: a quarter of the channels for time, then MAE's for space."""
    if dim % 16:
        raise InputError(f"a width of {dim} does not divide into the parts of sincos3d; take a multiple of 16")
    time = repeat(build_sincos_1d(grid.t, dim // 4), "t d -> (t s) d", s=grid.h * grid.w)
    space = repeat(build_sincos_2d(grid.h, grid.w, dim - dim // 4), "s d -> (t s) d", t=grid.t)
    return torch.cat([time, space], dim=1)


def resize_position_table(table: Float[Tensor, "n d"], old_grid: Grid, new_grid: Grid) -> Float[Tensor, "m d"]:
    """Resize a learned table to another grid: bicubic in space (per time step), linear in time.

    Args:
        table: One row per token.
        old_grid: Of the table.
        new_grid: Of the result.
    """
    if old_grid == new_grid:
        return table
    cube = rearrange(table, "(t h w) d -> t d h w", t=old_grid.t, h=old_grid.h, w=old_grid.w)
    if (old_grid.h, old_grid.w) != (new_grid.h, new_grid.w):
        cube = F.interpolate(cube, size=(new_grid.h, new_grid.w), mode="bicubic", align_corners=False)
    if old_grid.t != new_grid.t:
        line = rearrange(cube, "t d h w -> (h w) d t")
        line = F.interpolate(line, size=new_grid.t, mode="linear", align_corners=False)
        cube = rearrange(line, "(h w) d t -> t d h w", h=new_grid.h)
    return rearrange(cube, "t d h w -> (t h w) d")
