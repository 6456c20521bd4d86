"""VideoMAE's detectors of actions (AVA), to start an encoder from: a last norm and a head of 80 actions."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import build_encoder_metadata, list_top_modules
from vidstill.checkpoints.layouts.infer_config import PATCH_EMBED_WEIGHT, infer_encoder
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule, build_vit_rules
from vidstill.checkpoints.layouts.stmae import is_stmae_encoder
from vidstill.models.vit import ViTConfig

_NUM_ACTIONS = 80


class VideoMAEDetectorLayout:
    key = "detector"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        head = tensors.get("head.weight")
        of_clips = PATCH_EMBED_WEIGHT in tensors and tensors[PATCH_EMBED_WEIGHT].ndim == 5
        if not of_clips or head is None or len(head) != _NUM_ACTIONS or "fc_norm" in list_top_modules(tensors):
            return None
        if "norm.weight" not in tensors or is_stmae_encoder(tensors):
            return None
        found = infer_encoder(tensors, hint, default_positions="sinusoid")
        return LayoutMatch(
            f"a detector of VideoMAE, of which the encoder is taken (norm, no fc_norm, a head of {_NUM_ACTIONS} actions)",
            build_encoder_metadata(self.key, found),
            build_detector_rules(found.config),
            ignored_prefixes={"head.": "a detector's head: only its encoder is taken"},
            notes=found.notes,
        )


def build_detector_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """VideoMAE's detector of actions, whose norm is the encoder's; its head is of no use to us."""
    return (*build_vit_rules(config, "", "encoder."), RenameRule("head.", None))
