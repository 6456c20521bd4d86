"""mmaction2's recognizers with VideoMAE's or VideoMAE V2's encoder."""

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from vidstill.checkpoints.layouts.infer_encoder import ForeignFile, infer_encoder
from vidstill.checkpoints.layouts.layout import (
    CheckpointKind,
    ForeignFormat,
    Layout,
    LayoutMatch,
    build_classifier_match,
)
from vidstill.checkpoints.layouts.rename import RenameRule, build_patch_embed_rules, build_vit_rules
from vidstill.checkpoints.layouts.videomae import POSITION_KINDS, get_version_name
from vidstill.models.vit import ViTConfig

_KINDS: tuple[CheckpointKind, ...] = ("encoder", "classifier")
_PREFIX = "backbone."
_PATCH_EMBED_WEIGHT = "patch_embed.projection.weight"
_NAME_PATTERNS = {
    r"^patch_embed\.projection\.": "patch_embed.proj.",
    r"^(blocks\.\d+\.mlp)\.layers\.0\.0\.": r"\1.fc1.",
    r"^(blocks\.\d+\.mlp)\.layers\.1\.": r"\1.fc2.",
}


def _match_recognizer(file: ForeignFile) -> LayoutMatch | None:
    prefix = _PREFIX if f"{_PREFIX}{_PATCH_EMBED_WEIGHT}" in file.tensors else ""
    weight = file.tensors.get(f"{prefix}{_PATCH_EMBED_WEIGHT}")
    if weight is None or weight.ndim != 5:
        return None
    inferred = infer_encoder(_rename_to_videomae(file.select(prefix)), default_positions="sinusoid")
    rules = build_mmaction_rules(inferred.config, prefix)
    signs = f"{prefix}patch_embed.projection, blocks.N.mlp.layers"
    if "cls_head.fc_cls.weight" not in file.tensors:
        description = f"an encoder of {get_version_name(inferred.config.dim)} with the names of mmaction2 ({signs})"
        return LayoutMatch("encoder", description, inferred, rules)
    num_classes = file.count_rows("cls_head.fc_cls.weight")
    version = get_version_name(inferred.config.dim, num_classes)
    head = f"cls_head.fc_cls of {num_classes} classes"
    description = f"a classifier of {version} with the names of mmaction2 ({signs}, {head})"
    pools_mean = f"{prefix}fc_norm.weight" in file.tensors
    return build_classifier_match(description, inferred, rules, num_classes, "mean" if pools_mean else "first")


def _rename_to_videomae(file: ForeignFile) -> ForeignFile:
    tensors: Mapping[str, Tensor] = file.tensors
    for pattern, replacement in _NAME_PATTERNS.items():
        tensors = {re.sub(pattern, replacement, name): tensor for name, tensor in tensors.items()}
    return replace(file, tensors=tensors)


def build_mmaction_rules(config: ViTConfig, prefix: str = _PREFIX) -> tuple[RenameRule, ...]:
    """Return the rules of a recognizer of mmaction2: VideoMAE's classifier with a prefix and the names of mmcv."""
    mlp, native_mlp = f"{prefix}blocks.*.mlp.layers.", "encoder.blocks.*.mlp."
    return (
        *build_patch_embed_rules(config.tubelet, f"{prefix}patch_embed.projection.", "encoder.patch_embed."),
        RenameRule(f"{mlp}0.0.", f"{native_mlp}fc1."),
        RenameRule(f"{mlp}1.", f"{native_mlp}fc2."),
        RenameRule(f"{prefix}fc_norm.", "norm."),
        RenameRule("cls_head.fc_cls.", "head."),
        RenameRule("data_preprocessor.", None, reason="mmaction2's own copy of the colour mean and standard deviation"),
        *build_vit_rules(config, prefix, "encoder."),
    )


MMACTION = Layout(
    key="mmaction",
    name="mmaction2",
    matchers=(_match_recognizer,),
    format=ForeignFormat(
        project="mmaction2",
        build_rules=lambda config, _: build_mmaction_rules(config),
        build_classifier_rules=lambda config, _: build_mmaction_rules(config),
        position_kinds=POSITION_KINDS,
        position_tables={"backbone.pos_embed": "backbone.patch_embed.projection.bias"},
        kinds_with_position_table=_KINDS,
        state_dict_key="state_dict",
        checkpoint_kinds=_KINDS,
    ),
)
