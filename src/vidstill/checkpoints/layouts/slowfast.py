"""ST-MAE's pre-trainings and classifiers with the names of PySlowFast, as they are published."""

from collections.abc import Sequence
from dataclasses import replace

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts import stmae
from vidstill.checkpoints.layouts.build_match import build_match
from vidstill.checkpoints.layouts.layout import ForeignFile, Layout, LayoutMatch
from vidstill.checkpoints.layouts.rename import (
    RenameRule,
    build_mae_decoder_rules,
    build_qkv_rules,
    build_vit_rules,
)
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

_BLOCKS_PREFIX = "pred_head.transforms.0."


def _match_pretraining(file: ForeignFile) -> LayoutMatch | None:
    if not file.has_patch_embed(5) or "pred_head" not in file.top_modules:
        return None
    inferred = stmae.infer_stmae_encoder(file)
    last = max(file.list_indices(_BLOCKS_PREFIX), default=0)  # the decoder's norm comes after its blocks
    blocks = {name: each for name, each in file.tensors.items() if not name.startswith(f"{_BLOCKS_PREFIX}{last}.")}
    decoder = stmae.infer_stmae_decoder(
        replace(file, tensors=blocks),
        _BLOCKS_PREFIX,
        inferred,
        heads=None,
        class_token="encoder" if inferred.config.class_token else "none",
    )
    head = "pred_head.projections.0.weight"
    return build_match(
        "pretraining",
        f"a pre-training of ST-MAE with the names of PySlowFast (pred_head, {stmae.describe_qkv(file)})",
        inferred,
        build_slowfast_rules(inferred.config, decoder, separate_qkv=stmae.has_separate_qkv(file.tensors)),
        metadata={"decoder": to_dict(decoder)},
        expected_shapes=stmae.compute_stmae_decoder_shapes(file, decoder, inferred.config, head),
    )


def _match_classifier(file: ForeignFile) -> LayoutMatch | None:
    head = "head.projection.weight"
    if not file.has_patch_embed(5) or head not in file.tensors:
        return None
    return stmae.match_stmae_classifier(file, head, "PySlowFast (norm and head.projection", slowfast=True)


def build_slowfast_rules(
    config: ViTConfig, decoder: DecoderConfig, *, separate_qkv: bool = True
) -> tuple[RenameRule, ...]:
    """Return the rules of a pre-training with the names of PySlowFast; arguments as in `build_stmae_rules`."""
    return (
        RenameRule(f"{_BLOCKS_PREFIX}{decoder.depth}.", "decoder.norm."),
        *(build_qkv_rules(_BLOCKS_PREFIX, "decoder.trunk.blocks.", decoder.depth) if separate_qkv else ()),
        RenameRule(_BLOCKS_PREFIX, "decoder.trunk.blocks."),
        RenameRule("pred_head.projections.0.", "decoder.head."),
        *build_mae_decoder_rules(decoder, separate_qkv=False),  # its blocks are named above
        *build_vit_rules(config, "", "encoder.", separate_qkv=separate_qkv),
    )


def _build_rules(checkpoint: Checkpoint, config: ViTConfig) -> Sequence[RenameRule]:
    separate = checkpoint.metadata.get("separate_qkv", True)
    if checkpoint.metadata["kind"] == "classifier":
        return stmae.build_stmae_classifier_rules(config, separate_qkv=separate, slowfast=True)
    decoder = stmae.infer_decoder_naming(checkpoint.tensors)
    return build_slowfast_rules(config, decoder, separate_qkv=separate)


LAYOUT = Layout(
    key="slowfast",
    name="PySlowFast",
    matchers=(_match_pretraining, _match_classifier),
    format=replace(stmae.FORMAT, project="PySlowFast", build_rules=_build_rules, state_dict_key="model_state"),
)
