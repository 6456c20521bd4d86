"""VideoMAE and VideoMAE V2: pre-trainings, encoders, detectors, and the classifiers of AMD, MVD and MaskAgain too."""

from functools import partial
from typing import Any

from vidstill.checkpoints.layouts.infer_encoder import ForeignFile, InferredEncoder, infer_decoder, infer_encoder
from vidstill.checkpoints.layouts.infer_positions import FIXED_POSITION_KINDS
from vidstill.checkpoints.layouts.layout import ForeignFormat, Layout, LayoutMatch, build_classifier_match
from vidstill.checkpoints.layouts.rename import RenameRule, build_classifier_rules, build_token_rule, build_vit_rules
from vidstill.models.position_embeddings import FixedPositionKind, PositionKind
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

POSITION_KINDS: tuple[PositionKind, ...] = ("sinusoid", "learned")
_GIANT_DIM = 1408
_K710_CLASSES = 710  # VideoMAE V2's distilled models classify Kinetics-710
_NUM_ACTIONS = 80  # of a detector's head (AVA)


def get_version_name(dim: int, num_classes: int = 0) -> str:
    return "VideoMAE V2" if dim == _GIANT_DIM or num_classes == _K710_CLASSES else "VideoMAE"


def _match_pretraining(file: ForeignFile) -> LayoutMatch | None:
    if not file.has_patch_embed(5, "encoder.") or not file.top_modules & {"encoder_to_decoder", "decoder"}:
        return None
    inferred = infer_encoder(file.select("encoder."), default_positions="sinusoid")
    description = f"a pre-training of {get_version_name(inferred.config.dim)} (encoder, encoder_to_decoder and decoder)"
    rules = build_videomae_rules(inferred.config)
    return LayoutMatch("pretraining", description, inferred, rules, **infer_videomae_decoder(file, inferred))


def infer_videomae_decoder(file: ForeignFile, inferred: InferredEncoder) -> dict[str, Any]:
    """Return the `metadata` and `modules` of a match that describe VideoMAE's decoder."""
    encoder, dim = inferred.config, file.count_rows("encoder_to_decoder.weight")
    kind: FixedPositionKind = next((kind for kind in FIXED_POSITION_KINDS if kind == encoder.positions), "sinusoid")
    has_bias = "encoder_to_decoder.bias" in file.tensors
    decoder, _ = infer_decoder(
        file, "decoder.blocks.", dim, inferred, kind=kind, class_token="none", embed_bias=has_bias
    )
    build = partial(decoder.build, encoder.dim, out_dim=encoder.pixels_per_token)
    return {"metadata": {"decoder": to_dict(decoder)}, "modules": {"decoder.": build}}


def _match_classifier(file: ForeignFile) -> LayoutMatch | None:
    if not file.has_patch_embed(5) or not file.top_modules & {"head", "fc_norm"}:
        return None
    num_classes = file.count_rows("head.weight")
    inferred = infer_encoder(file, default_positions="sinusoid")
    version = get_version_name(inferred.config.dim, num_classes)
    projects = "VideoMAE, MVD, AMD or MaskAgain" if version == "VideoMAE" else version
    pools_first = "norm.weight" in file.tensors
    signs = "norm and head: the first token is classified" if pools_first else "fc_norm and head"
    description = f"a classifier of {projects} ({signs}, {num_classes} classes)"
    rules = build_classifier_rules(inferred.config)
    return build_classifier_match(description, inferred, rules, num_classes, "first" if pools_first else "mean")


def _match_encoder(file: ForeignFile) -> LayoutMatch | None:
    """Match the encoder of a pre-training, with its prefix or without, or of a classifier without its head."""
    prefix = "encoder." if file.has_patch_embed(5, "encoder.") else ""
    bare = file.select(prefix)
    if not bare.has_patch_embed(5) or "head.weight" in bare.tensors:
        return None
    inferred = infer_encoder(bare, default_positions="sinusoid")
    description = f"an encoder of {get_version_name(inferred.config.dim)} alone (blocks, and neither decoder nor head)"
    return LayoutMatch("encoder", description, inferred, build_vit_rules(inferred.config, prefix, "encoder."))


def _match_detector(file: ForeignFile) -> LayoutMatch | None:
    """Match an action detector: a final norm and a head of 80 actions."""
    head = file.tensors.get("head.weight")
    if not file.has_patch_embed(5) or head is None or len(head) != _NUM_ACTIONS or "fc_norm" in file.top_modules:
        return None
    if "norm.weight" not in file.tensors:
        return None
    inferred = infer_encoder(file, default_positions="sinusoid")
    description = f"a detector of VideoMAE: its encoder is used (norm, no fc_norm, a head of {_NUM_ACTIONS} actions)"
    unused = RenameRule("head.", None, reason="a detector's head: only its encoder is used")
    return LayoutMatch("encoder", description, inferred, (*build_vit_rules(inferred.config, "", "encoder."), unused))


def build_videomae_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """Return the rules of a pre-training of VideoMAE."""
    return (
        *build_vit_rules(config, "encoder.", "encoder."),
        RenameRule("encoder_to_decoder.", "decoder.embed."),
        build_token_rule("mask_token", "decoder.trunk.mask_token"),
        RenameRule("decoder.blocks.", "decoder.trunk.blocks."),
        RenameRule("decoder.norm.", "decoder.norm."),
        RenameRule("decoder.head.", "decoder.head."),
    )


VIDEOMAE = Layout(
    key="videomae",
    name="VideoMAE, VideoMAE V2",
    matchers=(_match_pretraining, _match_classifier, _match_encoder),
    format=ForeignFormat(
        project="VideoMAE", build_rules=lambda config, _: build_videomae_rules(config), position_kinds=POSITION_KINDS
    ),
)
DETECTOR = Layout(key="detector", name="VideoMAE's detectors", matchers=(_match_detector,))
