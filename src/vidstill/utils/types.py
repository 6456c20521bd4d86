"""The few words that every room shares: a grid of tokens, what a task gives back, and what a user's mistake is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

Tubelet = tuple[int, int, int]
"""Frames, rows and columns of one token, in pixels."""


class InputError(ValueError):
    """What the user gave cannot be used: says in one sentence what was met and how to mend it.

    The command line prints the sentence and leaves with exit code 2; anything else that is raised is our mistake.
    """


def check_range(
    low: int | float, high: int | float, /, *, exclusive: bool = False, **numbers: int | float | None
) -> None:
    """Raises an InputError for a number outside of `low` to `high`, or not finite; None is no number.

    Args:
        exclusive: `high` itself is too much.
    """
    for name, number in numbers.items():
        if number is None or (math.isfinite(number) and low <= number <= high and not (exclusive and number == high)):
            continue
        room = (
            f"{low} or more"
            if high == math.inf
            else f"{low} up to, but below, {high}"
            if exclusive
            else f"{low} to {high}"
        )
        raise InputError(f"{name} is {number}; take {room}")


@dataclass(frozen=True)
class Grid:
    """The tokens of a clip, counted along time, rows and columns; token order is time first, columns last."""

    t: int
    h: int
    w: int

    @classmethod
    def from_clip(cls, clip: Tensor, tubelet: Tubelet) -> "Grid":
        """The grid that a clip `(b, 3, t, h, w)` is cut into.

        Raises:
            InputError: the clip does not divide into whole tubelets.
        """
        sizes = tuple(clip.shape[-3:])
        for name, size, step in zip(("frames", "rows", "columns"), sizes, tubelet, strict=True):
            if size == 0 or size % step:
                near = max(step, size - size % step)
                raise InputError(f"a clip of {size} {name} does not divide into tubelets of {step}; take {near} {name}")
        return cls(*(size // step for size, step in zip(sizes, tubelet, strict=True)))

    @property
    def num_tokens(self) -> int:
        return self.t * self.h * self.w


@dataclass(frozen=True)
class Output:
    """What every task gives back: the loss to descend, and its parts by name (0-d, detached when logged)."""

    loss: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


def gather_tokens(tokens: Float[Tensor, "b n d"], indices: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """The tokens at the given places, clip by clip, in the order of the places."""
    return torch.take_along_dim(tokens, indices[..., None], dim=1)
