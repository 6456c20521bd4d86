"""VideoMAE's files and VideoMAE V2's: pre-trainings, encoders alone, and the classifiers of AMD, MVD and MaskAgain."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import (
    ShapeDict,
    build_classifier_metadata,
    build_encoder_metadata,
    build_pretraining_metadata,
    compute_decoder_shapes,
    count_rows,
    infer_heads_of_64,
    list_top_modules,
    select_prefix,
)
from vidstill.checkpoints.layouts.infer_config import (
    PATCH_EMBED_WEIGHT,
    InferredEncoder,
    InferredPositions,
    infer_decoder,
    infer_encoder,
)
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule, _build_token_rule, build_vit_rules
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

_GIANT_DIM = 1408
_K710_CLASSES = 710  # classes of VideoMAE V2's distilled models


def get_version_name(dim: int, num_classes: int = 0) -> str:
    return "VideoMAE V2" if dim == _GIANT_DIM or num_classes == _K710_CLASSES else "VideoMAE"


class VideoMAEPretrainingLayout:
    key = "videomae"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        if f"encoder.{PATCH_EMBED_WEIGHT}" not in tensors or not list_top_modules(tensors) & {
            "encoder_to_decoder",
            "decoder",
        }:
            return None
        found = infer_encoder(select_prefix(tensors, "encoder."), hint, default_positions="sinusoid")
        about, wanted = infer_pretraining(self.key, tensors, found)
        return LayoutMatch(
            f"a pre-training of {get_version_name(found.config.dim)} (tensors of encoder, encoder_to_decoder and decoder)",
            about,
            build_videomae_rules(found.config),
            notes=found.notes,
            expected_shapes=wanted,
        )


class VideoMAEEncoderLayout:
    """The encoder of a pre-training, with its prefix or without, and of a classifier without its head."""

    key = "videomae"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        prefix = "encoder." if f"encoder.{PATCH_EMBED_WEIGHT}" in tensors else ""
        bare = select_prefix(tensors, prefix)
        if PATCH_EMBED_WEIGHT not in bare or bare[PATCH_EMBED_WEIGHT].ndim != 5 or "head.weight" in bare:
            return None
        found = infer_encoder(bare, hint, default_positions="sinusoid")
        return LayoutMatch(
            f"an encoder of {get_version_name(found.config.dim)} alone (its blocks, and neither decoder nor head)",
            build_encoder_metadata(self.key, found),
            build_vit_rules(found.config, prefix, "encoder."),
            optional_prefixes={"encoder.norm.": "an encoder may be kept without its last norm"},
            notes=found.notes,
        )


class VideoMAEClassifierLayout:
    key = "videomae"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        first = "norm.weight" in tensors
        if (
            PATCH_EMBED_WEIGHT not in tensors
            or tensors[PATCH_EMBED_WEIGHT].ndim != 5
            or not list_top_modules(tensors) & {"head", "fc_norm"}
        ):
            return None
        classes = count_rows(tensors, "head.weight")
        found = infer_encoder(tensors, hint, default_positions="sinusoid")
        names = build_classifier_rules(found.config)
        sign = "norm and head: the first token is classified" if first else "fc_norm and head"
        whose = get_version_name(found.config.dim, classes)
        whose = "VideoMAE, MVD, AMD or MaskAgain" if whose == "VideoMAE" else whose
        return LayoutMatch(
            f"a classifier of {whose} ({sign}, {classes} classes)",
            build_classifier_metadata(self.key, found, classes, "first" if first else "mean"),
            names,
            notes=found.notes,
        )


def infer_pretraining(
    key: str, tensors: Mapping[str, Tensor], inferred: InferredEncoder
) -> tuple[dict[str, Any], ShapeDict]:
    """What a pre-training of VideoMAE's kind says of itself with its decoder, and the decoder's names and shapes."""
    dim = count_rows(tensors, "encoder_to_decoder.weight")
    codes = InferredPositions(inferred.config.positions if inferred.config.learned_grid is None else "sinusoid")
    decoder = infer_decoder(
        tensors,
        "decoder.blocks.",
        dim,
        heads=infer_heads_of_64(dim),
        positions=codes,
        project_bias="encoder_to_decoder.bias" in tensors,
    )
    wanted = compute_decoder_shapes(decoder, inferred.config.dim, inferred.config.pixels_per_token)
    return build_pretraining_metadata(key, inferred, decoder=to_dict(decoder)), wanted


def build_videomae_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """A pre-training of VideoMAE."""
    return (
        *build_vit_rules(config, "encoder.", "encoder."),
        RenameRule("encoder_to_decoder.", "decoder.embed."),
        _build_token_rule("mask_token", "decoder.trunk.mask_token"),
        RenameRule("decoder.blocks.", "decoder.trunk.blocks."),
        RenameRule("decoder.norm.", "decoder.norm."),
        RenameRule("decoder.head.", "decoder.head."),
    )


def build_classifier_rules(config: ViTConfig, *, is_image: bool = False) -> tuple[RenameRule, ...]:
    """A fine-tuned model of VideoMAE, MVD, AMD and MaskAgain; of image MAE and DMAE."""
    return (
        *build_vit_rules(config, "", "encoder.", is_image=is_image),
        RenameRule("fc_norm.", "norm."),
        RenameRule("head.", "head."),
    )
