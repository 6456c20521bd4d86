"""MaskAgain's pre-trainings: a student without norm and decoder, with the layers that project it beside it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import (
    ShapeDict,
    build_pretraining_metadata,
    compute_linear_shapes,
    list_top_modules,
    select_prefix,
)
from vidstill.checkpoints.layouts.infer_config import PATCH_EMBED_WEIGHT, infer_encoder
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.checkpoints.layouts.videomae import build_videomae_rules, infer_pretraining
from vidstill.models.vit import ViTConfig

_PROJECTION_NAMES = {
    "Align_feature.fc1": "projections.hint.0",
    "Align_feature.fc2": "projections.hint.2",
    "Align_valuesum.fc": "projections.global_student",
    "Align_valuesum_t.fc": "projections.global_teacher",
    "Align_valuesum1.fc": "projections.local_student",
    "Align_valuesum1_t.fc": "projections.local_teacher",
}


class MaskAgainPretrainingLayout:
    key = "maskagain"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        found_words = list_top_modules(tensors)
        aligned = {word for word in found_words if word.startswith("Align_")}
        if f"encoder.{PATCH_EMBED_WEIGHT}" not in tensors or not (aligned or found_words == {"encoder"}):
            return None
        if not aligned and any(name.startswith("encoder.norm.") for name in tensors):
            return None  # an encoder of VideoMAE alone
        found = infer_encoder(select_prefix(tensors, "encoder."), hint, default_positions="sinusoid")
        about: Mapping[str, Any] = build_pretraining_metadata(self.key, found)
        wanted: ShapeDict = {}
        if found_words & {"decoder", "encoder_to_decoder"}:
            about, wanted = infer_pretraining(self.key, tensors, found)
        for theirs, ours in _PROJECTION_NAMES.items():
            word = theirs.partition(".")[0]
            if word in found_words and f"{theirs}.weight" in tensors:
                wanted |= compute_linear_shapes(ours, tensors[f"{theirs}.weight"])
        sign = f"with {', '.join(sorted(aligned))}" if aligned else "its encoder's prefix, and neither norm nor decoder"
        return LayoutMatch(
            f"a pre-training of MaskAgain ({sign})",
            about,
            build_maskagain_rules(found.config),
            optional_prefixes={"encoder.norm.": "a student of MaskAgain has no last norm"},
            notes=found.notes,
            expected_shapes=wanted,
        )


def build_maskagain_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """A pre-training of MaskAgain: a student without norm and decoder, and what it is projected by.

    Of the projections, the authors' files hold `Align_feature` and `Align_valuesum` alone.
    """
    return (
        *build_videomae_rules(config),  # of which the decoder is there beside the paper's ablations only
        RenameRule("Align_feature.fc1.", "projections.hint.0."),
        RenameRule("Align_feature.fc2.", "projections.hint.2."),
        RenameRule("Align_valuesum.fc.", "projections.global_student."),
        RenameRule("Align_valuesum_t.fc.", "projections.global_teacher."),
        RenameRule("Align_valuesum1.fc.", "projections.local_student."),
        RenameRule("Align_valuesum1_t.fc.", "projections.local_teacher."),
    )
