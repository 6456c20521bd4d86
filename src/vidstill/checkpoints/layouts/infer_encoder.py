"""A foreign file, and the encoder and decoder that its names and shapes say; the rest comes from the hint."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from vidstill.checkpoints.layouts.infer_positions import FIXED_POSITION_KINDS, format_position_mismatch, infer_positions
from vidstill.models.decoder import DecoderConfig
from vidstill.models.layers import NORM_EPS, AttentionBias
from vidstill.models.position_embeddings import FixedPositionKind
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD, ViTConfig
from vidstill.utils.types import InputError

DecoderClassToken = Literal["none", "encoder", "own"]
PATCH_EMBED_WEIGHT = "patch_embed.proj.weight"  # the authors embed patches by a convolution
_NUM_HEADS = {1280: 16, 1408: 16}  # ViT-H and VideoMAE V2's ViT-g; all other sizes have 64 channels a head
_USUAL_DEPTHS = {192: 12, 384: 12, 768: 12, 1024: 24, 1280: 32, 1408: 40}
_PLACEHOLDER_LAYER_SCALE = 0.1  # an initial value: it says that there is layer scale, and is overwritten


@dataclass(frozen=True)
class ForeignFile:
    """A file to be recognized.

    Args:
        metadata: What stands beside the tensors: `config.json` of transformers, or a trainer's options.
        hint: The encoder the caller expects. It decides what the file does not say (heads, the kind of fixed
            positions); None: the usual values of the family.
    """

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    hint: ViTConfig | None = None

    @cached_property
    def top_modules(self) -> set[str]:
        """The names up to their first dot."""
        return {name.partition(".")[0] for name in self.tensors}

    @property
    def has_separate_qkv(self) -> bool:
        """Whether there is a layer each for queries, keys and values."""
        return not any(".attn.qkv." in name for name in self.tensors)

    def select(self, prefix: str) -> "ForeignFile":
        """Return the tensors under a prefix, without it."""
        return replace(self, tensors=select_prefix(self.tensors, prefix))

    def count_rows(self, name: str) -> int:
        """Return the number of outputs of a layer.

        Raises:
            InputError: There is no tensor of this name.
        """
        if name not in self.tensors or not self.tensors[name].ndim:
            raise InputError(f"it has no {name!r}, which every file of its layout has: it is incomplete")
        return len(self.tensors[name])

    def has_patch_embed(self, ndim: int, prefix: str = "") -> bool:
        """Return whether there is a patch embedding of videos (a kernel of 5 dimensions) or of images (4)."""
        weight = self.tensors.get(prefix + PATCH_EMBED_WEIGHT)
        return weight is not None and weight.ndim == ndim


def select_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def list_indices(names: Mapping[str, Tensor], prefix: str) -> list[int]:
    """Return the numbers that follow a prefix in names, ascending."""
    matches = (re.match(rf"{re.escape(prefix)}(\d{{1,4}})\.", name) for name in names)
    return sorted({int(match[1]) for match in matches if match})


@dataclass(frozen=True)
class InferredEncoder:
    """
    Args:
        config: The encoder.
        notes: What was assumed or taken from the hint.
        stored_grid: The grid of a stored fixed position table, in tokens.
    """

    config: ViTConfig
    notes: tuple[str, ...]
    stored_grid: tuple[int, int, int] | None


def infer_encoder(
    file: ForeignFile,
    *,
    default_positions: FixedPositionKind,
    requires_table: bool = False,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> InferredEncoder:
    """Infer the encoder of a file whose tensors have VideoMAE's or MAE's names, without a prefix.

    Args:
        file: Its hint decides what the shapes do not say, and must agree with what they do.
        default_positions: The kind of positions where neither a table nor the hint says it.
        requires_table: Files of this layout always store their position tables.
        mean: The colour mean where there is no hint.
        std: The colour standard deviation where there is no hint.

    Raises:
        InputError: The tensors contradict themselves or the hint, or the number of heads is unknown.
    """
    tensors, hint = file.tensors, file.hint
    kernel = tensors[PATCH_EMBED_WEIGHT]
    if kernel.ndim not in (4, 5) or kernel.shape[1] != 3:
        raise InputError(
            f"{PATCH_EMBED_WEIGHT!r} is {tuple(kernel.shape)}; a kernel is (dim, 3, frames, rows, columns)"
        )
    dim, (t, h, w) = len(kernel), ((1, *kernel.shape[2:]) if kernel.ndim == 4 else kernel.shape[2:])
    stack = infer_block_stack(tensors, "blocks.", dim)
    if hint and hint.layer_scale and "layer_scale" in stack:
        stack["layer_scale"] = hint.layer_scale
    heads, heads_note = infer_num_heads(dim, hint)
    same_modality = hint if hint is not None and (hint.tubelet[0] == 1) == (t == 1) else None
    class_token = "cls_token" in tensors
    if same_modality is not None and same_modality.class_token and not class_token:  # before its table is a row short
        raise InputError(_format_missing_part("class token"))
    kind, grid = same_modality.positions if same_modality else None, hint.learned_grid if hint else None
    options = {"class_token": class_token, "requires_table": requires_table}
    positions = infer_positions(tensors, "pos_embed", dim, t, default_positions, kind, grid, **options)
    config = ViTConfig(
        dim=dim,
        heads=heads,
        tubelet=(t, h, w),
        drop_remainder=hint.drop_remainder if hint else False,
        positions=positions.kind,
        learned_grid=positions.learned_grid,
        class_token=class_token,
        norm_eps=hint.norm_eps if hint else NORM_EPS,
        mean=hint.mean if hint else mean,
        std=hint.std if hint else std,
        **stack,
    )
    notes = [heads_note, *positions.notes]
    if hint is not None:
        notes.append("colour normalization and norm eps as in the recipe; the file does not say")
    else:
        usual = _USUAL_DEPTHS.get(dim, config.depth)
        if usual != config.depth:
            usual_depth = f"{config.depth} blocks, where encoders of this width usually have {usual}"
            notes.insert(0, f"{usual_depth}: the file may be cut off")
        colours = "ImageNet's" if config.mean == IMAGENET_MEAN else f"the layout's, mean {config.mean[0]:g}"
        notes.append(f"colour normalization is {colours}, norm eps is {config.norm_eps:g}; the file does not say")
    return InferredEncoder(config, tuple(notes), positions.stored_grid)


def infer_decoder(
    file: ForeignFile,
    prefix: str,
    dim: int,
    inferred: InferredEncoder,
    *,
    kind: FixedPositionKind | None,
    table: str = "",
    heads: int | None = None,
    class_token: DecoderClassToken | None = None,
    embed_bias: bool = True,
) -> tuple[DecoderConfig, tuple[str, ...]]:
    """Infer a decoder, and notes on its positions.

    Args:
        file: The foreign file.
        prefix: Of the blocks' names.
        dim: The decoder's width.
        inferred: The encoder.
        kind: The kind of its fixed positions; None: of any kind, and always stored.
        table: The name of its position table; "": it is never stored.
        heads: Its number of heads; None: of 64 channels. 1 where the width is no multiple of it.
        class_token: Which class token comes before its tokens; None: the encoder's, if there is one.
        embed_bias: Whether the layer before it has a bias.
    """
    encoder = inferred.config
    class_token = class_token or ("encoder" if encoder.class_token else "none")
    frames, grid = encoder.tubelet[0], encoder.learned_grid or inferred.stored_grid
    options = {"class_token": class_token != "none", "requires_table": kind is None}
    positions = infer_positions(file.tensors, table, dim, frames, kind or "sinusoid", kind, grid, **options)
    heads = heads or (dim // 64 if dim % 64 == 0 else 1)
    config = DecoderConfig(
        dim=dim,
        heads=heads if dim % heads == 0 else 1,
        positions=positions.kind,
        learned_grid=positions.learned_grid,
        class_token=class_token,
        embed_bias=embed_bias,
        **infer_block_stack(file.tensors, prefix, dim),
    )
    return config, positions.notes


def infer_block_stack(tensors: Mapping[str, Tensor], prefix: str, dim: int) -> dict[str, Any]:
    """Return the depth, MLP ratio, attention bias and, if there is any, layer scale of a stack of blocks.

    Raises:
        InputError: There are no blocks, or one between others is missing.
    """
    blocks = list_indices(tensors, prefix)
    if not blocks:
        raise InputError(f"it has no blocks {prefix}0, {prefix}1 and so on")
    if len(blocks) <= blocks[-1]:
        gap = next(number for number in itertools.count() if number not in blocks)
        raise InputError(f"it has a block {prefix}{blocks[-1]} and no {prefix}{gap}: it is incomplete, fetch it again")
    suffixes = {name.removeprefix(prefix).partition(".")[2] for name in tensors if name.startswith(prefix)}
    layers = (f"{prefix}{block}.mlp.fc1.{kind}" for block in blocks for kind in ("bias", "weight"))
    hidden = Counter(len(tensors[name]) for name in layers if name in tensors).most_common(1)
    bias: AttentionBias = "none"
    if suffixes & {"attn.q_bias", "attn.v_bias"}:
        bias = "qv"
    elif suffixes & {"attn.qkv.bias", "attn.q.bias", "attn.k.bias", "attn.v.bias"}:
        bias = "qkv"
    ratio = infer_mlp_ratio(dim, hidden[0][0] if hidden else 4 * dim)
    scale = {"layer_scale": _PLACEHOLDER_LAYER_SCALE} if suffixes & {"gamma_1", "gamma_2"} else {}
    return {"depth": len(blocks), "mlp_ratio": ratio, "attention_bias": bias, **scale}


def infer_mlp_ratio(dim: int, hidden: int) -> float:
    """Return the ratio that gives an MLP of this hidden size; the family's own ratios come first."""
    return next(ratio for ratio in (4.0, 48 / 11, hidden / dim, (hidden + 0.5) / dim) if int(dim * ratio) == hidden)


