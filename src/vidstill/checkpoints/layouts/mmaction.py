"""mmaction2's recognisers with VideoMAE's encoder, its V2's too."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import classifier, encoder_alone, rows, under
from vidstill.checkpoints.layouts.infer_config import encoder_of
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.rename import Name, vit_names
from vidstill.checkpoints.layouts.videomae import version
from vidstill.models.vit import ViTConfig

_SIGN = "patch_embed.projection.weight"
_WORDS = {
    r"^patch_embed\.projection\.": "patch_embed.proj.",
    r"^(blocks\.\d+\.mlp)\.layers\.0\.0\.": r"\1.fc1.",
    r"^(blocks\.\d+\.mlp)\.layers\.1\.": r"\1.fc2.",
}


class Recogniser:
    key = "mmaction"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        prefix = "backbone." if f"backbone.{_SIGN}" in tensors else ""
        if f"{prefix}{_SIGN}" not in tensors or tensors[f"{prefix}{_SIGN}"].ndim != 5:
            return None
        in_videomaes_words = {_renamed(name): tensor for name, tensor in under(tensors, prefix).items()}
        found = encoder_of(in_videomaes_words, hint, computed="sinusoid")
        signs = f"{prefix}patch_embed.projection, blocks.N.mlp.layers"
        beside = {"data_preprocessor.": "the colours' mean and deviation, of which mmaction2 keeps its own copy"}
        names = mmaction_names(found.config, prefix)
        if "cls_head.fc_cls.weight" not in tensors:
            return Reading(
                f"an encoder of {version(found.config.dim)} in the words of mmaction2 ({signs})",
                encoder_alone(self.key, found),
                names,
                ignored=beside,
                may_lack={"encoder.norm.": "an encoder may be kept without its last norm"},
                notes=found.notes,
            )
        classes = rows(tensors, "cls_head.fc_cls.weight")
        pooling = "mean" if f"{prefix}fc_norm.weight" in tensors else "first"
        return Reading(
            f"a classifier of {version(found.config.dim, classes)} in the words of mmaction2 ({signs}, "
            f"cls_head.fc_cls of {classes} classes)",
            classifier(self.key, found, classes, "mean" if pooling == "mean" else "first"),
            names,
            ignored=beside,
            notes=found.notes,
        )


def _renamed(name: str) -> str:
    for theirs, ours in _WORDS.items():
        name = re.sub(theirs, ours, name)
    return name


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
