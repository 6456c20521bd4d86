"""MaskAgain's pre-trainings: a student without norm and decoder, with the layers that project it beside it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.models.vit import ViTConfig
from vidstill.weights.layouts.layout import Reading
from vidstill.weights.layouts.parts import Shapes, linear_shapes, pretraining, under, words
from vidstill.weights.layouts.sizes import KERNEL, encoder_of
from vidstill.weights.layouts.videomae import with_decoder
from vidstill.weights.names import maskagain_names

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
