"""Rename rules between foreign state dicts and ours, applied in both directions."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import EinopsError, rearrange
from torch import Tensor

from vidstill.checkpoints.conversion_report import ConversionStatus, TensorConversion
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import InputError


@dataclass(frozen=True)
class RenameRule:
    """Tensors whose names start with `foreign_prefix` are ours under `native_prefix`; the rest of the name stays.

    Args:
        native_prefix: None: the tensor is not needed here.
        to_native: An einops pattern, where the shapes differ.
        to_foreign: The pattern of the way back.
        axis_sizes: Sizes of the axes that `to_foreign` splits.
        chunk: (i, n): the foreign tensor is part i, from 0, of the n equal parts of ours along its rows.
        row_range: Ours is these rows of the foreign tensor, once it has our shape.
    """

    foreign_prefix: str
    native_prefix: str | None
    to_native: str = ""
    to_foreign: str = ""
    axis_sizes: Mapping[str, int] = field(default_factory=dict)
    chunk: tuple[int, int] | None = None
    row_range: tuple[int, int | None] | None = None


@dataclass(frozen=True)
class RenameResult:
    """
    Args:
        tensors: The foreign tensors under our names and in our shapes.
        entries: What became of each; several where one goes to several of ours.
        partial_tensors: Ours of which parts are missing: how many there are, of how many.
    """

    tensors: dict[str, Tensor]
    entries: tuple[TensorConversion, ...]
    partial_tensors: Mapping[str, tuple[int, int]]


def rename_tensors(foreign_tensors: Mapping[str, Tensor], rules: Sequence[RenameRule]) -> RenameResult:
    """Rename foreign tensors by the first rule that fits; a tensor whose shape a rule does not fit keeps its shape."""
    tensors: dict[str, Tensor] = {}
    chunks: dict[str, dict[int, Tensor | None]] = {}
    entries: list[TensorConversion] = []
    for name, tensor in foreign_tensors.items():
        shape = tuple(tensor.shape)
        first = next((rule for rule in rules if name.startswith(rule.foreign_prefix)), None)
        if first is None:
            entries.append(TensorConversion(name, "", shape, "unexplained", "the layout has no such name"))
            continue
        if first.native_prefix is None:
            entries.append(TensorConversion(name, "", shape, "ignored", "not used here"))
            continue
        for rule in rules:
            if rule.foreign_prefix != first.foreign_prefix or rule.native_prefix is None:
                continue
            native_name = rule.native_prefix + name.removeprefix(rule.foreign_prefix)
            shaped = _to_native_shape(tensor, rule)
            if rule.chunk is None:
                tensors[native_name] = shaped
                status: ConversionStatus = "unchanged" if name == native_name else "renamed"
                status = status if shaped.shape == tensor.shape else "reshaped"
                reason = "" if rule.row_range is None else f"rows {rule.row_range[0]} to {rule.row_range[1] or 'last'}"
            else:
                index, count = rule.chunk
                chunks.setdefault(native_name, dict.fromkeys(range(count)))[index] = shaped
                status, reason = "reshaped", f"part {index + 1} of {count}"
            entries.append(TensorConversion(name, native_name, shape, status, reason))
    partial = {}
    for name, parts in chunks.items():
        present = [part for part in parts.values() if part is not None]
        if len(present) < len(parts) or len({part.shape[1:] for part in present}) > 1:
            partial[name] = (len(present) if len(present) < len(parts) else 1, len(parts))
        else:
            tensors[name] = torch.cat(present)
    return RenameResult(tensors, tuple(entries), partial)


def _to_native_shape(tensor: Tensor, rule: RenameRule) -> Tensor:
    try:
        shaped = rearrange(tensor, rule.to_native) if rule.to_native else tensor
    except EinopsError:
        return tensor  # its shape is reported later
    return shaped if rule.row_range is None or not shaped.ndim else shaped[slice(*rule.row_range)]


def rename_to_foreign(
    tensors: Mapping[str, Tensor], rules: Sequence[RenameRule], error_prefix: str
) -> dict[str, Tensor]:
    """Our tensors under foreign names and in foreign shapes.

    Args:
        error_prefix: How the error message starts.

    Raises:
        InputError: No rule fits a tensor.
    """
    foreign: dict[str, Tensor] = {}
    row_parts: dict[str, list[tuple[RenameRule, Tensor]]] = defaultdict(list)
    for name, tensor in tensors.items():
        matching = [rule for rule in rules if rule.native_prefix is not None and name.startswith(rule.native_prefix)]
        if not matching:
            raise InputError(f"{error_prefix}: it has no name for {name!r}, of shape {tuple(tensor.shape)}")
        first = matching[0]
        suffix = name.removeprefix(str(first.native_prefix))
        parts = [rule for rule in rules if rule.native_prefix == first.native_prefix and rule.chunk is not None]
        if first.row_range is not None:
            row_parts[first.foreign_prefix + suffix].append((first, tensor))
        elif parts:
            for rule, part in zip(parts, tensor.chunk(len(parts)), strict=True):  # copies: in a file, views share one
                foreign[rule.foreign_prefix + suffix] = _to_foreign_shape(part.clone(), rule)
        else:
            foreign[first.foreign_prefix + suffix] = _to_foreign_shape(tensor, first)
    for name, pairs in row_parts.items():
        pairs.sort(key=lambda pair: pair[0].row_range or (0, None))
        foreign[name] = _to_foreign_shape(torch.cat([tensor for _, tensor in pairs]), pairs[0][0])
    return foreign


def _to_foreign_shape(tensor: Tensor, rule: RenameRule) -> Tensor:
    return rearrange(tensor, rule.to_foreign, **rule.axis_sizes) if rule.to_foreign else tensor


def build_vit_rules(
    config: ViTConfig, foreign_prefix: str, native_prefix: str, *, is_image: bool = False, separate_qkv: bool = False
) -> tuple[RenameRule, ...]:
    """The rules of an encoder; the authors embed patches by a convolution, whose kernel is our matrix.

    Args:
        config: The encoder.
        foreign_prefix: Of its names in the foreign file.
        native_prefix: Of its names in ours.
        is_image: The foreign convolution is over images.
        separate_qkv: The foreign file has a layer each for queries, keys and values.
    """
    t, h, w = config.tubelet
    kernel, matrix = ("d c h w", "d (c h w)") if is_image else ("d c t h w", "d (c t h w)")
    sizes = {"c": 3, "h": h, "w": w} | ({} if is_image else {"t": t})
    blocks = f"{foreign_prefix}blocks.", f"{native_prefix}blocks."
    return (
        RenameRule(
            f"{foreign_prefix}patch_embed.proj.weight",
            f"{native_prefix}patch_embed.weight",
            f"{kernel} -> {matrix}",
            f"{matrix} -> {kernel}",
            sizes,
        ),
        RenameRule(f"{foreign_prefix}patch_embed.proj.bias", f"{native_prefix}patch_embed.bias"),
        build_token_rule(f"{foreign_prefix}cls_token", f"{native_prefix}cls_token"),
        *_build_position_rules(config, f"{foreign_prefix}pos_embed", f"{native_prefix}positions."),
        *(build_qkv_rules(*blocks, config.depth) if separate_qkv else ()),
        RenameRule(*blocks),
        RenameRule(f"{foreign_prefix}norm.", f"{native_prefix}norm."),
    )


def build_mae_decoder_rules(config: DecoderConfig, *, separate_qkv: bool) -> tuple[RenameRule, ...]:
    """The rules of a decoder of MAE, DMAE and ST-MAE."""
    blocks = "decoder_blocks.", "decoder.trunk.blocks."
    return (
        RenameRule("decoder_embed.", "decoder.embed."),
        build_token_rule("mask_token", "decoder.trunk.mask_token"),
        build_token_rule("decoder_cls_token", "decoder.trunk.cls_token"),
        *_build_position_rules(config, "decoder_pos_embed", "decoder.trunk.positions."),
        *(build_qkv_rules(*blocks, config.depth) if separate_qkv else ()),
        RenameRule(*blocks),
        RenameRule("decoder_norm.", "decoder.norm."),
        RenameRule("decoder_pred.", "decoder.head."),
    )


def build_token_rule(foreign_name: str, native_name: str) -> RenameRule:
    return RenameRule(foreign_name, native_name, "1 1 d -> 1 d", "1 d -> 1 1 d")


def _build_position_rules(
    config: ViTConfig | DecoderConfig, foreign_prefix: str, native_prefix: str
) -> tuple[RenameRule, ...]:
    table = ("1 n d -> n d", "n d -> 1 n d")
    if config.positions == "separable":
        return (
            RenameRule(f"{foreign_prefix}_spatial", f"{native_prefix}space", *table),
            RenameRule(f"{foreign_prefix}_temporal", f"{native_prefix}time", *table),
            RenameRule(f"{foreign_prefix}_class", f"{native_prefix}cls_embedding", *table),
        )
    if config.positions != "learned":
        return (RenameRule(foreign_prefix, None),)  # some authors store the fixed table; ours is computed
    if config.class_token in (False, "none"):
        return (RenameRule(foreign_prefix, f"{native_prefix}joint", *table),)
    return (
        RenameRule(foreign_prefix, f"{native_prefix}cls_embedding", *table, row_range=(0, 1)),
        RenameRule(foreign_prefix, f"{native_prefix}joint", *table, row_range=(1, None)),
    )


def build_qkv_rules(foreign_prefix: str, native_prefix: str, depth: int) -> tuple[RenameRule, ...]:
    """The rules of blocks with a layer each for queries, keys and values."""
    return tuple(
        RenameRule(f"{foreign_prefix}{block}.attn.{letter}.", f"{native_prefix}{block}.attn.qkv.", chunk=(index, 3))
        for block in range(depth)
        for index, letter in enumerate("qkv")
    )
