"""What is kept of a clip's tokens."""

from typing import Literal

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from vidstill.types import Grid

Pool = Literal["mean", "max", "class", "space", "time", "tokens"]
"""What is kept of the tokens: their mean or largest values, or the class token, (d); the mean over each frame's places,
(t, d), or over each place's times, (h, w, d); or all of them, (t, h, w, d)."""


def pooled(
    tokens: Float[Tensor, "b n d"], classes: Float[Tensor, "b k d"], grid: Grid, pool: Pool
) -> Float[Tensor, "b ..."]:
    """What is kept of the tokens of a grid.

    Args:
        classes: the class token, if there is one: k is 0 or 1; it has to be there to be asked for.
    """
    sides = {"t": grid.t, "h": grid.h, "w": grid.w}
    match pool:
        case "mean":
            return tokens.mean(dim=1)
        case "max":
            return tokens.amax(dim=1)
        case "class":
            return classes[:, 0]
        case "space":
            return reduce(tokens, "b (t h w) d -> b t d", "mean", **sides)
        case "time":
            return reduce(tokens, "b (t h w) d -> b h w d", "mean", **sides)
        case "tokens":
            return rearrange(tokens, "b (t h w) d -> b t h w d", **sides)
