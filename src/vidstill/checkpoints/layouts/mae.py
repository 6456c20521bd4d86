"""Image MAE: pre-trainings, encoders, classifiers, linear probes; DMAE, which adds projections to a pre-training."""

from dataclasses import replace
from functools import partial

from torch import nn

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.infer_encoder import ForeignFile, infer_decoder, infer_encoder
from vidstill.checkpoints.layouts.layout import (
    CHECKPOINT_KINDS,
    ForeignFormat,
    Layout,
    LayoutMatch,
    ModuleBuilders,
    build_classifier_match,
)
from vidstill.checkpoints.layouts.rename import (
    RenameRule,
    build_classifier_rules,
    build_mae_decoder_rules,
    build_vit_rules,
)
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

_DMAE_PROJECTIONS = "aligned_feature_projection_heads"
_DECODER_HEADS = 16  # MAE's decoder


def _match_pretraining(file: ForeignFile) -> LayoutMatch | None:
    """Match a pre-training of image MAE, or of DMAE, which has projections too."""
    if not file.has_patch_embed(4) or "decoder_embed" not in file.top_modules:
        return None
    inferred = infer_encoder(file, default_positions="sincos2d")
    encoder, dim = inferred.config, file.count_rows("decoder_embed.weight")
    blocks, table = "decoder_blocks.", "decoder_pos_embed"
    decoder, notes = infer_decoder(file, blocks, dim, inferred, kind="sincos2d", table=table, heads=_DECODER_HEADS)
    modules: ModuleBuilders = {"decoder.": partial(decoder.build, encoder.dim, out_dim=encoder.pixels_per_token)}
    for name, weight in file.select(f"{_DMAE_PROJECTIONS}.").tensors.items():
        if name.endswith(".weight"):  # each a linear layer, or an MLP of two
            modules[f"projections.{name.removesuffix('weight')}"] = partial(nn.Linear, *weight.T.shape)
    is_dmae = _DMAE_PROJECTIONS in file.top_modules
    project, signs = ("DMAE", f", {_DMAE_PROJECTIONS}") if is_dmae else ("image MAE", "")
    return LayoutMatch(
        "pretraining",
        f"a pre-training of {project} (a kernel of images, decoder_embed and decoder_blocks{signs})",
        inferred,
        build_mae_rules(encoder),
        notes=notes,
        metadata={"decoder": to_dict(decoder)},
        modules=modules,
    )


def _match_dmae_pretraining(file: ForeignFile) -> LayoutMatch | None:
    return _match_pretraining(file) if _DMAE_PROJECTIONS in file.top_modules else None


def _match_encoder(file: ForeignFile) -> LayoutMatch | None:
    if not file.has_patch_embed(4) or file.top_modules & {"head", "fc_norm", "decoder_embed"}:
        return None
    inferred = infer_encoder(file, default_positions="sincos2d")
    description = "an encoder of image MAE alone (a kernel of images, and neither decoder nor head)"
    return LayoutMatch("encoder", description, inferred, build_vit_rules(inferred.config, "", "encoder."))


def _match_linear_probe(file: ForeignFile) -> LayoutMatch | None:
    """Match a frozen encoder, a batch norm without affine parameters and a linear layer.

    With global pooling the encoder's final norm is `fc_norm`, behind the mean of the tokens.
    """
    if not file.has_patch_embed(4) or "head.1.weight" not in file.tensors:
        return None
    inferred = infer_encoder(file, default_positions="sincos2d", requires_table=True)
    dim, num_classes = inferred.config.dim, file.count_rows("head.1.weight")
    modules: ModuleBuilders = {"head.": partial(nn.Linear, dim, num_classes)}
    modules["norm."] = partial(nn.BatchNorm1d, dim, affine=False)
    metadata = {"global_pool": "fc_norm.weight" in file.tensors}
    signs = "fc_norm, head.0 and head.1" if metadata["global_pool"] else "head.0 and head.1"
    description = f"a linear probe of image MAE (a kernel of images, {signs}, {num_classes} classes)"
    rules = _build_probe_rules(inferred.config, **metadata)
    return LayoutMatch("probe", description, inferred, rules, metadata, modules)


def _match_classifier(file: ForeignFile) -> LayoutMatch | None:
    if not file.has_patch_embed(4) or not file.top_modules & {"head", "fc_norm"}:
        return None
    pools_first = "fc_norm.weight" not in file.tensors
    num_classes = file.count_rows("head.weight")
    inferred = infer_encoder(file, default_positions="sincos2d", requires_table=True)
    signs = "norm and head: the class token is classified" if pools_first else "fc_norm and head"
    description = f"a classifier of image MAE or DMAE (a kernel of images, {signs}, {num_classes} classes)"
    rules = build_classifier_rules(inferred.config)
    return build_classifier_match(description, inferred, rules, num_classes, "first" if pools_first else "mean")


def build_mae_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """Return the rules of a pre-training of image MAE, whole or its encoder alone; what DMAE adds to it."""
    return (
        *build_mae_decoder_rules(DecoderConfig(dim=1, depth=0, heads=1, positions="sincos2d")),
        RenameRule(f"{_DMAE_PROJECTIONS}.", "projections."),
        *build_vit_rules(config, "", "encoder."),
    )


def _build_probe_rules(config: ViTConfig, *, global_pool: bool) -> tuple[RenameRule, ...]:
    vit_rules = build_vit_rules(config, "", "encoder.")
    if global_pool:
        vit_rules = tuple(
            replace(rule, foreign_prefix="fc_norm.") if rule.foreign_prefix == "norm." else rule for rule in vit_rules
        )
    return (RenameRule("head.0.", "norm."), RenameRule("head.1.", "head."), *vit_rules)


def _build_dmae_rules(config: ViTConfig, checkpoint: Checkpoint) -> tuple[RenameRule, ...]:
    if checkpoint.metadata["kind"] == "probe":
        return _build_probe_rules(config, global_pool=checkpoint.metadata.get("global_pool", False))
    return build_mae_rules(config)


def _build_rules(config: ViTConfig, checkpoint: Checkpoint) -> tuple[RenameRule, ...]:
    return tuple(rule for rule in _build_dmae_rules(config, checkpoint) if rule.native_prefix != "projections.")


_FORMAT = ForeignFormat(
    project="MAE",
    build_rules=_build_rules,
    position_kinds=("sincos2d", "learned"),
    attention_biases=("qkv", "none"),
    class_token_options=(True,),
    is_image=True,
    supports_layer_scale=False,
    position_tables={"pos_embed": "patch_embed.proj.bias", "decoder_pos_embed": "decoder_norm.weight"},
    kinds_with_position_table=(*CHECKPOINT_KINDS, "probe"),
    checkpoint_kinds=(*CHECKPOINT_KINDS, "probe"),
)
MAE = Layout(
    key="mae",
    name="MAE",
    matchers=(_match_pretraining, _match_linear_probe, _match_classifier, _match_encoder),
    format=_FORMAT,
)
DMAE = Layout(
    key="dmae",
    name="DMAE",
    matchers=(_match_dmae_pretraining,),
    format=replace(_FORMAT, project="DMAE", build_rules=_build_dmae_rules),
)
