"""What the authors call our parameters: a table of names and shapes for each foreign layout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vidstill.models.vit import ViTConfig


@dataclass(frozen=True)
class Name:
    """Tensors whose name starts with `theirs` are ours under `ours`; einops patterns where shapes differ."""

    theirs: str
    ours: str | None  # None: it is of no use to us
    to_ours: str = ""
    to_theirs: str = ""
    axes: Mapping[str, int] = field(default_factory=dict)


def vit_names(config: ViTConfig, theirs: str, ours: str) -> tuple[Name, ...]:
    """The encoder; the authors embed by a convolution, whose kernel is our matrix."""
    t, h, w = config.tubelet
    kernel = Name(
        f"{theirs}patch_embed.proj.weight",
        f"{ours}embed.weight",
        "d c t h w -> d (c t h w)",
        "d (c t h w) -> d c t h w",
        {"c": 3, "t": t, "h": h, "w": w},
    )
    return (
        kernel,
        Name(f"{theirs}patch_embed.proj.bias", f"{ours}embed.bias"),
        Name(f"{theirs}pos_embed", f"{ours}positions", "1 n d -> n d", "n d -> 1 n d"),
        Name(f"{theirs}blocks.", f"{ours}blocks."),
        Name(f"{theirs}norm.", f"{ours}norm."),
    )


def videomae_names(config: ViTConfig) -> tuple[Name, ...]:
    """A pre-training of VideoMAE."""
    return (
        *vit_names(config, "encoder.", "encoder."),
        Name("encoder_to_decoder.", "decoder.project."),
        Name("mask_token", "decoder.infill.mask_token", "1 1 d -> d", "d -> 1 1 d"),
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
                Name(  # the authors do not save it; stored beside their weights in the reference cases
                    f"generator_mask_tokens.{place}", f"generators.{place}.mask_token", "1 1 d -> d", "d -> 1 1 d"
                ),
            )
        ),
    )


def classifier_names(config: ViTConfig) -> tuple[Name, ...]:
    """A fine-tuned model of VideoMAE, MVD, AMD and MaskAgain."""
    return (
        *vit_names(config, "", "encoder."),
        Name("fc_norm.", "norm."),
        Name("head.", "head."),
    )
