"""VideoMAE's detectors of actions (AVA), to start an encoder from: a last norm and a head of 80 actions."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import encoder_alone, words
from vidstill.checkpoints.layouts.infer_config import KERNEL, encoder_of
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.rename import Name, vit_names
from vidstill.checkpoints.layouts.stmae import is_stmae
from vidstill.models.vit import ViTConfig

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


def detector_names(config: ViTConfig) -> tuple[Name, ...]:
    """VideoMAE's detector of actions, whose norm is the encoder's; its head is of no use to us."""
    return (*vit_names(config, "", "encoder."), Name("head.", None))
