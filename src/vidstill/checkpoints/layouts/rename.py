"""Rename rules between foreign state dicts and ours, applied in both directions."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch
from einops import EinopsError, rearrange
from torch import Tensor

from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.types import InputError, Tubelet

FIXED_TABLE_REASON = "a fixed position table, computed here"
_NUM_PARTS = 3  # queries, keys and values


ConversionStatus = Literal["unchanged", "renamed", "reshaped", "ignored", "missing", "unexplained"]
"""Reshaped: also joined, split or turned. Ignored: left out, with a reason. Missing: not in the file, with a reason.
Unexplained: an error."""


@dataclass(frozen=True)
class TensorConversion:
    """
    Args:
        foreign_name: Its name in the file; "": the file lacks it.
        native_name: Its name here; "": it is not used here.
        shape: In the file; of a missing tensor, in the model.
        reason: Why it is not simply unchanged.
    """

    foreign_name: str
    native_name: str
    shape: tuple[int, ...]
    status: ConversionStatus
    reason: str = ""


@dataclass(frozen=True)
class RenameRule:
    """Tensors whose names start with `foreign_prefix` are ours under `native_prefix`; the rest of the name stays.

    Args:
        foreign_prefix: `*` is the number of a block, the same in both names.
        native_prefix: None: the tensor is not needed here.
        to_native: An einops pattern, where the shapes differ.
        to_foreign: The pattern of the way back.
        axis_sizes: Sizes of the axes that `to_foreign` splits.
        part: Which third of our rows the foreign tensor is: 0 queries, 1 keys, 2 values.
        row_range: Ours is these rows of the foreign tensor, once it has our shape.
        reason: Why the tensor is not needed here.
    """

    foreign_prefix: str
    native_prefix: str | None
    to_native: str = ""
    to_foreign: str = ""
    axis_sizes: Mapping[str, int] = field(default_factory=dict)
    part: int | None = None
    row_range: tuple[int, int | None] | None = None
    reason: str = "not used here"


@cache
def _compile_prefix(prefix: str) -> re.Pattern[str]:
    return re.compile(re.escape(prefix).replace(r"\*", r"(\d+)"))


def _has_prefix(name: str, prefix: str | None) -> bool:
    return prefix is not None and _compile_prefix(prefix).match(name) is not None


def _replace_prefix(name: str, prefix: str, replacement: str) -> str:
    match = _compile_prefix(prefix).match(name)
    assert match is not None
    for number in match.groups():
        replacement = replacement.replace("*", number, 1)
    return replacement + name[match.end() :]


def rename_tensors(
    foreign_tensors: Mapping[str, Tensor], rules: Sequence[RenameRule]
) -> tuple[dict[str, Tensor], list[TensorConversion]]:
    """Rename foreign tensors by the first rule that fits; a tensor whose shape a rule does not fit keeps its shape.

    Returns:
        The tensors under our names and in our shapes, without those of which a part is missing; and what became of
        each foreign tensor, with several entries where it goes to several of ours.
    """
    tensors: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = defaultdict(dict)
    entries: list[TensorConversion] = []
    for name, tensor in foreign_tensors.items():
        shape = tuple(tensor.shape)
        first = next((rule for rule in rules if _has_prefix(name, rule.foreign_prefix)), None)
        if first is None:
            entries.append(TensorConversion(name, "", shape, "unexplained", "the layout has no such name"))
            continue
        if first.native_prefix is None:
            entries.append(TensorConversion(name, "", shape, "ignored", first.reason))
            continue
        for rule in rules:
            if rule.foreign_prefix != first.foreign_prefix or rule.native_prefix is None:
                continue
            native_name = _replace_prefix(name, rule.foreign_prefix, rule.native_prefix)
            shaped = _to_native_shape(tensor, rule)
            status: ConversionStatus = "unchanged" if name == native_name else "renamed"
            status, reason = status if shaped.shape == tensor.shape else "reshaped", ""
            if rule.part is None:
                tensors[native_name] = shaped
            else:
                parts[native_name][rule.part] = shaped
                status, reason = "reshaped", f"part {rule.part + 1} of {_NUM_PARTS}"
            if rule.row_range is not None:
                reason = f"rows {rule.row_range[0]} to {rule.row_range[1] or 'last'}"
            entries.append(TensorConversion(name, native_name, shape, status, reason))
    for name, thirds in parts.items():
        if len(thirds) == _NUM_PARTS:
            can_join = len({third.shape[1:] for third in thirds.values()}) == 1
            tensors[name] = torch.cat([thirds[part] for part in range(_NUM_PARTS)]) if can_join else thirds[0]
    return tensors, entries


def _to_native_shape(tensor: Tensor, rule: RenameRule) -> Tensor:
    try:
        shaped = rearrange(tensor, rule.to_native) if rule.to_native else tensor
    except EinopsError:
        return tensor  # its shape is reported later
    return shaped if rule.row_range is None or not shaped.ndim else shaped[slice(*rule.row_range)]


def rename_to_foreign(
    tensors: Mapping[str, Tensor], rules: Sequence[RenameRule], error_prefix: str
) -> dict[str, Tensor]:
    """Return our tensors under foreign names and in foreign shapes.

    Args:
        error_prefix: How the error message starts.

    Raises:
        InputError: No rule fits a tensor.
    """
    foreign: dict[str, Tensor] = {}
    row_parts: dict[str, list[tuple[RenameRule, Tensor]]] = defaultdict(list)
    for name, tensor in tensors.items():
        first = next((rule for rule in rules if _has_prefix(name, rule.native_prefix)), None)
        if first is None:
            raise InputError(f"{error_prefix}: it has no name for {name!r}, of shape {tuple(tensor.shape)}")
        pairs = [(first, tensor)]
        if first.part is not None:  # copies: in a file, views share one storage
            siblings = [rule for rule in rules if rule.native_prefix == first.native_prefix and rule.part is not None]
            pairs = [(rule, tensor.chunk(_NUM_PARTS)[rule.part or 0].clone()) for rule in siblings]
        for rule, part in pairs:
            foreign_name = _replace_prefix(name, str(rule.native_prefix), rule.foreign_prefix)
            if rule.row_range is not None:
                row_parts[foreign_name].append((rule, part))
            else:
                foreign[foreign_name] = _to_foreign_shape(part, rule)
    for name, pairs in row_parts.items():
        pairs.sort(key=lambda pair: pair[0].row_range or (0, None))
        foreign[name] = _to_foreign_shape(torch.cat([tensor for _, tensor in pairs]), pairs[0][0])
    return foreign


def _to_foreign_shape(tensor: Tensor, rule: RenameRule) -> Tensor:
    return rearrange(tensor, rule.to_foreign, **rule.axis_sizes) if rule.to_foreign else tensor


def build_vit_rules(
    config: ViTConfig, foreign_prefix: str, native_prefix: str, *, separate_qkv: bool = False
) -> tuple[RenameRule, ...]:
    """Return the rules of an encoder; the authors embed patches by a convolution, whose kernel is our matrix.

    Args:
        config: The encoder.
        foreign_prefix: Of its names in the foreign file.
        native_prefix: Of its names in ours.
        separate_qkv: There may be a layer each for queries, keys and values, and it is written so.
    """
    blocks = f"{foreign_prefix}blocks.", f"{native_prefix}blocks."
    return (
        *build_patch_embed_rules(config.tubelet, f"{foreign_prefix}patch_embed.proj.", f"{native_prefix}patch_embed."),
        build_token_rule(f"{foreign_prefix}cls_token", f"{native_prefix}cls_token"),
        *_build_position_rules(config, f"{foreign_prefix}pos_embed", f"{native_prefix}positions."),
        *(build_qkv_rules(*blocks) if separate_qkv else ()),
        RenameRule(*blocks),
        RenameRule(f"{foreign_prefix}norm.", f"{native_prefix}norm."),
    )


def build_patch_embed_rules(tubelet: Tubelet, foreign_prefix: str, native_prefix: str) -> tuple[RenameRule, ...]:
    """Return the rules of a convolution over clips, or over images where a token has one frame."""
    t, h, w = tubelet
    axes, sizes = ("c h w", {"c": 3, "h": h, "w": w}) if t == 1 else ("c t h w", {"c": 3, "t": t, "h": h, "w": w})
    weight = f"{foreign_prefix}weight", f"{native_prefix}weight"
    return (
        RenameRule(*weight, "d ... -> d (...)", f"d ({axes}) -> d {axes}", sizes),
        RenameRule(f"{foreign_prefix}bias", f"{native_prefix}bias"),
    )


def build_classifier_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """Return the rules of a fine-tuned model of VideoMAE, MVD, AMD and MaskAgain; of image MAE and DMAE."""
    return (*build_vit_rules(config, "", "encoder."), RenameRule("fc_norm.", "norm."), RenameRule("head.", "head."))


def build_mae_decoder_rules(config: DecoderConfig, *, separate_qkv: bool = False) -> tuple[RenameRule, ...]:
    """Return the rules of a decoder of MAE, DMAE and ST-MAE."""
    blocks = "decoder_blocks.", "decoder.trunk.blocks."
    return (
        RenameRule("decoder_embed.", "decoder.embed."),
        build_token_rule("mask_token", "decoder.trunk.mask_token"),
        build_token_rule("decoder_cls_token", "decoder.trunk.cls_token"),
        *_build_position_rules(config, "decoder_pos_embed", "decoder.trunk.positions."),
        *(build_qkv_rules(*blocks) if separate_qkv else ()),
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
        names = {"spatial": "space", "temporal": "time", "class": "cls_embedding"}
        return tuple(
            RenameRule(f"{foreign_prefix}_{foreign}", native_prefix + native, *table)
            for foreign, native in names.items()
        )
    if config.positions != "learned":  # some authors store the fixed table
        return (RenameRule(foreign_prefix, None, reason=FIXED_TABLE_REASON),)
    if config.class_token in (False, "none"):
        return (RenameRule(foreign_prefix, f"{native_prefix}joint", *table),)
    return (
        RenameRule(foreign_prefix, f"{native_prefix}cls_embedding", *table, row_range=(0, 1)),
        RenameRule(foreign_prefix, f"{native_prefix}joint", *table, row_range=(1, None)),
    )


def build_qkv_rules(foreign_prefix: str, native_prefix: str) -> tuple[RenameRule, ...]:
    """Return the rules of blocks with a layer each for queries, keys and values."""
    return tuple(
        RenameRule(f"{foreign_prefix}*.attn.{letter}.", f"{native_prefix}*.attn.qkv.", part=part)
        for part, letter in enumerate("qkv")
    )
