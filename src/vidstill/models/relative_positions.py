"""How far apart two tokens stand, as a part of their attention: a learned table each for time, rows and columns."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.utils.types import Grid

_HEAD_DIM_MULTIPLE = 8  # the fused kernels of GPUs take heads of a multiple of so many channels


class TokenCoordinates(NamedTuple):
    """Where tokens stand; in one row for all clips where they are the whole grid's."""

    grid: Grid
    coordinates: tuple[Int[Tensor, "c v"], Int[Tensor, "c v"], Int[Tensor, "c v"]]  # slot, row and column of each


def compute_token_coordinates(grid: Grid, visible: Int[Tensor, "b v"] | None, device: torch.device) -> TokenCoordinates:
    """Where the named tokens stand; all of them where none are named."""
    tokens = torch.arange(grid.num_tokens, device=device)[None] if visible is None else visible
    slot, place = tokens // (grid.h * grid.w), tokens % (grid.h * grid.w)
    return TokenCoordinates(grid, (slot, place // grid.w, place % grid.w))


class RelativePositionEmbedding(nn.Module):
    """Decomposed relative positions (MViTv2, arXiv:2112.01526, section 4.1), which ST-MAE adds as it learns to detect.

    Token i attends to j with scale · q_i · k_j + q_i · (T[t_i - t_j] + H[h_i - h_j] + W[w_i - w_j]), as released: the
    latter part is not scaled. All heads of a block share its tables, which start at zero (how they started for the
    published numbers is not known), so that a model that was pre-trained without them is the same at first. A token
    that stands nowhere, the class token, is no nearer to one than to another.
    """

    def __init__(self, d_head: int, learned_grid: Grid):
        super().__init__()
        sides = (learned_grid.t, learned_grid.h, learned_grid.w)
        self.t, self.h, self.w = (nn.Parameter(torch.zeros(2 * side - 1, d_head)) for side in sides)

    def forward(
        self, queries: Float[Tensor, "b heads n d"], keys: Float[Tensor, "b heads n d"], coordinates: TokenCoordinates
    ) -> tuple[Float[Tensor, "b heads n e"], Float[Tensor, "b heads n e"]]:
        """Longer queries and keys, whose products, scaled by their length, are the sum above.

        A query is made longer by its products with every slot, row and column, a key by three ones at its own: no
        kernel of attention has to know of it, and nothing is stored for every pair.

        Args:
            coordinates: where the last tokens stand; those before them stand nowhere.
        """
        first = queries.shape[2] - coordinates.coordinates[0].shape[1]
        length, sides = queries.shape[3], (coordinates.grid.t, coordinates.grid.h, coordinates.grid.w)
        wide = math.ceil((length + sum(sides)) / _HEAD_DIM_MULTIPLE) * _HEAD_DIM_MULTIPLE
        filled = (0, wide - length - sum(sides), first, 0)
        towards = [
            _compute_relative_logits(queries[:, :, first:], table, places, side)
            for table, places, side in zip((self.t, self.h, self.w), coordinates.coordinates, sides, strict=True)
        ]
        seats = [
            places[..., None] == _arange_like(side, places)
            for places, side in zip(coordinates.coordinates, sides, strict=True)
        ]
        of_queries = F.pad(torch.cat(towards, dim=-1), filled)
        of_keys = F.pad(torch.cat(seats, dim=-1)[:, None], filled).expand_as(of_queries)
        return (
            torch.cat([queries * (wide / length) ** 0.5, of_queries * wide**0.5], dim=-1),
            torch.cat([keys, of_keys.to(keys.dtype)], dim=-1),
        )


def _compute_relative_logits(
    queries: Float[Tensor, "b heads v d"], table: Float[Tensor, "s d"], coordinates: Int[Tensor, "c v"], side: int
) -> Float[Tensor, "b heads v side"]:
    """The product of each query with the code of its distance to each place along one axis."""
    products = queries @ resize_relative_table(table, 2 * side - 1).T.to(queries.dtype)
    apart = coordinates[:, :, None] - _arange_like(side, coordinates) + side - 1
    return products.gather(-1, apart[:, None].expand(*products.shape[:-1], side))


def _arange_like(count: int, like: Tensor) -> Int[Tensor, "count"]:
    return torch.arange(count, device=like.device)


def resize_relative_table(table: Float[Tensor, "s d"], length: int) -> Float[Tensor, "r d"]:
    """A table for another number of distances: linear along its length."""
    if len(table) == length:
        return table
    line = F.interpolate(rearrange(table, "s d -> 1 d s"), size=length, mode="linear", align_corners=False)
    return rearrange(line, "1 d r -> r d")
