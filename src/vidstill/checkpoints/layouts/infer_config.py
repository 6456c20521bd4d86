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
from vidstill.models.position_embeddings import FixedPositions, Positions, position_table
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.types import Grid, InputError

KERNEL = "patch_embed.proj.weight"  # the authors embed by a convolution
_HEADS = {1280: 16, 1408: 16}  # ViT-H and VideoMAE V2's ViT-g; all other sizes have 64 channels a head
_DEPTHS = {192: 12, 384: 12, 768: 12, 1024: 24, 1280: 32, 1408: 40}
_SCALE = 0.1  # a first value of the branch factors: it says that there are some, and is overwritten


@dataclass(frozen=True)
class Found:
    """
    Args:
        grid: the tokens of which a stored table of computed codes is.
    """

    config: ViTConfig
    notes: tuple[str, ...]
    grid: tuple[int, int, int] | None


@dataclass(frozen=True)
class Stack:
    """What a stack of blocks says of itself."""

    depth: int
    mlp_ratio: float
    attention_bias: AttentionBias
    scaled: bool


def encoder_of(
    tensors: Mapping[str, Tensor],
    hint: ViTConfig | None,
    *,
    computed: FixedPositions,
    stored: bool = False,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Found:
    """The encoder of a file whose tensors have VideoMAE's or MAE's names, without a prefix.

    Args:
        hint: decides what the shapes do not say, and is held to what they do.
        computed: the kind of codes where neither a table nor the hint says it.
        stored: the layout always has its tables: a file without one is incomplete.

    Raises:
        InputError: the tensors contradict themselves or the hint, or heads are not known.
    """
    kernel = tensors[KERNEL]
    if kernel.ndim not in (4, 5) or kernel.shape[1] != 3:
        raise InputError(f"{KERNEL!r} is {tuple(kernel.shape)}; a kernel is (width, 3, frames, rows, columns)")
    dim = len(kernel)
    of_images = kernel.ndim == 4
    tubelet = (1, *kernel.shape[2:]) if of_images else tuple(kernel.shape[2:])
    stack = stack_of(tensors, "blocks.", dim)
    notes = [*depth_notes(dim, stack.depth, hint)]
    heads, said = heads_of(dim, hint)
    alike = hint if hint is not None and (hint.tubelet[0] == 1) == (tubelet[0] == 1) else None
    class_token = "cls_token" in tensors
    if alike is not None and alike.class_token and not class_token:  # before its table is asked what row it lacks
        raise InputError(_lacking("class token"))
    codes = codes_of(
        tensors,
        "pos_embed",
        dim,
        tubelet[0],
        asked=alike.positions if alike else None,
        grid=hint.learned_grid if hint else None,
        class_token=class_token,
        computed=computed,
        stored=stored,
    )
    colours = (hint.mean, hint.std) if hint else (mean, std)
    notes += [said, *codes.notes, *colour_notes(hint, mean)]
    scale = (hint.layer_scale if hint and hint.layer_scale else _SCALE) if stack.scaled else 0.0
    config = ViTConfig(
        dim=dim,
        depth=stack.depth,
        heads=heads,
        mlp_ratio=stack.mlp_ratio,
        tubelet=(tubelet[0], tubelet[1], tubelet[2]),
        drop_remainder=hint.drop_remainder if hint else False,
        positions=codes.kind,
        learned_grid=codes.grid,
        class_token=class_token,
        layer_scale=scale,
        attention_bias=stack.attention_bias,
        norm_eps=hint.norm_eps if hint else NORM_EPS,
        mean=colours[0],
        std=colours[1],
    )
    return Found(config, tuple(notes), codes.seen)


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


def decoder_of(
    tensors: Mapping[str, Tensor],
    prefix: str,
    dim: int,
    *,
    heads: int,
    codes: Codes,
    class_token: Literal["none", "encoder", "own"] = "none",
    project_bias: bool = False,
) -> DecoderConfig:
    """The decoder whose blocks have this prefix, of this width."""
    stack = stack_of(tensors, prefix, dim)
    return DecoderConfig(
        dim=dim,
        depth=stack.depth,
        heads=heads if dim % heads == 0 else 1,
        mlp_ratio=stack.mlp_ratio,
        positions=codes.kind,
        learned_grid=codes.grid,
        class_token=class_token,
        project_bias=project_bias,
        layer_scale=_SCALE if stack.scaled else 0.0,
        attention_bias=stack.attention_bias,
    )


def stack_of(tensors: Mapping[str, Tensor], prefix: str, dim: int) -> Stack:
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
    return Stack(len(found), _ratio(dim, size), bias, bool(words & {"gamma_1", "gamma_2"}))


def _ratio(dim: int, hidden: int) -> float:
    """The ratio that gives a perceptron of this size, the family's own before others."""
    return next(ratio for ratio in (4.0, 48 / 11, hidden / dim, (hidden + 0.5) / dim) if int(dim * ratio) == hidden)


def heads_of(dim: int, hint: ViTConfig | None) -> tuple[int, str]:
    """How many heads an encoder has, which no shape says; and whence it is known.

    Raises:
        InputError: neither the hint nor the family says.
    """
    if hint is not None:
        if hint.dim != dim:
            raise InputError(_other_size("dim", dim, hint.dim))
        return hint.heads, f"{hint.heads} heads, as the recipe has it: the file does not say"
    if dim in _HEADS or dim % 64 == 0:
        heads = _HEADS.get(dim, dim // 64)
        return heads, f"{heads} heads, {dim // heads} channels each, as in the family: the file does not say"
    raise InputError(
        f"its encoder is {dim} wide, which is no size of the family, and no file says how many heads it has; name a "
        "recipe that has this width (--hint RECIPE of `vidstill weights`), or take --encoder.dim and --encoder.heads"
    )


def depth_notes(dim: int, depth: int, hint: ViTConfig | None) -> list[str]:
    usual = _DEPTHS.get(dim)
    if hint is not None or usual in (None, depth):
        return []
    return [f"{depth} blocks, where the family's encoder of this width has {usual}: the file may be cut off"]


def colour_notes(hint: ViTConfig | None, mean: tuple[float, ...]) -> list[str]:
    if hint is not None:
        return ["colours are normalised, and layer norms' eps is, as the recipe has it: the file does not say"]
    whose = "ImageNet's" if mean == IMAGENET_MEAN else f"the layout's, mean {mean[0]:g}"
    return [f"colours are normalised by {whose}; layer norms' eps is 1e-6: the file does not say"]


def agrees(found: ViTConfig, hint: ViTConfig) -> None:
    """Holds a file's encoder to the one that is asked for.

    Raises:
        InputError: its sizes are others, or it lacks what is asked for.
    """
    alike = (hint.tubelet[0] == 1) == (found.tubelet[0] == 1)
    for name in ("dim", "depth", "mlp_ratio", *(["tubelet"] if alike else [])):
        theirs, asked = getattr(found, name), getattr(hint, name)
        if theirs != asked and not (name == "mlp_ratio" and int(found.dim * asked) == int(found.dim * theirs)):
            raise InputError(_other_size(name, theirs, asked))
    if not alike:
        return
    if hint.positions in KINDS and found.positions != hint.positions:
        raise InputError(of_another_kind(found.positions, hint.positions))
    lacks = {
        "biases of queries and values": found.attention_bias == "none" != hint.attention_bias,
        "biases of keys": found.attention_bias == "qv" and hint.attention_bias == "qkv",
        "class token": hint.class_token and not found.class_token,
        "factors gamma_1 and gamma_2": hint.layer_scale > 0 and not found.layer_scale,
    }
    if missing := [what for what, is_missing in lacks.items() if is_missing]:
        raise InputError(_lacking(missing[0]))


def _lacking(what: str) -> str:
    return f"it has no {what}, which the encoder that is asked for has: it is of another kind"


def _other_size(name: str, found: object, asked: object) -> str:
    word = {"dim": "a width of", "depth": "a depth of"}.get(name, name)
    return (
        f"its encoder has {word} {found}, and {asked} is asked for; take the size that the file was made with "
        f"(--encoder.{name.replace('_', '-')}), or another file"
    )


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
