"""Image MAE's files: pre-trainings, encoders alone, classifiers; DMAE's pre-trainings, which add projections."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import (
    FIXED_TABLE_REASON,
    ShapeDict,
    build_classifier_metadata,
    build_encoder_metadata,
    build_pretraining_metadata,
    compute_decoder_shapes,
    compute_linear_shapes,
    count_rows,
    list_top_modules,
)
from vidstill.checkpoints.layouts.infer_config import PATCH_EMBED_WEIGHT, infer_decoder, infer_encoder, infer_positions
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule, _build_mae_decoder_rules, build_vit_rules
from vidstill.checkpoints.layouts.videomae import build_classifier_rules
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

DMAE_PROJECTION_PREFIX = "aligned_feature_projection_heads."
_DECODER_HEADS = 16  # of MAE's decoder


class MAEPretrainingLayout:
    """Without DMAE's projections this is image MAE's."""

    key = "mae"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        if not _is_image_encoder(tensors) or "decoder_embed" not in list_top_modules(tensors):
            return None
        if (DMAE_PROJECTION_PREFIX.rstrip(".") in list_top_modules(tensors)) != (self.key == "dmae"):
            return None
        found = infer_encoder(tensors, hint, default_positions="sincos2d")
        dim = count_rows(tensors, "decoder_embed.weight")
        codes = infer_positions(
            tensors,
            "decoder_pos_embed",
            dim,
            1,
            expected_kind="sincos2d",
            hint_grid=None,
            class_token=found.config.class_token,
            default_positions="sincos2d",
        )
        decoder = infer_decoder(
            tensors,
            "decoder_blocks.",
            dim,
            heads=_DECODER_HEADS,
            positions=codes,
            class_token="encoder" if found.config.class_token else "none",
            project_bias=True,
        )
        wanted = compute_decoder_shapes(decoder, found.config.dim, found.config.pixels_per_token)
        return LayoutMatch(
            f"a pre-training of {self.method_name} (a kernel of images, decoder_embed and decoder_blocks{self.signature})",
            build_pretraining_metadata(self.key, found, decoder=to_dict(decoder)),
            build_mae_rules(found.config),
            ignored_prefixes={"decoder_pos_embed": FIXED_TABLE_REASON},
            notes=(*found.notes, *codes.notes),
            expected_shapes=wanted | self.infer_extra_shapes(tensors),
        )

    method_name, signature = "image MAE", ""

    def infer_extra_shapes(self, tensors: Mapping[str, Tensor]) -> ShapeDict:
        """The names and shapes of what comes beside encoder and decoder."""
        return {}


class MAEEncoderLayout:
    key = "mae"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        if not _is_image_encoder(tensors) or list_top_modules(tensors) & {"head", "fc_norm", "decoder_embed"}:
            return None
        found = infer_encoder(tensors, hint, default_positions="sincos2d")
        return LayoutMatch(
            "an encoder of image MAE alone (a kernel of images, and neither decoder nor head)",
            build_encoder_metadata(self.key, found),
            build_vit_rules(found.config, "", "encoder.", is_image=True),
            optional_prefixes={"encoder.norm.": "an encoder may be kept without its last norm"},
            notes=found.notes,
        )


class MAEClassifierLayout:
    key = "mae"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        if not _is_image_encoder(tensors) or not list_top_modules(tensors) & {"head", "fc_norm"}:
            return None
        if "head.1.weight" in tensors:
            return None  # a linear probe
        first = "fc_norm.weight" not in tensors
        classes = count_rows(tensors, "head.weight")
        found = infer_encoder(tensors, hint, default_positions="sincos2d", requires_table=True)
        sign = "norm and head: the class token is classified" if first else "fc_norm and head"
        names = build_classifier_rules(found.config, is_image=True)
        return LayoutMatch(
            f"a classifier of image MAE or DMAE (a kernel of images, {sign}, {classes} classes)",
            build_classifier_metadata(self.key, found, classes, "first" if first else "mean"),
            names,
            notes=found.notes,
        )


class MAELinearProbeLayout:
    """A frozen encoder, a batch norm without factors and a linear layer."""

    key = "mae"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        if not _is_image_encoder(tensors) or "head.1.weight" not in tensors:
            return None
        found = infer_encoder(tensors, hint, default_positions="sincos2d", requires_table=True)
        dim, classes = found.config.dim, count_rows(tensors, "head.1.weight")
        moments: ShapeDict = {"norm.running_mean": (dim,), "norm.running_var": (dim,), "norm.num_batches_tracked": ()}
        return LayoutMatch(
            f"a linear probe of image MAE (a kernel of images, head.0 and head.1, {classes} classes)",
            {**build_encoder_metadata(self.key, found), "kind": "probe"},
            (
                RenameRule("head.0.", "norm."),
                RenameRule("head.1.", "head."),
                *build_vit_rules(found.config, "", "encoder.", is_image=True),
            ),
            notes=found.notes,
            expected_shapes=moments | {"head.weight": (classes, dim), "head.bias": (classes,)},
        )


def _is_image_encoder(tensors: Mapping[str, Tensor]) -> bool:
    return PATCH_EMBED_WEIGHT in tensors and tensors[PATCH_EMBED_WEIGHT].ndim == 4


def infer_projection_shapes(tensors: Mapping[str, Tensor]) -> ShapeDict:
    """DMAE's: each a linear layer, or a perceptron of two."""
    shapes: ShapeDict = {}
    for name, tensor in tensors.items():
        if name.startswith(DMAE_PROJECTION_PREFIX) and name.endswith(".weight"):
            shapes |= compute_linear_shapes(
                f"projections.{name.removeprefix(DMAE_PROJECTION_PREFIX).removesuffix('.weight')}", tensor
            )
    return shapes


def build_mae_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """A pre-training of image MAE, whole or its encoder alone; what DMAE adds to it."""
    return (
        *_build_mae_decoder_rules(DecoderConfig(dim=0, depth=0, heads=0, positions="sincos2d"), separate_qkv=False),
        RenameRule("aligned_feature_projection_heads.", "projections."),
        *build_vit_rules(config, "", "encoder.", is_image=True),
    )