def infer_num_heads(dim: int, hint: ViTConfig | None) -> tuple[int, str]:
    """Return the number of heads, which no shape says, and a note on where it comes from.

    Raises:
        InputError: Neither the hint nor the family's sizes say it.
    """
    if hint is not None:
        if hint.dim != dim:
            raise InputError(_format_size_mismatch("dim", dim, hint.dim))
        return hint.heads, f"{hint.heads} heads, as in the recipe; the file does not say"
    if dim in _NUM_HEADS or dim % 64 == 0:
        heads = _NUM_HEADS.get(dim, dim // 64)
        return heads, f"{heads} heads of {dim // heads} channels, as usual in the family; the file does not say"
    raise InputError(
        f"its encoder has a width of {dim}, which is no size of the family, and no file says how many heads it has; "
        "name a recipe of this width: vidstill weights convert FILE --to vidstill --hint RECIPE"
    )


def check_encoder_matches(config: ViTConfig, hint: ViTConfig) -> None:
    """Compare the encoder of a file with the expected one.

    Raises:
        InputError: Its sizes differ, or it lacks something.
    """
    same_modality = (hint.tubelet[0] == 1) == (config.tubelet[0] == 1)
    for name in ("dim", "depth", "mlp_ratio", *(["tubelet"] if same_modality else [])):
        actual, expected = getattr(config, name), getattr(hint, name)
        same_hidden = name == "mlp_ratio" and int(config.dim * expected) == int(config.dim * actual)
        if actual != expected and not same_hidden:
            raise InputError(_format_size_mismatch(name, actual, expected))
    if not same_modality:
        return
    if hint.positions in FIXED_POSITION_KINDS and config.positions != hint.positions:
        raise InputError(format_position_mismatch(config.positions, hint.positions))
    missing = {
        "biases of queries and values": config.attention_bias == "none" != hint.attention_bias,
        "biases of keys": config.attention_bias == "qv" and hint.attention_bias == "qkv",
        "class token": hint.class_token and not config.class_token,
        "layer scale (gamma_1, gamma_2)": hint.layer_scale > 0 and not config.layer_scale,
    }
    for part in (part for part, is_missing in missing.items() if is_missing):
        raise InputError(_format_missing_part(part))


def _format_missing_part(part: str) -> str:
    return f"it has no {part}, which the expected encoder has: the file is of another kind"


def _format_size_mismatch(name: str, actual: object, expected: object) -> str:
    label = {"dim": "a width of", "depth": "a depth of"}.get(name, name)
    return (
        f"its encoder has {label} {actual}, and {expected} is expected; take the size that the file was "
        "made with, or another file"
    )
