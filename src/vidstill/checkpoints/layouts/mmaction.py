"""mmaction2's recognisers with VideoMAE's encoder, its V2's too."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import (
    build_classifier_metadata,
    build_encoder_metadata,
    count_rows,
    select_prefix,
)
from vidstill.checkpoints.layouts.infer_config import infer_encoder
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule, build_vit_rules
from vidstill.checkpoints.layouts.videomae import get_version_name
from vidstill.models.vit import ViTConfig

_PATCH_EMBED_WEIGHT = "patch_embed.projection.weight"
_NAME_PATTERNS = {
    r"^patch_embed\.projection\.": "patch_embed.proj.",
    r"^(blocks\.\d+\.mlp)\.layers\.0\.0\.": r"\1.fc1.",
    r"^(blocks\.\d+\.mlp)\.layers\.1\.": r"\1.fc2.",
}


class MMActionRecognizerLayout:
    key = "mmaction"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        prefix = "backbone." if f"backbone.{_PATCH_EMBED_WEIGHT}" in tensors else ""
        if f"{prefix}{_PATCH_EMBED_WEIGHT}" not in tensors or tensors[f"{prefix}{_PATCH_EMBED_WEIGHT}"].ndim != 5:
            return None
        in_videomaes_words = {
            _to_videomae_name(name): tensor for name, tensor in select_prefix(tensors, prefix).items()
        }
        found = infer_encoder(in_videomaes_words, hint, default_positions="sinusoid")
        signs = f"{prefix}patch_embed.projection, blocks.N.mlp.layers"
        beside = {"data_preprocessor.": "the colours' mean and deviation, of which mmaction2 keeps its own copy"}
        names = build_mmaction_rules(found.config, prefix)
        if "cls_head.fc_cls.weight" not in tensors:
            return LayoutMatch(
                f"an encoder of {get_version_name(found.config.dim)} in the words of mmaction2 ({signs})",
                build_encoder_metadata(self.key, found),
                names,
                ignored_prefixes=beside,
                optional_prefixes={"encoder.norm.": "an encoder may be kept without its last norm"},
                notes=found.notes,
            )
        classes = count_rows(tensors, "cls_head.fc_cls.weight")
        pooling = "mean" if f"{prefix}fc_norm.weight" in tensors else "first"
        return LayoutMatch(
            f"a classifier of {get_version_name(found.config.dim, classes)} in the words of mmaction2 ({signs}, "
            f"cls_head.fc_cls of {classes} classes)",
            build_classifier_metadata(self.key, found, classes, "mean" if pooling == "mean" else "first"),
            names,
            ignored_prefixes=beside,
            notes=found.notes,
        )


def _to_videomae_name(name: str) -> str:
    for theirs, ours in _NAME_PATTERNS.items():
        name = re.sub(theirs, ours, name)
    return name


def build_mmaction_rules(config: ViTConfig, prefix: str) -> tuple[RenameRule, ...]:
    """A recogniser of mmaction2: VideoMAE's classifier, in mmcv's words.

    Args:
        prefix: of its encoder: "backbone.".
    """
    kernel, *_ = build_vit_rules(config, f"{prefix}", "encoder.")
    return (
        replace(kernel, foreign_prefix=f"{prefix}patch_embed.projection.weight"),
        RenameRule(f"{prefix}patch_embed.projection.bias", "encoder.patch_embed.bias"),
        *(
            RenameRule(f"{prefix}blocks.{block}.mlp.layers.{theirs}.", f"encoder.blocks.{block}.mlp.{ours}.")
            for block in range(config.depth)
            for theirs, ours in (("0.0", "fc1"), ("1", "fc2"))
        ),
        RenameRule(f"{prefix}fc_norm.", "norm."),
        RenameRule("cls_head.fc_cls.", "head."),
        *(name for name in build_vit_rules(config, prefix, "encoder.") if "patch_embed" not in name.foreign_prefix),
    )
