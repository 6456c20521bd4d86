"""Infer position embeddings from the tables that a foreign file stores."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, prod

import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.models.position_embeddings import FixedPositionKind, PositionKind, build_position_table
from vidstill.utils.types import Grid, InputError

FIXED_POSITION_KINDS: tuple[FixedPositionKind, ...] = ("sinusoid", "sincos2d", "sincos3d")
POSITION_DESCRIPTIONS = {
    "sinusoid": "sinusoid (VideoMAE's)",
    "sincos2d": "sincos2d (MAE's)",
    "sincos3d": "sincos3d (MVD's)",
    "learned": "learned",
    "separable": "separable (ST-MAE's)",
}
_USUAL_FRAMES = 16  # of the family's clips
_MAX_TABLE_TOKENS = 1 << 16  # larger tables are not compared with the fixed ones
_WIDTH_DIVISORS = {"sinusoid": 1, "sincos2d": 4, "sincos3d": 16}


@dataclass(frozen=True)
class InferredPositions:
    """
    Args:
        learned_grid: The grid of learned positions, in tokens.
        notes: What was assumed or recognized.
        stored_grid: The grid of a stored fixed table, in tokens.
    """

    kind: PositionKind
    learned_grid: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()
    stored_grid: tuple[int, int, int] | None = None


def infer_positions(
    tensors: Mapping[str, Tensor],
    name: str,
    dim: int,
    frames: int,
    default_kind: FixedPositionKind,
    expected_kind: PositionKind | None,
    hint_grid: tuple[int, int, int] | None,
    *,
    class_token: bool,
    requires_table: bool,
) -> InferredPositions:
    """Infer the positions that a file stores under a name, or under `NAME_spatial` and `NAME_temporal`.

    Args:
        tensors: The foreign file's.
        name: Of the table.
        dim: The width that the table must have.
        frames: Of a tubelet; 1: of images.
        default_kind: The kind where neither a table nor `expected_kind` says it.
        expected_kind: The kind of the expected encoder; None: any.
        hint_grid: The grid that a learned table of as many tokens is assumed to have.
        class_token: Whether a class token comes before the tokens.
        requires_table: Files of this layout always store their position tables.

    Raises:
        InputError: The table does not fit the encoder, or is of another kind than expected.
    """
    if f"{name}_spatial" in tensors or f"{name}_temporal" in tensors:
        inferred = InferredPositions("separable", _infer_separable_grid(tensors, name, hint_grid))
    elif name in tensors:
        table = tensors[name]
        if table.ndim != 3 or len(table) != 1 or table.shape[2] != dim:
            raise InputError(f"{name!r} is {tuple(table.shape)}; a position table is (1, tokens, {dim})")
        inferred = _infer_joint_positions(table[0], name, frames, hint_grid, class_token=class_token)
    elif expected_kind in FIXED_POSITION_KINDS:
        note = f"positions {POSITION_DESCRIPTIONS[expected_kind]}, as in the recipe; the file has no table"
        return InferredPositions(expected_kind, notes=(note,))
    elif requires_table:
        raise InputError(f"it has no {name!r}, which every file of its layout has: it is incomplete")
    else:
        note = f"positions {POSITION_DESCRIPTIONS[default_kind]}, as usual in the layout; the file has no table"
        if default_kind == "sinusoid":
            note += "; classifiers of MVD look the same and have sincos3d: weights convert --hint, with a recipe of MVD"
        inferred = InferredPositions(default_kind, notes=(note,))
    continues_fixed = expected_kind == "learned" and inferred.kind in FIXED_POSITION_KINDS  # fine-tuning may learn them
    if expected_kind is not None and inferred.kind != expected_kind and not continues_fixed:
        raise InputError(format_position_mismatch(inferred.kind, expected_kind))
    return inferred


def format_position_mismatch(positions: PositionKind, expected: PositionKind) -> str:
    return (
        f"its positions are of another kind: {POSITION_DESCRIPTIONS[positions]}, and {POSITION_DESCRIPTIONS[expected]} "
        f"are expected; take a recipe whose encoder has them, or set its positions to {positions}"
    )


def _infer_separable_grid(
    tensors: Mapping[str, Tensor], name: str, hint_grid: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    names = f"{name}_temporal", f"{name}_spatial"
    if missing := [each for each in names if each not in tensors]:
        raise InputError(f"it has no {missing[0]!r}: it is incomplete")
    t, area = (tensors[each].shape[-2] for each in names)
    if hint_grid is not None and (hint_grid[0], hint_grid[1] * hint_grid[2]) == (t, area):
        return hint_grid
    side = isqrt(area)
    if side * side != area:
        raise InputError(_format_unknown_grid(f"{name}_spatial", area))
    return t, side, side


def _infer_joint_positions(
    table: Float[Tensor, "n d"], name: str, frames: int, hint_grid: tuple[int, int, int] | None, *, class_token: bool
) -> InferredPositions:
    """Infer the kind of a table of all tokens, with a row for the class token or without."""
    for first in (1, 0) if class_token else (0,):
        rows = table[first:]
        if table[:first].any():  # fixed tables have zeros for the class token
            continue
        for kind in FIXED_POSITION_KINDS:
            if (grid := _match_fixed_table(rows, kind, frames, hint_grid)) is not None:
                size = "" if kind == "sinusoid" else f" of {grid.t} × {grid.h} × {grid.w} tokens"
                note = f"positions {POSITION_DESCRIPTIONS[kind]}: {name!r} is that table{size}"
                return InferredPositions(kind, None, (note,), (grid.t, grid.h, grid.w))
    n = len(table) - class_token
    note = f"positions learned: {name!r} is none of the fixed tables"
    if hint_grid is not None and prod(hint_grid) == n:
        return InferredPositions("learned", hint_grid, (note,))
    squares = [grid for grid in _list_grids(n, frames) if grid.h == grid.w]
    usual = [grid for grid in squares if grid.t == _count_usual_steps(frames)]
    if not usual and len(squares) != 1:
        raise InputError(_format_unknown_grid(name, n))
    grid = (usual or squares)[0]
    note += f", and is assumed to be of {grid.t} × {grid.h} × {grid.w} tokens"
    return InferredPositions("learned", (grid.t, grid.h, grid.w), (note,))


def _format_unknown_grid(name: str, tokens: int) -> str:
    return (
        f"{name!r} is of {tokens} tokens, and does not say of which grid; name a recipe whose encoder has it: "
        "vidstill weights convert FILE --to vidstill --hint RECIPE"
    )


def _match_fixed_table(
    position_rows: Float[Tensor, "n d"], kind: FixedPositionKind, frames: int, hint_grid: tuple[int, int, int] | None
) -> Grid | None:
    """Return the grid whose fixed table of this kind this is, if any."""
    n, dim = position_rows.shape
    if not 0 < n <= _MAX_TABLE_TOKENS or dim % _WIDTH_DIVISORS[kind]:
        return None
    tolerance = 1e-4 if position_rows.dtype in (torch.float32, torch.float64) else 5e-3

    def is_table_of(grid: Grid) -> bool:
        table = build_position_table(kind, grid, dim, torch.device("cpu"))
        return torch.allclose(position_rows[: len(table)].float(), table, rtol=0, atol=tolerance)

    if not is_table_of(Grid(1, 1, 1)):
        return None
    grids = [Grid(*hint_grid)] if hint_grid is not None and prod(hint_grid) == n else []
    grids += _list_grids(n, frames)
    return next(filter(is_table_of, grids[:1] if kind == "sinusoid" else grids), None)  # which depends on n alone


def _count_usual_steps(frames: int) -> int:
    return 1 if frames == 1 else max(1, _USUAL_FRAMES // frames)


def _list_grids(n: int, frames: int) -> list[Grid]:
    """Return every grid of n tokens: square frames first, and those with as many time steps as 16 frames have first."""
    steps = [1] if frames == 1 else [t for t in range(1, n + 1) if n % t == 0]
    steps.sort(key=lambda t: abs(t - _count_usual_steps(frames)))
    grids = [Grid(t, h, n // t // h) for t in steps for h in range(1, n // t + 1) if n // t % h == 0]
    return sorted(grids, key=lambda grid: grid.h != grid.w)
