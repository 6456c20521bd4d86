"""What the shapes of a foreign file say of its encoder and its decoder; the rest is asked of the hint, or assumed."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.models.decoder import DecoderConfig
from vidstill.models.layers import NORM_EPS, AttentionBias
from vidstill.models.position_embeddings import FixedPositionKind, PositionKind, build_position_table
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.types import Grid, InputError

PATCH_EMBED_WEIGHT = "patch_embed.proj.weight"  # the authors embed by a convolution
_NUM_HEADS = {1280: 16, 1408: 16}  # ViT-H and VideoMAE V2's ViT-g; all other sizes have 64 channels a head
_USUAL_DEPTHS = {192: 12, 384: 12, 768: 12, 1024: 24, 1280: 32, 1408: 40}
_PLACEHOLDER_LAYER_SCALE = 0.1  # a first value of the branch factors: it says that there are some, and is overwritten


@dataclass(frozen=True)
class InferredEncoder:
    """
    Args:
        stored_grid: the tokens of which a stored table of computed codes is.
    """

    config: ViTConfig
    notes: tuple[str, ...]
    stored_grid: tuple[int, int, int] | None


@dataclass(frozen=True)
class BlockStack:
    """What a stack of blocks says of itself."""

    depth: int
    mlp_ratio: float
    attention_bias: AttentionBias
    has_layer_scale: bool


def infer_encoder(
    tensors: Mapping[str, Tensor],
    hint: ViTConfig | None,
    *,
    default_positions: FixedPositionKind,
    requires_table: bool = False,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> InferredEncoder:
    """The encoder of a file whose tensors have VideoMAE's or MAE's names, without a prefix.

    Args:
        hint: decides what the shapes do not say, and is held to what they do.
        default_positions: the kind of codes where neither a table nor the hint says it.
        requires_table: the layout always has its tables: a file without one is incomplete.

    Raises:
        InputError: the tensors contradict themselves or the hint, or heads are not known.
    """
    kernel = tensors[PATCH_EMBED_WEIGHT]
    if kernel.ndim not in (4, 5) or kernel.shape[1] != 3:
        raise InputError(
            f"{PATCH_EMBED_WEIGHT!r} is {tuple(kernel.shape)}; a kernel is (width, 3, frames, rows, columns)"
        )
    dim = len(kernel)
    of_images = kernel.ndim == 4
    tubelet = (1, *kernel.shape[2:]) if of_images else tuple(kernel.shape[2:])
    stack = infer_block_stack(tensors, "blocks.", dim)
    notes = [*describe_depth(dim, stack.depth, hint)]
    heads, said = infer_num_heads(dim, hint)
    alike = hint if hint is not None and (hint.tubelet[0] == 1) == (tubelet[0] == 1) else None
    class_token = "cls_token" in tensors
    if alike is not None and alike.class_token and not class_token:  # before its table is asked what row it lacks
        raise InputError(_format_missing_part("class token"))
    codes = infer_positions(
        tensors,
        "pos_embed",
        dim,
        tubelet[0],
        expected_kind=alike.positions if alike else None,
        hint_grid=hint.learned_grid if hint else None,
        class_token=class_token,
        default_positions=default_positions,
        requires_table=requires_table,
    )
    colours = (hint.mean, hint.std) if hint else (mean, std)
    notes += [said, *codes.notes, *describe_color_normalization(hint, mean)]
    scale = (
        (hint.layer_scale if hint and hint.layer_scale else _PLACEHOLDER_LAYER_SCALE) if stack.has_layer_scale else 0.0
    )
    config = ViTConfig(
        dim=dim,
        depth=stack.depth,
        heads=heads,
        mlp_ratio=stack.mlp_ratio,
        tubelet=(tubelet[0], tubelet[1], tubelet[2]),
        drop_remainder=hint.drop_remainder if hint else False,
        positions=codes.kind,
        learned_grid=codes.learned_grid,
        class_token=class_token,
        layer_scale=scale,
        attention_bias=stack.attention_bias,
        norm_eps=hint.norm_eps if hint else NORM_EPS,
        mean=colours[0],
        std=colours[1],
    )
    return InferredEncoder(config, tuple(notes), codes.stored_grid)


@dataclass(frozen=True)
class InferredPositions:
    """
    Args:
        learned_grid: for which learned codes are.
        notes: what is to be said of them.
        stored_grid: the tokens of which a stored table of computed codes is.
    """

    kind: PositionKind
    learned_grid: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()
    stored_grid: tuple[int, int, int] | None = None


def infer_decoder(
    tensors: Mapping[str, Tensor],
    prefix: str,
    dim: int,
    *,
    heads: int,
    positions: InferredPositions,
    class_token: Literal["none", "encoder", "own"] = "none",
    project_bias: bool = False,
) -> DecoderConfig:
    """The decoder whose blocks have this prefix, of this width."""
    stack = infer_block_stack(tensors, prefix, dim)
    return DecoderConfig(
        dim=dim,
        depth=stack.depth,
        heads=heads if dim % heads == 0 else 1,
        mlp_ratio=stack.mlp_ratio,
        positions=positions.kind,
        learned_grid=positions.learned_grid,
        class_token=class_token,
        embed_bias=project_bias,
        layer_scale=_PLACEHOLDER_LAYER_SCALE if stack.has_layer_scale else 0.0,
        attention_bias=stack.attention_bias,
    )


def infer_block_stack(tensors: Mapping[str, Tensor], prefix: str, dim: int) -> BlockStack:
    """
    Raises:
        InputError: there are no blocks, or one is missing among them.
    """
    found: dict[int, list[str]] = {}
    for name in tensors:
        if match := re.match(rf"{re.escape(prefix)}(\d{{1,4}})\.", name):
            found.setdefault(int(match[1]), []).append(name[match.end() :])
    if not found:
        raise InputError(f"it has no blocks {prefix}0, {prefix}1 and so on")
    if len(found) <= max(found):
        hole = next(number for number in itertools.count() if number not in found)
        raise InputError(f"it has a block {prefix}{max(found)} and no {prefix}{hole}: it is incomplete, fetch it again")
    words = {word for each in found.values() for word in each}
    hidden = Counter(
        len(tensors[name])
        for number in found
        for word in ("bias", "weight")
        if (name := f"{prefix}{number}.mlp.fc1.{word}") in tensors
    )
    if words & {"attn.q_bias", "attn.v_bias"}:
        bias: AttentionBias = "qv"
    else:
        bias = "qkv" if words & {"attn.qkv.bias", "attn.q.bias", "attn.k.bias", "attn.v.bias"} else "none"
    size = hidden.most_common(1)[0][0] if hidden else 4 * dim
    return BlockStack(len(found), _infer_mlp_ratio(dim, size), bias, bool(words & {"gamma_1", "gamma_2"}))


def _infer_mlp_ratio(dim: int, hidden: int) -> float:
    """The ratio that gives a perceptron of this size, the family's own before others."""
    return next(ratio for ratio in (4.0, 48 / 11, hidden / dim, (hidden + 0.5) / dim) if int(dim * ratio) == hidden)


