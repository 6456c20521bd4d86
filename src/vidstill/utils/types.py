"""Types that all packages share: the grid of a clip's tokens, the output of a task, the error of a user's input."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

StrPath = str | os.PathLike[str]
"""A path, or a URL as text."""

Tubelet = tuple[int, int, int]
"""Frames, rows and columns of one token, in pixels."""

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of a pixel (ITU-R BT.601)."""


CallableT = TypeVar("CallableT", bound=Callable[..., object])


def evaluate_at_compilation(function: CallableT) -> CallableT:
    """Have torch.compile call a function once, while it traces, and take its result as a constant.

    It is `torch.compiler.assume_constant_result`, without the seconds that the import of torch._dynamo takes.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class InputError(ValueError):
    """The user's input cannot be used; the message is one sentence that says what was met and how to mend it.

    The command line prints it and exits with code 2; any other exception is a bug.
    """


def check_range(
    low: int | float, high: int | float, /, *, exclusive: bool = False, **numbers: int | float | None
) -> None:
    """Raise an InputError for a number that is not finite or not in the range; None is ignored.

    Args:
        exclusive: `high` itself is out of the range.
        numbers: The numbers by the names that the message uses.
    """
    allowed = f"{low} or more" if high == math.inf else f"{low} to {'less than ' if exclusive else ''}{high}"
    for name, number in numbers.items():
        is_finite = isinstance(number, int) or (number is not None and math.isfinite(number))
        if number is None or (is_finite and low <= number <= high and not (exclusive and number == high)):
            continue
        raise InputError(f"{name} is {number}; take {allowed}")


@dataclass(frozen=True)
class Grid:
    """The number of tokens of a clip along time, rows and columns; tokens are ordered time first, columns last."""

    t: int
    h: int
    w: int

    @classmethod
    def from_clip(cls, clip: Tensor, tubelet: Tubelet) -> "Grid":
        """Return the grid of a clip `(b, 3, t, h, w)`.

        Raises:
            InputError: The clip does not divide into whole tubelets.
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
    """The output of every task: the loss to minimize, and its parts by name (0-d, detached when logged)."""

    loss: Float[Tensor, ""]
    parts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


def gather_tokens(tokens: Float[Tensor, "b n d"], indices: Int[Tensor, "b k"]) -> Float[Tensor, "b k d"]:
    """Return the tokens of each clip at its indices, in the order of the indices."""
    first = tokens.shape[1] * torch.arange(len(tokens), device=tokens.device)[:, None]
    rows = tokens.flatten(0, 1).index_select(0, (indices + first).flatten())  # a tenth of `take_along_dim`'s time
    return rows.unflatten(0, indices.shape)
