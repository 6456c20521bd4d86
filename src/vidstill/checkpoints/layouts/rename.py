"""What the authors call our parameters: a table of names and shapes for each foreign layout."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig


@dataclass(frozen=True)
class RenameRule:
    """Tensors whose name starts with `theirs` are ours under `ours`; einops patterns where shapes differ."""

    foreign_prefix: str
    native_prefix: str | None  # None: it is of no use to us
    to_native: str = ""
    to_foreign: str = ""
    axis_sizes: Mapping[str, int] = field(default_factory=dict)
    chunk: tuple[int, int] | None = None  # theirs is this one of so many equal parts of ours, from 0, along its rows
    row_range: tuple[int, int | None] | None = None  # ours is these rows of theirs, in our shape


def build_vit_rules(
    config: ViTConfig, foreign_prefix: str, native_prefix: str, *, is_image: bool = False, separate_qkv: bool = False
) -> tuple[RenameRule, ...]:
    """The encoder; the authors embed by a convolution, whose kernel is our matrix.

    Args:
        is_image: their convolution is one of images.
        separate_qkv: their queries, keys and values have a layer each.
    """
    t, h, w = config.tubelet
    shapes = (("d c h w", "d (c h w)"), {"c": 3, "h": h, "w": w}) if is_image else (
        ("d c t h w", "d (c t h w)"), {"c": 3, "t": t, "h": h, "w": w}
    )  # fmt: skip
    (kernel, matrix), axes = shapes
    return (
        RenameRule(
            f"{foreign_prefix}patch_embed.proj.weight",
            f"{native_prefix}patch_embed.weight",
            f"{kernel} -> {matrix}",
            f"{matrix} -> {kernel}",
            axes,
        ),
        RenameRule(f"{foreign_prefix}patch_embed.proj.bias", f"{native_prefix}patch_embed.bias"),
        _build_token_rule(f"{foreign_prefix}cls_token", f"{native_prefix}cls_token"),
        *_build_position_rules(config, f"{foreign_prefix}pos_embed", f"{native_prefix}positions."),
        *(
            _build_qkv_rules(f"{foreign_prefix}blocks.", f"{native_prefix}blocks.", config.depth)
            if separate_qkv
            else ()
        ),
        RenameRule(f"{foreign_prefix}blocks.", f"{native_prefix}blocks."),
        RenameRule(f"{foreign_prefix}norm.", f"{native_prefix}norm."),
    )


def _build_mae_decoder_rules(config: DecoderConfig, *, separate_qkv: bool) -> tuple[RenameRule, ...]:
    theirs, ours = "decoder_blocks.", "decoder.trunk.blocks."
    return (
        RenameRule("decoder_embed.", "decoder.embed."),
        _build_token_rule("mask_token", "decoder.trunk.mask_token"),
        _build_token_rule("decoder_cls_token", "decoder.trunk.cls_token"),
        *_build_position_rules(config, "decoder_pos_embed", "decoder.trunk.positions."),
        *(_build_qkv_rules(theirs, ours, config.depth) if separate_qkv else ()),
        RenameRule(theirs, ours),
        RenameRule("decoder_norm.", "decoder.norm."),
        RenameRule("decoder_pred.", "decoder.head."),
    )


def _build_token_rule(foreign_name: str, native_name: str) -> RenameRule:
    return RenameRule(foreign_name, native_name, "1 1 d -> 1 d", "1 d -> 1 1 d")


def _build_position_rules(
    config: ViTConfig | DecoderConfig, foreign_prefix: str, native_prefix: str
) -> tuple[RenameRule, ...]:
    table = ("1 n d -> n d", "n d -> 1 n d")
    separable = (
        RenameRule(f"{foreign_prefix}_spatial", f"{native_prefix}space", *table),
        RenameRule(f"{foreign_prefix}_temporal", f"{native_prefix}time", *table),
        RenameRule(f"{foreign_prefix}_class", f"{native_prefix}cls_embedding", *table),
    )
    if config.positions == "separable":
        return separable
    if config.positions != "learned":
        return (RenameRule(foreign_prefix, None),)  # stored by some authors; computed here
    if config.class_token in (False, "none"):
        return (RenameRule(foreign_prefix, f"{native_prefix}joint", *table),)
    return (
        RenameRule(foreign_prefix, f"{native_prefix}cls_embedding", *table, row_range=(0, 1)),
        RenameRule(foreign_prefix, f"{native_prefix}joint", *table, row_range=(1, None)),
    )


def _build_qkv_rules(foreign_prefix: str, native_prefix: str, depth: int) -> tuple[RenameRule, ...]:
    return tuple(
        RenameRule(f"{foreign_prefix}{block}.attn.{letter}.", f"{native_prefix}{block}.attn.qkv.", chunk=(place, 3))
        for block in range(depth)
        for place, letter in enumerate("qkv")
    )
