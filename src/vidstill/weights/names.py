"""What the authors call our parameters: a table of names and shapes for each foreign layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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


def videomae_names(config: ViTConfig) -> tuple[Name, ...]:
    """A pre-training of VideoMAE."""
    return (
        *vit_names(config, "encoder.", "encoder."),
        Name("encoder_to_decoder.", "decoder.project."),
        _token("mask_token", "decoder.infill.mask_token"),
        Name("decoder.blocks.", "decoder.infill.blocks."),
        Name("decoder.norm.", "decoder.norm."),
        Name("decoder.head.", "decoder.head."),
    )


def amd_names(config: ViTConfig, direct: Sequence[int], generators: int) -> tuple[Name, ...]:
    """A pre-training of AMD: `direct` are the student layers that are projected, in their order."""
    return (
        *videomae_names(config),
        *(Name(f"encoder.projection_heads.{place}.", f"projections.{layer}.") for place, layer in enumerate(direct)),
        *(
            name
            for place in range(generators)
            for name in (
                Name(f"generators.{place}.blocks.", f"generators.{place}.blocks."),
                Name(f"generators.{place}.norm.", None),  # made, but never used
                # the authors do not save it; stored beside their weights in the reference cases
                _token(f"generator_mask_tokens.{place}", f"generators.{place}.mask_token"),
            )
        ),
    )


def mvd_names(config: ViTConfig) -> tuple[Name, ...]:
    """A pre-training of MVD: a student, and a decoder for each of its teachers."""
    return (
        *(
            name
            for theirs, ours in (("img", "image_decoder."), ("vid", "video_decoder."))
            for name in (
                Name(f"pos_embed_{theirs}", None),  # computed: MVD's 3-D code
                Name(f"down_{theirs}.", f"{ours}project."),
                _token(f"mask_token_{theirs}", f"{ours}infill.mask_token"),
                Name(f"decoder_{theirs}.blocks.", f"{ours}infill.blocks."),
                Name(f"decoder_{theirs}.norm.", f"{ours}norm."),
                Name(f"decoder_{theirs}.head.", f"{ours}head."),
            )
        ),
        *vit_names(config, "", "encoder."),
    )


def maskagain_names(config: ViTConfig) -> tuple[Name, ...]:
    """A pre-training of MaskAgain: a student without norm and decoder, and what it is projected by.

    Of the projections, the authors' files hold `Align_feature` and `Align_valuesum` alone.
    """
    return (
        *videomae_names(config),  # of which the decoder is there beside the paper's ablations only
        Name("Align_feature.fc1.", "projections.hint.0."),
        Name("Align_feature.fc2.", "projections.hint.2."),
        Name("Align_valuesum.fc.", "projections.global_student."),
        Name("Align_valuesum_t.fc.", "projections.global_teacher."),
        Name("Align_valuesum1.fc.", "projections.local_student."),
        Name("Align_valuesum1_t.fc.", "projections.local_teacher."),
    )


def mae_names(config: ViTConfig) -> tuple[Name, ...]:
    """A pre-training of image MAE, whole or its encoder alone; what DMAE adds to it."""
    return (
        *_mae_decoder_names(DecoderConfig(dim=0, depth=0, heads=0, positions="sincos2d"), separate_qkv=False),
        Name("aligned_feature_projection_heads.", "projections."),
        *vit_names(config, "", "encoder.", image=True),
    )


def stmae_names(config: ViTConfig, decoder: DecoderConfig, *, separate_qkv: bool = True) -> tuple[Name, ...]:
    """A pre-training of ST-MAE in the layout of mae_st."""
    return (
        *_mae_decoder_names(decoder, separate_qkv=separate_qkv),
        *vit_names(config, "", "encoder.", separate_qkv=separate_qkv),
    )


def slowfast_names(config: ViTConfig, decoder: DecoderConfig, *, separate_qkv: bool = True) -> tuple[Name, ...]:
    """A pre-training of ST-MAE in the layout of PySlowFast, which the published files have."""
    blocks = "pred_head.transforms.0."
    return (
        Name(f"{blocks}{decoder.depth}.", "decoder.norm."),
        *(_qkv_names(blocks, "decoder.infill.blocks.", decoder.depth) if separate_qkv else ()),
        Name(blocks, "decoder.infill.blocks."),
        Name("pred_head.projections.0.", "decoder.head."),
        *_mae_decoder_names(decoder, separate_qkv=False),  # whose blocks have the words above
        *vit_names(config, "", "encoder.", separate_qkv=separate_qkv),
    )


def classifier_names(config: ViTConfig, *, image: bool = False) -> tuple[Name, ...]:
    """A fine-tuned model of VideoMAE, MVD, AMD and MaskAgain; of image MAE and DMAE."""
    return (
        *vit_names(config, "", "encoder.", image=image),
        Name("fc_norm.", "norm."),
        Name("head.", "head."),
    )


def detector_names(config: ViTConfig) -> tuple[Name, ...]:
    """VideoMAE's detector of actions, whose norm is the encoder's; its head is of no use to us."""
    return (*vit_names(config, "", "encoder."), Name("head.", None))


def mmaction_names(config: ViTConfig, prefix: str) -> tuple[Name, ...]:
    """A recogniser of mmaction2: VideoMAE's classifier, in mmcv's words.

    Args:
        prefix: of its encoder: "backbone.".
    """
    kernel, *_ = vit_names(config, f"{prefix}", "encoder.")
    return (
        replace(kernel, theirs=f"{prefix}patch_embed.projection.weight"),
        Name(f"{prefix}patch_embed.projection.bias", "encoder.embed.bias"),
        *(
            Name(f"{prefix}blocks.{block}.mlp.layers.{theirs}.", f"encoder.blocks.{block}.mlp.{ours}.")
            for block in range(config.depth)
            for theirs, ours in (("0.0", "fc1"), ("1", "fc2"))
        ),
        Name(f"{prefix}fc_norm.", "norm."),
        Name("cls_head.fc_cls.", "head."),
        *(name for name in vit_names(config, prefix, "encoder.") if "patch_embed" not in name.theirs),
    )


def stmae_classifier_names(config: ViTConfig, *, separate_qkv: bool = True, slowfast: bool = False) -> tuple[Name, ...]:
    """A fine-tuned model of ST-MAE, whose norm after the mean is the pre-trained encoder's.

    Args:
        slowfast: PySlowFast's word for the head is written; read are both.
    """
    of_slowfast = (Name("head.projection.", "head."),)
    of_mae_st = (Name("head.weight", "head.weight"), Name("head.bias", "head.bias"))
    encoder = vit_names(config, "", "encoder.", separate_qkv=separate_qkv)
    return (
        Name("norm.", "norm."),
        *(of_slowfast + of_mae_st if slowfast else of_mae_st + of_slowfast),
        *(name for name in encoder if name.theirs != "norm."),
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
