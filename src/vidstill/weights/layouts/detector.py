"""VideoMAE's detectors of actions (AVA), to start an encoder from: a last norm and a head of 80 actions."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.models.vit import ViTConfig
from vidstill.weights.layouts.layout import Reading
from vidstill.weights.layouts.parts import encoder_alone, words
from vidstill.weights.layouts.sizes import KERNEL, encoder_of
from vidstill.weights.layouts.stmae import is_stmae
from vidstill.weights.names import detector_names

_ACTIONS = 80


class Detector:
    key = "detector"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        head = tensors.get("head.weight")
        of_clips = KERNEL in tensors and tensors[KERNEL].ndim == 5
        if not of_clips or head is None or len(head) != _ACTIONS or "fc_norm" in words(tensors):
            return None
        if "norm.weight" not in tensors or is_stmae(tensors):
            return None
        found = encoder_of(tensors, hint, computed="sinusoid")
        return Reading(
            f"a detector of VideoMAE, of which the encoder is taken (norm, no fc_norm, a head of {_ACTIONS} actions)",
            encoder_alone(self.key, found),
            detector_names(found.config),
            ignored={"head.": "a detector's head: only its encoder is taken"},
            notes=found.notes,
        )
