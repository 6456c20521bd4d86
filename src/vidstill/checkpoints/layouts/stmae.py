"""ST-MAE's files with the names of mae_st: pre-trainings, encoders and classifiers."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.build_match import (
    build_match,
    compute_decoder_shapes,
    describe_classifier,
)
from vidstill.checkpoints.layouts.infer_encoder import InferredEncoder, infer_decoder, infer_encoder
from vidstill.checkpoints.layouts.infer_positions import infer_positions
from vidstill.checkpoints.layouts.layout import (
    ForeignFile,
    ForeignFormat,
    Layout,
    LayoutMatch,
    ShapeDict,
    list_indices,
)
from vidstill.checkpoints.layouts.rename import RenameRule, build_mae_decoder_rules, build_vit_rules
from vidstill.models.decoder import DecoderConfig
from vidstill.models.position_embeddings import PositionKind
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError

_MEAN, _STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
_DECODER_HEADS = 16  # mae_st's decoder
_CLASS_TOKEN = Literal["none", "encoder", "own"]


def _match_pretraining(file: ForeignFile) -> LayoutMatch | None:
    if not file.has_patch_embed(5) or not file.top_modules & {"decoder_embed", "decoder_blocks"}:
        return None
    inferred = infer_stmae_encoder(file)
    class_token = _infer_decoder_class_token(file, inferred)
    decoder = infer_stmae_decoder(file, "decoder_blocks.", inferred, heads=_DECODER_HEADS, class_token=class_token)
    return build_match(
        "pretraining",
        "a pre-training of ST-MAE with the names of mae_st (a kernel of clips, decoder_embed and decoder_blocks, "
        f"{describe_qkv(file)})",
        inferred,
        build_stmae_rules(inferred.config, decoder, separate_qkv=has_separate_qkv(file.tensors)),
        metadata={"decoder": to_dict(decoder)},
        expected_shapes=compute_stmae_decoder_shapes(file, decoder, inferred.config, "decoder_pred.weight"),
    )


def _match_classifier(file: ForeignFile) -> LayoutMatch | None:
    if not _is_stmae_encoder(file) or "head.weight" not in file.tensors:
        return None
    return match_stmae_classifier(file, "head.weight", "mae_st (norm and head")


def match_stmae_classifier(file: ForeignFile, head: str, names: str, *, slowfast: bool = False) -> LayoutMatch:
    """A classifier of ST-MAE.

    Args:
        head: The name of its head's weight.
        names: Whose names it has, and the signs, for its description.
        slowfast: It has PySlowFast's name of the head.
    """
    num_classes = file.count_rows(head)
    inferred = infer_stmae_encoder(file)
    separate, pooling = has_separate_qkv(file.tensors), _list_poolings(inferred.config)[0]
    description = f"a classifier of ST-MAE with the names of {names}, {describe_qkv(file)}, {num_classes} classes)"
    rules = build_stmae_classifier_rules(inferred.config, separate_qkv=separate, slowfast=slowfast)
    metadata = describe_classifier(inferred, num_classes, pooling, "pretrained")
    return build_match("classifier", description, inferred, rules, metadata=metadata)


def _match_encoder(file: ForeignFile) -> LayoutMatch | None:
    if not _is_stmae_encoder(file) or file.top_modules & {"head", "decoder_embed", "pred_head"}:
        return None
    inferred = infer_stmae_encoder(file)
    rules = build_vit_rules(inferred.config, "", "encoder.", separate_qkv=has_separate_qkv(file.tensors))
    description = "an encoder of ST-MAE alone (separate queries or position tables, and neither decoder nor head)"
    return build_match("encoder", description, inferred, rules)


def _is_stmae_encoder(file: ForeignFile) -> bool:
    """Whether there is an encoder of clips with separate queries, or with tables of space and time."""
    tables = {"pos_embed_spatial", "pos_embed_temporal"}
    return file.has_patch_embed(5) and (has_separate_qkv(file.tensors) or bool(tables & file.tensors.keys()))


def has_separate_qkv(tensors: Mapping[str, Tensor]) -> bool:
    return "blocks.0.attn.q.weight" in tensors


def describe_qkv(file: ForeignFile) -> str:
    return f"{'separate' if has_separate_qkv(file.tensors) else 'fused'} queries, keys and values"


def infer_stmae_encoder(file: ForeignFile) -> InferredEncoder:
    return infer_encoder(file, default_positions="sinusoid", requires_table=True, mean=_MEAN, std=_STD)


def infer_stmae_decoder(
    file: ForeignFile, prefix: str, inferred: InferredEncoder, *, heads: int | None, class_token: _CLASS_TOKEN
) -> DecoderConfig:
    """Infer a decoder of ST-MAE.

    Args:
        file: The foreign file.
        prefix: Of its blocks' names.
        inferred: The encoder.
        heads: Of its attention; None: of 64 channels.
        class_token: Which class token comes before its tokens.
    """
    dim = file.count_rows("decoder_embed.weight")
    positions = infer_positions(
        file.tensors,
        "decoder_pos_embed",
        dim,
        inferred.config.tubelet[0],
        "sinusoid",
        hint_grid=inferred.config.learned_grid,
        class_token=class_token != "none",
        requires_table=True,
    )
    return infer_decoder(
        file.tensors, prefix, dim, heads=heads, positions=positions, class_token=class_token, embed_bias=True
    )


def _infer_decoder_class_token(file: ForeignFile, inferred: InferredEncoder) -> _CLASS_TOKEN:
    """The decoder's own class token, or the encoder's where its table has a row for it."""
    if "decoder_cls_token" in file.tensors:
        return "own"
    table, grid = file.tensors.get("decoder_pos_embed"), inferred.config.learned_grid
    has_row = table is not None and grid is not None and table.shape[-2:-1] == (grid[0] * grid[1] * grid[2] + 1,)
    return "encoder" if has_row or "decoder_pos_embed_class" in file.tensors else "none"


def compute_stmae_decoder_shapes(file: ForeignFile, decoder: DecoderConfig, encoder: ViTConfig, head: str) -> ShapeDict:
    """The names and shapes of a decoder that predicts the pixels of some frames of each tubelet.

    Args:
        file: The foreign file.
        decoder: What was inferred.
        encoder: What was inferred.
        head: The name of the weight of its last layer.

    Raises:
        InputError: It does not predict whole frames.
    """
    rows, frame = file.count_rows(head), 3 * encoder.tubelet[1] * encoder.tubelet[2]
    if rows % frame or rows > encoder.pixels_per_token:
        raise InputError(f"{head!r} has {rows} rows, and a frame of a token has {frame} values")
    return compute_decoder_shapes(decoder, encoder.dim, rows)


def build_stmae_rules(
    config: ViTConfig, decoder: DecoderConfig, *, separate_qkv: bool = True
) -> tuple[RenameRule, ...]:
    """Return the rules of a pre-training with the names of mae_st.

    Args:
        config: The encoder.
        decoder: Its depth, positions and class token decide the names.
        separate_qkv: It has a layer each for queries, keys and values.
    """
    return (
        *build_mae_decoder_rules(decoder, separate_qkv=separate_qkv),
        *build_vit_rules(config, "", "encoder.", separate_qkv=separate_qkv),
    )


def build_stmae_classifier_rules(
    config: ViTConfig, *, separate_qkv: bool = True, slowfast: bool = False
) -> tuple[RenameRule, ...]:
    """A fine-tuned model of ST-MAE, whose norm after pooling is the pre-trained encoder's.

    Args:
        config: The encoder.
        separate_qkv: It has a layer each for queries, keys and values.
        slowfast: Write PySlowFast's name of the head; both are read.
    """
    heads = [
        RenameRule("head.weight", "head.weight"),
        RenameRule("head.bias", "head.bias"),
        RenameRule("head.projection.", "head."),
    ]
    heads.sort(key=lambda rule: (rule.native_prefix == "head.") != slowfast)
    encoder = build_vit_rules(config, "", "encoder.", separate_qkv=separate_qkv)
    return RenameRule("norm.", "norm."), *heads, *(rule for rule in encoder if rule.foreign_prefix != "norm.")


def infer_decoder_naming(tensors: Mapping[str, Tensor]) -> DecoderConfig:
    """What the names of our own decoder say of it, as far as the rules depend on it."""
    positions: PositionKind = "learned" if "decoder.trunk.positions.joint" in tensors else "sincos2d"
    positions = "separable" if "decoder.trunk.positions.space" in tensors else positions
    class_token: _CLASS_TOKEN = "encoder" if "decoder.trunk.positions.cls_embedding" in tensors else "none"
    return DecoderConfig(
        dim=1,
        depth=len(list_indices(tensors, "decoder.trunk.blocks.")),
        heads=1,
        positions=positions,
        class_token="own" if "decoder.trunk.cls_token" in tensors else class_token,
    )


def _build_rules(checkpoint: Checkpoint, config: ViTConfig) -> Sequence[RenameRule]:
    separate = checkpoint.metadata.get("separate_qkv", True)
    if checkpoint.metadata["kind"] == "classifier":
        return build_stmae_classifier_rules(config, separate_qkv=separate)
    return build_stmae_rules(config, infer_decoder_naming(checkpoint.tensors), separate_qkv=separate)


def _list_poolings(config: ViTConfig) -> tuple[Literal["mean", "mean_after_first"], ...]:
    return ("mean",) if config.class_token else ("mean_after_first",)  # released: the first token is left out


FORMAT = ForeignFormat(
    project="mae_st",
    build_rules=_build_rules,
    position_kinds=("separable", "learned"),
    attention_biases=("qkv", "none"),
    class_token_options=(True, False),
    supports_layer_scale=False,
    mean_std=(_MEAN, _STD),
    list_poolings=_list_poolings,
)
LAYOUT = Layout(
    key="stmae",
    name="ST-MAE",
    matchers=(_match_pretraining, _match_classifier, _match_encoder),
    format=FORMAT,
)
