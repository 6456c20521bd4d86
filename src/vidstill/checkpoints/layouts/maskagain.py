"""MaskAgain's pre-trainings: a student without norm and decoder, with the layers that project it beside it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import Shapes, linear_shapes, pretraining, under, words
from vidstill.checkpoints.layouts.infer_config import KERNEL, encoder_of
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.rename import Name
from vidstill.checkpoints.layouts.videomae import videomae_names, with_decoder
from vidstill.models.vit import ViTConfig

_ALIGNED = {
    "Align_feature.fc1": "projections.hint.0",
    "Align_feature.fc2": "projections.hint.2",
    "Align_valuesum.fc": "projections.global_student",
    "Align_valuesum_t.fc": "projections.global_teacher",
    "Align_valuesum1.fc": "projections.local_student",
    "Align_valuesum1_t.fc": "projections.local_teacher",
}


class Pretraining:
    key = "maskagain"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        found_words = words(tensors)
        aligned = {word for word in found_words if word.startswith("Align_")}
        if f"encoder.{KERNEL}" not in tensors or not (aligned or found_words == {"encoder"}):
            return None
        if not aligned and any(name.startswith("encoder.norm.") for name in tensors):
            return None  # an encoder of VideoMAE alone
        found = encoder_of(under(tensors, "encoder."), hint, computed="sinusoid")
        about: Mapping[str, Any] = pretraining(self.key, found)
        wanted: Shapes = {}
        if found_words & {"decoder", "encoder_to_decoder"}:
            about, wanted = with_decoder(self.key, tensors, found)
        for theirs, ours in _ALIGNED.items():
            word = theirs.partition(".")[0]
            if word in found_words and f"{theirs}.weight" in tensors:
                wanted |= linear_shapes(ours, tensors[f"{theirs}.weight"])
        sign = f"with {', '.join(sorted(aligned))}" if aligned else "its encoder's prefix, and neither norm nor decoder"
        return Reading(
            f"a pre-training of MaskAgain ({sign})",
            about,
            maskagain_names(found.config),
            may_lack={"encoder.norm.": "a student of MaskAgain has no last norm"},
            notes=found.notes,
            wanted=wanted,
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
