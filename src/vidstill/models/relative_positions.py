"""How far apart two tokens stand, as a part of their attention: a learned table each for time, rows and columns."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.utils.types import Grid

_LANES = 8  # the fused kernels of GPUs take heads of a multiple of so many channels


class Standing(NamedTuple):
    """Where tokens stand; in one row for all clips where they are the whole grid's."""

    grid: Grid
    places: tuple[Int[Tensor, "c v"], Int[Tensor, "c v"], Int[Tensor, "c v"]]  # slot, row and column of each


def standing(grid: Grid, visible: Int[Tensor, "b v"] | None, device: torch.device) -> Standing:
    """Where the named tokens stand; all of them where none are named."""
    tokens = torch.arange(grid.tokens, device=device)[None] if visible is None else visible
    slot, place = tokens // (grid.h * grid.w), tokens % (grid.h * grid.w)
    return Standing(grid, (slot, place // grid.w, place % grid.w))


class RelativePositions(nn.Module):
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
        self, queries: Float[Tensor, "b heads n d"], keys: Float[Tensor, "b heads n d"], at: Standing
    ) -> tuple[Float[Tensor, "b heads n e"], Float[Tensor, "b heads n e"]]:
        """Longer queries and keys, whose products, scaled by their length, are the sum above.

        A query is made longer by its products with every slot, row and column, a key by three ones at its own: no
        kernel of attention has to know of it, and nothing is stored for every pair.

        Args:
            at: where the last tokens stand; those before them stand nowhere.
        """
        first = queries.shape[2] - at.places[0].shape[1]
        length, sides = queries.shape[3], (at.grid.t, at.grid.h, at.grid.w)
        wide = math.ceil((length + sum(sides)) / _LANES) * _LANES
        filled = (0, wide - length - sum(sides), first, 0)
        towards = [
            _towards(queries[:, :, first:], table, places, side)
            for table, places, side in zip((self.t, self.h, self.w), at.places, sides, strict=True)
        ]
        seats = [places[..., None] == _numbers(side, places) for places, side in zip(at.places, sides, strict=True)]
        of_queries = F.pad(torch.cat(towards, dim=-1), filled)
        of_keys = F.pad(torch.cat(seats, dim=-1)[:, None], filled).expand_as(of_queries)
        return (
            torch.cat([queries * (wide / length) ** 0.5, of_queries * wide**0.5], dim=-1),
            torch.cat([keys, of_keys.to(keys.dtype)], dim=-1),
        )


def _towards(
    queries: Float[Tensor, "b heads v d"], table: Float[Tensor, "s d"], places: Int[Tensor, "c v"], side: int
) -> Float[Tensor, "b heads v side"]:
    """The product of each query with the code of its distance to each place along one axis."""
    products = queries @ resized(table, 2 * side - 1).T.to(queries.dtype)
    apart = places[:, :, None] - _numbers(side, places) + side - 1
    return products.gather(-1, apart[:, None].expand(*products.shape[:-1], side))


def _numbers(count: int, like: Tensor) -> Int[Tensor, "count"]:
    return torch.arange(count, device=like.device)


def resized(table: Float[Tensor, "s d"], length: int) -> Float[Tensor, "r d"]:
    """A table for another number of distances: linear along its length."""
    if len(table) == length:
        return table
    line = F.interpolate(rearrange(table, "s d -> 1 d s"), size=length, mode="linear", align_corners=False)
    return rearrange(line, "1 d r -> r d")
