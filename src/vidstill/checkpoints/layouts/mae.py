"""Image MAE: pre-trainings, encoders, classifiers, linear probes; also the base of DMAE's pre-trainings."""

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.build_match import (
    FIXED_TABLE_REASON,
    build_match,
    compute_decoder_shapes,
    describe_classifier,
    get_linear_shapes,
)
from vidstill.checkpoints.layouts.infer_encoder import infer_decoder, infer_encoder
from vidstill.checkpoints.layouts.infer_positions import infer_positions
from vidstill.checkpoints.layouts.layout import (
    CHECKPOINT_KINDS,
    ForeignFile,
    ForeignFormat,
    Layout,
    LayoutMatch,
    ShapeDict,
)
from vidstill.checkpoints.layouts.rename import RenameRule, build_mae_decoder_rules, build_vit_rules
from vidstill.checkpoints.layouts.videomae import build_classifier_rules
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

DMAE_PROJECTIONS = "aligned_feature_projection_heads"
_DECODER_HEADS = 16  # MAE's decoder


def match_mae_pretraining(file: ForeignFile) -> LayoutMatch | None:
    """A pre-training of image MAE, or of DMAE, which has projections too."""
    if not file.has_patch_embed(4) or "decoder_embed" not in file.top_modules:
        return None
    inferred = infer_encoder(file, default_positions="sincos2d")
    encoder, dim = inferred.config, file.count_rows("decoder_embed.weight")
    has_class_token, name = encoder.class_token, "decoder_pos_embed"
    positions = infer_positions(
        file.tensors, name, dim, 1, "sincos2d", expected_kind="sincos2d", class_token=has_class_token
    )
    decoder = infer_decoder(
        file.tensors,
        "decoder_blocks.",
        dim,
        heads=_DECODER_HEADS,
        positions=positions,
        class_token="encoder" if has_class_token else "none",
        embed_bias=True,
    )
    shapes = compute_decoder_shapes(decoder, encoder.dim, encoder.pixels_per_token)
    is_dmae = DMAE_PROJECTIONS in file.top_modules
    project, signs = ("DMAE", f", {DMAE_PROJECTIONS}") if is_dmae else ("image MAE", "")
    return build_match(
        "pretraining",
        f"a pre-training of {project} (a kernel of images, decoder_embed and decoder_blocks{signs})",
        inferred,
        build_mae_rules(encoder),
        extra_notes=positions.notes,
        metadata={"decoder": to_dict(decoder)},
        ignored_prefixes={"decoder_pos_embed": FIXED_TABLE_REASON},
        expected_shapes=shapes | _get_projection_shapes(file),
    )


def _get_projection_shapes(file: ForeignFile) -> ShapeDict:
    """The names and shapes of DMAE's projections: each a linear layer, or an MLP of two."""
    shapes: ShapeDict = {}
    for name, tensor in file.select(f"{DMAE_PROJECTIONS}.").tensors.items():
        if name.endswith(".weight"):
            shapes |= get_linear_shapes(f"projections.{name.removesuffix('.weight')}", tensor)
    return shapes


def _match_encoder(file: ForeignFile) -> LayoutMatch | None:
    if not file.has_patch_embed(4) or file.top_modules & {"head", "fc_norm", "decoder_embed"}:
        return None
    inferred = infer_encoder(file, default_positions="sincos2d")
    description = "an encoder of image MAE alone (a kernel of images, and neither decoder nor head)"
    return build_match(
        "encoder", description, inferred, build_vit_rules(inferred.config, "", "encoder.", is_image=True)
    )


def _match_linear_probe(file: ForeignFile) -> LayoutMatch | None:
    """A frozen encoder, a batch norm without affine parameters and a linear layer."""
    if not file.has_patch_embed(4) or "head.1.weight" not in file.tensors:
        return None
    inferred = infer_encoder(file, default_positions="sincos2d", requires_table=True)
    dim, num_classes = inferred.config.dim, file.count_rows("head.1.weight")
    shapes: ShapeDict = {"norm.running_mean": (dim,), "norm.running_var": (dim,), "norm.num_batches_tracked": ()}
    shapes |= {"head.weight": (num_classes, dim), "head.bias": (num_classes,)}
    description = f"a linear probe of image MAE (a kernel of images, head.0 and head.1, {num_classes} classes)"
    return build_match("probe", description, inferred, _build_probe_rules(inferred.config), expected_shapes=shapes)


def _match_classifier(file: ForeignFile) -> LayoutMatch | None:
    if not file.has_patch_embed(4) or not file.top_modules & {"head", "fc_norm"}:
        return None
    pools_first = "fc_norm.weight" not in file.tensors
    num_classes = file.count_rows("head.weight")
    inferred = infer_encoder(file, default_positions="sincos2d", requires_table=True)
    signs = "norm and head: the class token is classified" if pools_first else "fc_norm and head"
    description = f"a classifier of image MAE or DMAE (a kernel of images, {signs}, {num_classes} classes)"
    rules = build_classifier_rules(inferred.config, is_image=True)
    metadata = describe_classifier(inferred, num_classes, "first" if pools_first else "mean")
    return build_match("classifier", description, inferred, rules, metadata=metadata)


def build_mae_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    """A pre-training of image MAE, whole or its encoder alone; what DMAE adds to it."""
    decoder = DecoderConfig(dim=1, depth=0, heads=1, positions="sincos2d")  # any size has these names
    return (
        *build_mae_decoder_rules(decoder, separate_qkv=False),
        RenameRule(f"{DMAE_PROJECTIONS}.", "projections."),
        *build_vit_rules(config, "", "encoder.", is_image=True),
    )


def _build_probe_rules(config: ViTConfig) -> tuple[RenameRule, ...]:
    encoder = build_vit_rules(config, "", "encoder.", is_image=True)
    return RenameRule("head.0.", "norm."), RenameRule("head.1.", "head."), *encoder


def build_dmae_format_rules(checkpoint: Checkpoint, config: ViTConfig) -> tuple[RenameRule, ...]:
    match checkpoint.metadata["kind"]:
        case "classifier":
            return build_classifier_rules(config, is_image=True)
        case "probe":
            return _build_probe_rules(config)
    return build_mae_rules(config)


def _build_rules(checkpoint: Checkpoint, config: ViTConfig) -> tuple[RenameRule, ...]:
    return tuple(rule for rule in build_dmae_format_rules(checkpoint, config) if rule.native_prefix != "projections.")


FORMAT = ForeignFormat(
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
LAYOUT = Layout(
    key="mae",
    name="MAE",
    matchers=(match_mae_pretraining, _match_linear_probe, _match_classifier, _match_encoder),
    format=FORMAT,
)
