"""What the shapes of a foreign file say of its encoder and its decoder; the rest is asked of the hint, or assumed."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from vidstill.models.decoder import DecoderConfig
from vidstill.models.layers import NORM_EPS, AttentionBias
from vidstill.models.positions import FixedPositions
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.types import InputError
from vidstill.weights.layouts.tables import KINDS, Codes, codes_of, of_another_kind

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
