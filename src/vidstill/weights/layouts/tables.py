"""Which kind of position codes a foreign file's stored table holds, and for which grid of tokens it is."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.models.positions import FixedPositions, Positions, position_table
from vidstill.types import Grid, InputError

KINDS: tuple[FixedPositions, ...] = ("sinusoid", "sincos2d", "sincos3d")
WORDS = {
    "sinusoid": "sinusoid (VideoMAE's)",
    "sincos2d": "sincos2d (MAE's)",
    "sincos3d": "sincos3d (MVD's)",
    "learned": "learned",
    "separable": "separable (ST-MAE's)",
}
_FRAMES = 16  # of the family's clips
_MOST = 1 << 16  # tokens of which a table is compared with the computed ones


@dataclass(frozen=True)
class Codes:
    """
    Args:
        grid: for which learned codes are.
        notes: what is to be said of them.
        seen: the tokens of which a stored table of computed codes is.
    """

    kind: Positions
    grid: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()
    seen: tuple[int, int, int] | None = None


def codes_of(
    tensors: Mapping[str, Tensor],
    name: str,
    dim: int,
    frames: int,
    *,
    asked: Positions | None,
    grid: tuple[int, int, int] | None,
    class_token: bool,
    computed: FixedPositions,
    stored: bool = False,
) -> Codes:
    """The codes that a file has under a name, or under `…_spatial` and `…_temporal`.

    Args:
        frames: of a tubelet; 1: of images.
        asked: the kind that is asked for; None: none is.
        grid: what a learned table is taken to be for, where it has as many tokens.
        computed, stored: as for `encoder_of`.

    Raises:
        InputError: the table does not fit the encoder, or is of another kind than is asked for.
    """
    if f"{name}_spatial" in tensors or f"{name}_temporal" in tensors:
        found = Codes("separable", _separable(tensors, name, grid))
    elif name in tensors:
        found = _joint(_table(tensors[name], name, dim), name, frames, grid, class_token=class_token)
    elif asked in KINDS:
        return Codes(asked, None, (f"positions {WORDS[asked]}, as the recipe has it: the file has no table",))
    elif stored:
        raise InputError(f"it has no {name!r}, which every file of its layout has: it is incomplete")
    else:
        said = f"positions {WORDS[computed]}, as in the layout: the file has no table"
        if computed == "sinusoid":
            said += "; classifiers of MVD look alike and have sincos3d, which a recipe of MVD says (--hint)"
        found = Codes(computed, None, (said,))
    later_learned = asked == "learned" and found.kind in KINDS  # a fine-tuning may learn on from computed codes
    if asked is not None and found.kind != asked and not later_learned:
        raise InputError(of_another_kind(found.kind, asked))
    return found


def of_another_kind(found: Positions, asked: Positions) -> str:
    return (
        f"it has positions of another kind: {WORDS[found]}, and {WORDS[asked]} are asked for; take a recipe whose "
        f"encoder has them, or --encoder.positions {found}"
    )


def _table(tensor: Tensor, name: str, dim: int) -> Float[Tensor, "n d"]:
    if tensor.ndim != 3 or len(tensor) != 1 or tensor.shape[2] != dim:
        raise InputError(f"{name!r} is {tuple(tensor.shape)}; a table of positions is (1, tokens, {dim})")
    return tensor[0]


def _separable(tensors: Mapping[str, Tensor], name: str, grid: tuple[int, int, int] | None) -> tuple[int, int, int]:
    lacking = [word for word in ("spatial", "temporal") if f"{name}_{word}" not in tensors]
    if lacking:
        raise InputError(f"it has no {f'{name}_{lacking[0]}'!r}: it is incomplete")
    slots, places = (tensors[f"{name}_{word}"].shape[-2] for word in ("temporal", "spatial"))
    if grid is not None and (grid[0], grid[1] * grid[2]) == (slots, places):
        return grid
    side = isqrt(places)
    if side * side != places:
        raise InputError(_unknown_grid(f"{name}_spatial", places))
    return slots, side, side


def _joint(
    table: Float[Tensor, "n d"], name: str, frames: int, asked: tuple[int, int, int] | None, *, class_token: bool
) -> Codes:
    """A table of all tokens, with a row for the class token or without."""
    for first in (1, 0) if class_token else (0,):
        rows = table[first:]
        silent = not table[:first].any()  # of computed codes, the class token has none
        for kind in KINDS:
            if silent and (grid := _computed_on(rows, kind, frames, asked)) is not None:
                of = "" if kind == "sinusoid" else f" of {grid.t} × {grid.h} × {grid.w} tokens"
                said = f"positions {WORDS[kind]}: {name!r} is that table{of}"
                return Codes(kind, None, (said,), (grid.t, grid.h, grid.w))
    n = len(table) - class_token
    if asked is not None and asked[0] * asked[1] * asked[2] == n:
        return Codes("learned", asked, (f"positions learned: {name!r} is none of the computed tables",))
    squares = [grid for grid in _grids(n, frames) if grid.h == grid.w]
    usual = [grid for grid in squares if grid.t == (1 if frames == 1 else max(1, _FRAMES // frames))]
    if not usual and len(squares) != 1:
        raise InputError(_unknown_grid(name, n))
    t, h, w = (usual or squares)[0].t, (usual or squares)[0].h, (usual or squares)[0].w
    said = f"positions learned: {name!r} is none of the computed tables, and taken to be of {t} × {h} × {w} tokens"
    return Codes("learned", (t, h, w), (said,))


def _unknown_grid(name: str, tokens: int) -> str:
    return (
        f"{name!r} is of {tokens} places, and does not say of which grid; name a recipe whose encoder has it "
        "(--hint RECIPE of `vidstill weights`, or --encoder.learned-grid), e.g. 8 14 14"
    )


def _computed_on(
    rows: Float[Tensor, "n d"], kind: FixedPositions, frames: int, asked: tuple[int, int, int] | None
) -> Grid | None:
    """The grid whose computed table this is; None: it is none of this kind."""
    n, dim = rows.shape
    if not 0 < n <= _MOST or dim % {"sinusoid": 1, "sincos2d": 4, "sincos3d": 16}[kind]:
        return None
    near = 1e-4 if rows.dtype in (torch.float32, torch.float64) else 5e-3
    cpu = torch.device("cpu")

    def same(table: Tensor) -> bool:
        return torch.allclose(rows[: len(table)].float(), table, rtol=0, atol=near)

    if not same(position_table(kind, Grid(1, 1, 1), dim, cpu)):
        return None
    first = [grid for grid in [Grid(*asked)] if grid.tokens == n] if asked is not None else []
    grids: Iterator[Grid] = itertools.chain(first, _grids(n, frames))
    if kind == "sinusoid":  # which is of the tokens' numbers: of every such grid, or of none
        grids = itertools.islice(grids, 1)
    return next((grid for grid in grids if same(position_table(kind, grid, dim, cpu))), None)


def _grids(n: int, frames: int) -> Iterator[Grid]:
    """Every grid of so many tokens: square frames before others, and as many slots as 16 frames have before others."""
    slots = [1] if frames == 1 else [t for t in range(1, n + 1) if n % t == 0]
    usual = max(1, _FRAMES // frames)
    slots.sort(key=lambda t: abs(t - usual))
    squares = [Grid(t, isqrt(n // t), isqrt(n // t)) for t in slots if isqrt(n // t) ** 2 == n // t]
    yield from squares
    for t in slots:
        places = n // t
        yield from (Grid(t, h, places // h) for h in range(1, places + 1) if places % h == 0 and h * h != places)