def infer_num_heads(dim: int, hint: ViTConfig | None) -> tuple[int, str]:
    """How many heads an encoder has, which no shape says; and whence it is known.

    Raises:
        InputError: neither the hint nor the family says.
    """
    if hint is not None:
        if hint.dim != dim:
            raise InputError(_format_size_mismatch("dim", dim, hint.dim))
        return hint.heads, f"{hint.heads} heads, as the recipe has it: the file does not say"
    if dim in _NUM_HEADS or dim % 64 == 0:
        heads = _NUM_HEADS.get(dim, dim // 64)
        return heads, f"{heads} heads, {dim // heads} channels each, as in the family: the file does not say"
    raise InputError(
        f"its encoder is {dim} wide, which is no size of the family, and no file says how many heads it has; name a "
        "recipe that has this width (--hint RECIPE of `vidstill weights`), or take --encoder.dim and --encoder.heads"
    )


def describe_depth(dim: int, depth: int, hint: ViTConfig | None) -> list[str]:
    usual = _USUAL_DEPTHS.get(dim)
    if hint is not None or usual in (None, depth):
        return []
    return [f"{depth} blocks, where the family's encoder of this width has {usual}: the file may be cut off"]


def describe_color_normalization(hint: ViTConfig | None, layout_mean: tuple[float, ...]) -> list[str]:
    if hint is not None:
        return ["colours are normalised, and layer norms' eps is, as the recipe has it: the file does not say"]
    whose = "ImageNet's" if layout_mean == IMAGENET_MEAN else f"the layout's, mean {layout_mean[0]:g}"
    return [f"colours are normalised by {whose}; layer norms' eps is 1e-6: the file does not say"]


def check_encoder_matches(config: ViTConfig, hint: ViTConfig) -> None:
    """Holds a file's encoder to the one that is asked for.

    Raises:
        InputError: its sizes are others, or it lacks what is asked for.
    """
    alike = (hint.tubelet[0] == 1) == (config.tubelet[0] == 1)
    for name in ("dim", "depth", "mlp_ratio", *(["tubelet"] if alike else [])):
        theirs, asked = getattr(config, name), getattr(hint, name)
        if theirs != asked and not (name == "mlp_ratio" and int(config.dim * asked) == int(config.dim * theirs)):
            raise InputError(_format_size_mismatch(name, theirs, asked))
    if not alike:
        return
    if hint.positions in FIXED_POSITION_KINDS and config.positions != hint.positions:
        raise InputError(format_position_mismatch(config.positions, hint.positions))
    lacks = {
        "biases of queries and values": config.attention_bias == "none" != hint.attention_bias,
        "biases of keys": config.attention_bias == "qv" and hint.attention_bias == "qkv",
        "class token": hint.class_token and not config.class_token,
        "factors gamma_1 and gamma_2": hint.layer_scale > 0 and not config.layer_scale,
    }
    if missing := [what for what, is_missing in lacks.items() if is_missing]:
        raise InputError(_format_missing_part(missing[0]))


def _format_missing_part(part: str) -> str:
    return f"it has no {part}, which the encoder that is asked for has: it is of another kind"


def _format_size_mismatch(name: str, size: object, expected: object) -> str:
    word = {"dim": "a width of", "depth": "a depth of"}.get(name, name)
    return (
        f"its encoder has {word} {size}, and {expected} is asked for; take the size that the file was made with "
        f"(--encoder.{name.replace('_', '-')}), or another file"
    )


FIXED_POSITION_KINDS: tuple[FixedPositionKind, ...] = ("sinusoid", "sincos2d", "sincos3d")


POSITION_DESCRIPTIONS = {
    "sinusoid": "sinusoid (VideoMAE's)",
    "sincos2d": "sincos2d (MAE's)",
    "sincos3d": "sincos3d (MVD's)",
    "learned": "learned",
    "separable": "separable (ST-MAE's)",
}


_USUAL_FRAMES = 16  # of the family's clips


_MAX_TABLE_TOKENS = 1 << 16  # tokens of which a table is compared with the computed ones


def infer_positions(
    tensors: Mapping[str, Tensor],
    name: str,
    dim: int,
    frames: int,
    *,
    expected_kind: PositionKind | None,
    hint_grid: tuple[int, int, int] | None,
    class_token: bool,
    default_positions: FixedPositionKind,
    requires_table: bool = False,
) -> InferredPositions:
    """The codes that a file has under a name, or under `…_spatial` and `…_temporal`.

    Args:
        frames: of a tubelet; 1: of images.
        expected_kind: the kind that is asked for; None: none is.
        hint_grid: what a learned table is taken to be for, where it has as many tokens.
        computed, stored: as for `infer_encoder`.

    Raises:
        InputError: the table does not fit the encoder, or is of another kind than is asked for.
    """
    if f"{name}_spatial" in tensors or f"{name}_temporal" in tensors:
        found = InferredPositions("separable", _infer_separable_grid(tensors, name, hint_grid))
    elif name in tensors:
        found = _infer_joint_positions(
            _check_position_table(tensors[name], name, dim), name, frames, hint_grid, class_token=class_token
        )
    elif expected_kind in FIXED_POSITION_KINDS:
        return InferredPositions(
            expected_kind,
            None,
            (f"positions {POSITION_DESCRIPTIONS[expected_kind]}, as the recipe has it: the file has no table",),
        )
    elif requires_table:
        raise InputError(f"it has no {name!r}, which every file of its layout has: it is incomplete")
    else:
        said = f"positions {POSITION_DESCRIPTIONS[default_positions]}, as in the layout: the file has no table"
        if default_positions == "sinusoid":
            said += "; classifiers of MVD look alike and have sincos3d, which a recipe of MVD says (--hint)"
        found = InferredPositions(default_positions, None, (said,))
    later_learned = (
        expected_kind == "learned" and found.kind in FIXED_POSITION_KINDS
    )  # a fine-tuning may learn on from computed codes
    if expected_kind is not None and found.kind != expected_kind and not later_learned:
        raise InputError(format_position_mismatch(found.kind, expected_kind))
    return found


def format_position_mismatch(positions: PositionKind, expected: PositionKind) -> str:
    return (
        f"it has positions of another kind: {POSITION_DESCRIPTIONS[positions]}, and {POSITION_DESCRIPTIONS[expected]} are asked for; take a recipe whose "
        f"encoder has them, or --encoder.positions {positions}"
    )


def _check_position_table(tensor: Tensor, name: str, dim: int) -> Float[Tensor, "n d"]:
    if tensor.ndim != 3 or len(tensor) != 1 or tensor.shape[2] != dim:
        raise InputError(f"{name!r} is {tuple(tensor.shape)}; a table of positions is (1, tokens, {dim})")
    return tensor[0]


def _infer_separable_grid(
    tensors: Mapping[str, Tensor], name: str, hint_grid: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    lacking = [word for word in ("spatial", "temporal") if f"{name}_{word}" not in tensors]
    if lacking:
        raise InputError(f"it has no {f'{name}_{lacking[0]}'!r}: it is incomplete")
    slots, places = (tensors[f"{name}_{word}"].shape[-2] for word in ("temporal", "spatial"))
    if hint_grid is not None and (hint_grid[0], hint_grid[1] * hint_grid[2]) == (slots, places):
        return hint_grid
    side = isqrt(places)
    if side * side != places:
        raise InputError(_format_unknown_grid(f"{name}_spatial", places))
    return slots, side, side


def _infer_joint_positions(
    table: Float[Tensor, "n d"], name: str, frames: int, hint_grid: tuple[int, int, int] | None, *, class_token: bool
) -> InferredPositions:
    """A table of all tokens, with a row for the class token or without."""
    for first in (1, 0) if class_token else (0,):
        rows = table[first:]
        silent = not table[:first].any()  # of computed codes, the class token has none
        for kind in FIXED_POSITION_KINDS:
            if silent and (grid := _match_fixed_table(rows, kind, frames, hint_grid)) is not None:
                of = "" if kind == "sinusoid" else f" of {grid.t} × {grid.h} × {grid.w} tokens"
                said = f"positions {POSITION_DESCRIPTIONS[kind]}: {name!r} is that table{of}"
                return InferredPositions(kind, None, (said,), (grid.t, grid.h, grid.w))
    n = len(table) - class_token
    if hint_grid is not None and hint_grid[0] * hint_grid[1] * hint_grid[2] == n:
        return InferredPositions("learned", hint_grid, (f"positions learned: {name!r} is none of the computed tables",))
    squares = [grid for grid in _iterate_grids(n, frames) if grid.h == grid.w]
    usual = [grid for grid in squares if grid.t == (1 if frames == 1 else max(1, _USUAL_FRAMES // frames))]
    if not usual and len(squares) != 1:
        raise InputError(_format_unknown_grid(name, n))
    t, h, w = (usual or squares)[0].t, (usual or squares)[0].h, (usual or squares)[0].w
    said = f"positions learned: {name!r} is none of the computed tables, and taken to be of {t} × {h} × {w} tokens"
    return InferredPositions("learned", (t, h, w), (said,))


def _format_unknown_grid(name: str, tokens: int) -> str:
    return (
        f"{name!r} is of {tokens} places, and does not say of which grid; name a recipe whose encoder has it "
        "(--hint RECIPE of `vidstill weights`, or --encoder.learned-grid), e.g. 8 14 14"
    )


def _match_fixed_table(
    position_rows: Float[Tensor, "n d"], kind: FixedPositionKind, frames: int, hint_grid: tuple[int, int, int] | None
) -> Grid | None:
    """The grid whose computed table this is; None: it is none of this kind."""
    n, dim = position_rows.shape
    if not 0 < n <= _MAX_TABLE_TOKENS or dim % {"sinusoid": 1, "sincos2d": 4, "sincos3d": 16}[kind]:
        return None
    near = 1e-4 if position_rows.dtype in (torch.float32, torch.float64) else 5e-3
    cpu = torch.device("cpu")

    def same(table: Tensor) -> bool:
        return torch.allclose(position_rows[: len(table)].float(), table, rtol=0, atol=near)

    if not same(build_position_table(kind, Grid(1, 1, 1), dim, cpu)):
        return None
    first = [grid for grid in [Grid(*hint_grid)] if grid.num_tokens == n] if hint_grid is not None else []
    grids: Iterator[Grid] = itertools.chain(first, _iterate_grids(n, frames))
    if kind == "sinusoid":  # which is of the tokens' numbers: of every such grid, or of none
        grids = itertools.islice(grids, 1)
    return next((grid for grid in grids if same(build_position_table(kind, grid, dim, cpu))), None)


def _iterate_grids(n: int, frames: int) -> Iterator[Grid]:
    """Every grid of so many tokens: square frames before others, and as many slots as 16 frames have before others."""
    slots = [1] if frames == 1 else [t for t in range(1, n + 1) if n % t == 0]
    usual = max(1, _USUAL_FRAMES // frames)
    slots.sort(key=lambda t: abs(t - usual))
    squares = [Grid(t, isqrt(n // t), isqrt(n // t)) for t in slots if isqrt(n // t) ** 2 == n // t]
    yield from squares
    for t in slots:
        places = n // t
        yield from (Grid(t, h, places // h) for h in range(1, places + 1) if places % h == 0 and h * h != places)
