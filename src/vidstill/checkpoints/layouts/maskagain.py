"""MaskAgain's pre-trainings: a student without norm and decoder, and its projections."""

from functools import partial
from typing import Any

from torch import nn

from vidstill.checkpoints.layouts.infer_encoder import ForeignFile, infer_encoder
from vidstill.checkpoints.layouts.layout import ForeignFormat, Layout, LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.checkpoints.layouts.videomae import POSITION_KINDS, build_videomae_rules, infer_videomae_decoder
from vidstill.models.vit import ViTConfig

_PROJECTION_NAMES = {  # published files have Align_feature and Align_valuesum alone
    "Align_feature.fc1": "projections.hint.0",
    "Align_feature.fc2": "projections.hint.2",
    "Align_valuesum.fc": "projections.global_student",
    "Align_valuesum_t.fc": "projections.global_teacher",
    "Align_valuesum1.fc": "projections.local_student",
    "Align_valuesum1_t.fc": "projections.local_teacher",
}


def _match_pretraining(file: ForeignFile) -> LayoutMatch | None:
    projections = sorted(name for name in file.top_modules if name.startswith("Align_"))
    if not file.has_patch_embed(5, "encoder.") or not (projections or file.top_modules == {"encoder"}):
        return None
    if not projections and any(name.startswith("encoder.norm.") for name in file.tensors):
        return None  # an encoder of VideoMAE alone
    inferred = infer_encoder(file.select("encoder."), default_positions="sinusoid")
    has_decoder = file.top_modules & {"decoder", "encoder_to_decoder"}
    decoder: dict[str, Any] = infer_videomae_decoder(file, inferred) if has_decoder else {"modules": {}}
    for foreign_name, native_name in _PROJECTION_NAMES.items():
        if (weight := file.tensors.get(f"{foreign_name}.weight")) is not None:
            decoder["modules"][f"{native_name}."] = partial(nn.Linear, *weight.T.shape)
    signs = f"with {', '.join(projections)}" if projections else "the prefix encoder., and neither norm nor decoder"
    return LayoutMatch(
        "pretraining",
        f"a pre-training of MaskAgain ({signs})",
        inferred,
        build_maskagain_rules(inferred.config),
        optional_prefixes={"encoder.norm.": "a student of MaskAgain has no final norm"},
        **decoder,
    )


def build_maskagain_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """Return the rules of a pre-training of MaskAgain; it has a decoder only in the paper's ablations."""
    projections = (RenameRule(f"{foreign}.", f"{native}.") for foreign, native in _PROJECTION_NAMES.items())
    return (*build_videomae_rules(config), *projections)


MASKAGAIN = Layout(
    key="maskagain",
    name="MaskAgain",
    matchers=(_match_pretraining,),
    format=ForeignFormat(
        project="MaskAgain", build_rules=lambda config, _: build_maskagain_rules(config), position_kinds=POSITION_KINDS
    ),
)
