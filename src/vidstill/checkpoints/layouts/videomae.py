"""VideoMAE and VideoMAE V2: pre-trainings, encoders, and the classifiers of AMD, MVD and MaskAgain too."""

from typing import Any

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.build_match import build_match, compute_decoder_shapes, describe_classifier
from vidstill.checkpoints.layouts.infer_encoder import InferredEncoder, infer_decoder, infer_encoder
from vidstill.checkpoints.layouts.infer_positions import InferredPositions
from vidstill.checkpoints.layouts.layout import ForeignFile, ForeignFormat, Layout, LayoutMatch, ShapeDict
from vidstill.checkpoints.layouts.rename import RenameRule, build_token_rule, build_vit_rules
from vidstill.models.position_embeddings import PositionKind
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

POSITION_KINDS: tuple[PositionKind, ...] = ("sinusoid", "learned")
_GIANT_DIM = 1408
_K710_CLASSES = 710  # VideoMAE V2's distilled models classify Kinetics-710


def get_version_name(dim: int, num_classes: int = 0) -> str:
    return "VideoMAE V2" if dim == _GIANT_DIM or num_classes == _K710_CLASSES else "VideoMAE"


def _match_pretraining(file: ForeignFile) -> LayoutMatch | None:
    if not file.has_patch_embed(5, "encoder.") or not file.top_modules & {"encoder_to_decoder", "decoder"}:
        return None
    inferred = infer_encoder(file.select("encoder."), default_positions="sinusoid")
    metadata, shapes = infer_videomae_decoder(file, inferred)
    description = f"a pre-training of {get_version_name(inferred.config.dim)} (encoder, encoder_to_decoder and decoder)"
    rules = build_videomae_rules(inferred.config)
    return build_match("pretraining", description, inferred, rules, metadata=metadata, expected_shapes=shapes)


def infer_videomae_decoder(file: ForeignFile, inferred: InferredEncoder) -> tuple[dict[str, Any], ShapeDict]:
    """The metadata that describes VideoMAE's decoder, and its names and shapes."""
    encoder, dim = inferred.config, file.count_rows("encoder_to_decoder.weight")
    positions = InferredPositions(encoder.positions if encoder.learned_grid is None else "sinusoid")
    has_bias = "encoder_to_decoder.bias" in file.tensors
    decoder = infer_decoder(file.tensors, "decoder.blocks.", dim, positions=positions, embed_bias=has_bias)
    return {"decoder": to_dict(decoder)}, compute_decoder_shapes(decoder, encoder.dim, encoder.pixels_per_token)


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
    metadata = describe_classifier(inferred, num_classes, "first" if pools_first else "mean")
    return build_match("classifier", description, inferred, build_classifier_rules(inferred.config), metadata=metadata)


def _match_encoder(file: ForeignFile) -> LayoutMatch | None:
    """The encoder of a pre-training, with its prefix or without, or of a classifier without its head."""
    prefix = "encoder." if file.has_patch_embed(5, "encoder.") else ""
    bare = file.select(prefix)
    if not bare.has_patch_embed(5) or "head.weight" in bare.tensors:
        return None
    inferred = infer_encoder(bare, default_positions="sinusoid")
    description = f"an encoder of {get_version_name(inferred.config.dim)} alone (blocks, and neither decoder nor head)"
    return build_match("encoder", description, inferred, build_vit_rules(inferred.config, prefix, "encoder."))


def build_videomae_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """A pre-training of VideoMAE."""
    return (
        *build_vit_rules(config, "encoder.", "encoder."),
        RenameRule("encoder_to_decoder.", "decoder.embed."),
        build_token_rule("mask_token", "decoder.trunk.mask_token"),
        RenameRule("decoder.blocks.", "decoder.trunk.blocks."),
        RenameRule("decoder.norm.", "decoder.norm."),
        RenameRule("decoder.head.", "decoder.head."),
    )


def build_classifier_rules(config: ViTConfig, *, is_image: bool = False) -> tuple[RenameRule, ...]:
    """A fine-tuned model of VideoMAE, MVD, AMD and MaskAgain; of image MAE and DMAE."""
    return (
        *build_vit_rules(config, "", "encoder.", is_image=is_image),
        RenameRule("fc_norm.", "norm."),
        RenameRule("head.", "head."),
    )


def _build_rules(checkpoint: Checkpoint, config: ViTConfig) -> tuple[RenameRule, ...]:
    build = build_classifier_rules if checkpoint.metadata["kind"] == "classifier" else build_videomae_rules
    return build(config)


LAYOUT = Layout(
    key="videomae",
    name="VideoMAE, VideoMAE V2",
    matchers=(_match_pretraining, _match_classifier, _match_encoder),
    format=ForeignFormat(project="VideoMAE", build_rules=_build_rules, position_kinds=POSITION_KINDS),
)
