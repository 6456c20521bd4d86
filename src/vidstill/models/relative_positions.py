"""Relative position embeddings in attention: learned tables for distances in time, rows and columns."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.utils.types import Grid

_HEAD_DIM_MULTIPLE = 8  # the fused GPU kernels need heads of a multiple of 8 channels


class TokenCoordinates(NamedTuple):
    """Coordinates of tokens; one row for all clips if they are the whole grid's."""

    grid: Grid
    coordinates: tuple[Int[Tensor, "c v"], Int[Tensor, "c v"], Int[Tensor, "c v"]]  # time step, row and column of each


def compute_token_coordinates(grid: Grid, visible: Int[Tensor, "b v"] | None, device: torch.device) -> TokenCoordinates:
    """Return the coordinates of tokens.

    Args:
        grid: All tokens.
        visible: Token numbers; None: all.
        device: Of the result.
    """
    tokens = torch.arange(grid.num_tokens, device=device)[None] if visible is None else visible
    return TokenCoordinates(grid, torch.unravel_index(tokens, (grid.t, grid.h, grid.w)))  # type: ignore[arg-type]


class RelativePositionEmbedding(nn.Module):
    """Decomposed relative positions (MViTv2, arXiv:2112.01526, section 4.1), which ST-MAE adds for detection.

    Token i attends to j with scale · q_i · k_j + q_i · (T[t_i - t_j] + H[h_i - h_j] + W[w_i - w_j]), as released: the
    second term is not scaled. All heads of a block share its tables, which are zero at first (how the published models
    initialised them is not known), so that a model pre-trained without them is unchanged. The class token has no
    coordinates, and the second term is 0 for it.
    """

    def __init__(self, d_head: int, learned_grid: Grid):
        super().__init__()
        sides = (learned_grid.t, learned_grid.h, learned_grid.w)
        self.t, self.h, self.w = (nn.Parameter(torch.zeros(2 * side - 1, d_head)) for side in sides)

    def forward(
        self, queries: Float[Tensor, "b heads n d"], keys: Float[Tensor, "b heads n d"], coordinates: TokenCoordinates
    ) -> tuple[Float[Tensor, "b heads n e"], Float[Tensor, "b heads n e"]]:
        """Extend queries and keys, so that their products, scaled by their length, are the sum above.

        A query is extended by its products with every time step, row and column, a key by a one at each of its own: any
        attention kernel can be used, and nothing is stored per pair of tokens.

        Args:
            queries: By head.
            keys: By head.
            coordinates: Of the last tokens; the class token before them has none.
        """
        first = queries.shape[2] - coordinates.coordinates[0].shape[1]
        length, sides = queries.shape[3], (coordinates.grid.t, coordinates.grid.h, coordinates.grid.w)
        padded = math.ceil((length + sum(sides)) / _HEAD_DIM_MULTIPLE) * _HEAD_DIM_MULTIPLE
        padding = (0, padded - length - sum(sides), first, 0)
        axes = list(zip((self.t, self.h, self.w), coordinates.coordinates, sides, strict=True))
        logits = [_compute_relative_logits(queries[:, :, first:], *axis) for axis in axes]
        one_hot = [positions[..., None] == _arange_like(side, positions) for _, positions, side in axes]
        query_extension = F.pad(torch.cat(logits, dim=-1), padding)
        key_extension = F.pad(torch.cat(one_hot, dim=-1)[:, None], padding).expand_as(query_extension)
        return (
            torch.cat([queries * (padded / length) ** 0.5, query_extension * padded**0.5], dim=-1),
            torch.cat([keys, key_extension.to(keys.dtype)], dim=-1),
        )


def _compute_relative_logits(
    queries: Float[Tensor, "b heads v d"], table: Float[Tensor, "s d"], coordinates: Int[Tensor, "c v"], side: int
) -> Float[Tensor, "b heads v side"]:
    """Return the product of each query with the embedding of its distance to each position along one axis."""
    products = queries @ resize_relative_table(table, 2 * side - 1).T.to(queries.dtype)
    distances = coordinates[:, :, None] - _arange_like(side, coordinates) + side - 1
    return products.gather(-1, distances[:, None].expand(*products.shape[:-1], side))


def _arange_like(count: int, like: Tensor) -> Int[Tensor, "count"]:
    return torch.arange(count, device=like.device)


def resize_relative_table(table: Float[Tensor, "s d"], length: int) -> Float[Tensor, "r d"]:
    """Resize a table to another number of distances, linearly."""
    if len(table) == length:
        return table
    line = F.interpolate(rearrange(table, "s d -> 1 d s"), size=length, mode="linear", align_corners=False)
    return rearrange(line, "1 d r -> r d")
