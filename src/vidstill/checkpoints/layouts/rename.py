"""What the authors call our parameters: a table of names and shapes for each foreign layout."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig


@dataclass(frozen=True)
class Name:
    """Tensors whose name starts with `theirs` are ours under `ours`; einops patterns where shapes differ."""

    theirs: str
    ours: str | None  # None: it is of no use to us
    to_ours: str = ""
    to_theirs: str = ""
    axes: Mapping[str, int] = field(default_factory=dict)
    part: tuple[int, int] | None = None  # theirs is this one of so many equal parts of ours, from 0, along its rows
    rows: tuple[int, int | None] | None = None  # ours is these rows of theirs, in our shape


def vit_names(
    config: ViTConfig, theirs: str, ours: str, *, image: bool = False, separate_qkv: bool = False
) -> tuple[Name, ...]:
    """The encoder; the authors embed by a convolution, whose kernel is our matrix.

    Args:
        image: their convolution is one of images.
        separate_qkv: their queries, keys and values have a layer each.
    """
    t, h, w = config.tubelet
    shapes = (("d c h w", "d (c h w)"), {"c": 3, "h": h, "w": w}) if image else (
        ("d c t h w", "d (c t h w)"), {"c": 3, "t": t, "h": h, "w": w}
    )  # fmt: skip
    (kernel, matrix), axes = shapes
    return (
        Name(
            f"{theirs}patch_embed.proj.weight",
            f"{ours}embed.weight",
            f"{kernel} -> {matrix}",
            f"{matrix} -> {kernel}",
            axes,
        ),
        Name(f"{theirs}patch_embed.proj.bias", f"{ours}embed.bias"),
        _token(f"{theirs}cls_token", f"{ours}class_token"),
        *_position_names(config, f"{theirs}pos_embed", f"{ours}positions."),
        *(_qkv_names(f"{theirs}blocks.", f"{ours}blocks.", config.depth) if separate_qkv else ()),
        Name(f"{theirs}blocks.", f"{ours}blocks."),
        Name(f"{theirs}norm.", f"{ours}norm."),
    )


def _mae_decoder_names(config: DecoderConfig, *, separate_qkv: bool) -> tuple[Name, ...]:
    theirs, ours = "decoder_blocks.", "decoder.infill.blocks."
    return (
        Name("decoder_embed.", "decoder.project."),
        _token("mask_token", "decoder.infill.mask_token"),
        _token("decoder_cls_token", "decoder.infill.class_token"),
        *_position_names(config, "decoder_pos_embed", "decoder.infill.positions."),
        *(_qkv_names(theirs, ours, config.depth) if separate_qkv else ()),
        Name(theirs, ours),
        Name("decoder_norm.", "decoder.norm."),
        Name("decoder_pred.", "decoder.head."),
    )


def _token(theirs: str, ours: str) -> Name:
    return Name(theirs, ours, "1 1 d -> 1 d", "1 d -> 1 1 d")


def _position_names(config: ViTConfig | DecoderConfig, theirs: str, ours: str) -> tuple[Name, ...]:
    table = ("1 n d -> n d", "n d -> 1 n d")
    separable = (
        Name(f"{theirs}_spatial", f"{ours}space", *table),
        Name(f"{theirs}_temporal", f"{ours}time", *table),
        Name(f"{theirs}_class", f"{ours}of_class", *table),
    )
    if config.positions == "separable":
        return separable
    if config.positions != "learned":
        return (Name(theirs, None),)  # stored by some authors; computed here
    if config.class_token in (False, "none"):
        return (Name(theirs, f"{ours}joint", *table),)
    return (
        Name(theirs, f"{ours}of_class", *table, rows=(0, 1)),
        Name(theirs, f"{ours}joint", *table, rows=(1, None)),
    )


def _qkv_names(theirs: str, ours: str, depth: int) -> tuple[Name, ...]:
    return tuple(
        Name(f"{theirs}{block}.attn.{letter}.", f"{ours}{block}.attn.qkv.", part=(place, 3))
        for block in range(depth)
        for place, letter in enumerate("qkv")
    )
