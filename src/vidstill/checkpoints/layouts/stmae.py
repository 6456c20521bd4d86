"""ST-MAE's pre-trainings, encoders and classifiers, with the names of mae_st or, as published, of PySlowFast."""

from dataclasses import replace
from functools import partial
from math import prod
from typing import Literal

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.layouts.infer_encoder import (
    DecoderClassToken,
    ForeignFile,
    InferredEncoder,
    infer_decoder,
    infer_encoder,
    list_indices,
)
from vidstill.checkpoints.layouts.layout import (
    ForeignFormat,
    Layout,
    LayoutMatch,
    build_classifier_match,
    read_decoder_config,
)
from vidstill.checkpoints.layouts.rename import RenameRule, build_mae_decoder_rules, build_qkv_rules, build_vit_rules
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError

_MEAN, _STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
_DECODER_HEADS = 16  # mae_st's decoder
_SLOWFAST_BLOCKS = "pred_head.transforms.0."  # of the decoder; its norm follows as one more block


def _match_pretraining(file: ForeignFile, *, slowfast: bool) -> LayoutMatch | None:
    signs = {"pred_head"} if slowfast else {"decoder_embed", "decoder_blocks"}
    if not file.has_patch_embed(5) or not file.top_modules & signs:
        return None
    inferred = _infer_encoder(file)
    encoder, decoder = inferred.config, _infer_decoder(file, inferred, slowfast=slowfast)
    head = "pred_head.projections.0.weight" if slowfast else "decoder_pred.weight"
    rows, frame = file.count_rows(head), 3 * encoder.tubelet[1] * encoder.tubelet[2]
    if rows % frame or rows > encoder.pixels_per_token:  # some frames of each tubelet are predicted
        raise InputError(f"{head!r} has {rows} rows, and a frame of a token has {frame} values")
    names = "PySlowFast (pred_head" if slowfast else "mae_st (a kernel of clips, decoder_embed and decoder_blocks"
    return LayoutMatch(
        "pretraining",
        f"a pre-training of ST-MAE with the names of {names}, {_describe_qkv(file)})",
        inferred,
        (build_slowfast_rules if slowfast else build_stmae_rules)(encoder, decoder),
        metadata={"decoder": to_dict(decoder)},
        modules={"decoder.": partial(decoder.build, encoder.dim, out_dim=rows)},
    )


def _infer_encoder(file: ForeignFile) -> InferredEncoder:
    return infer_encoder(file, default_positions="sinusoid", requires_table=True, mean=_MEAN, std=_STD)


def _infer_decoder(file: ForeignFile, inferred: InferredEncoder, *, slowfast: bool) -> DecoderConfig:
    dim, grid = file.count_rows("decoder_embed.weight"), inferred.config.learned_grid
    table = file.tensors.get("decoder_pos_embed")
    has_row = table is not None and grid is not None and table.shape[-2:-1] == (prod(grid) + 1,)
    class_token: DecoderClassToken = "encoder" if has_row or "decoder_pos_embed_class" in file.tensors else "none"
    class_token = "own" if "decoder_cls_token" in file.tensors else class_token
    blocks, heads = (_SLOWFAST_BLOCKS, None) if slowfast else ("decoder_blocks.", _DECODER_HEADS)
    if slowfast:
        norm = f"{_SLOWFAST_BLOCKS}{max(list_indices(file.tensors, _SLOWFAST_BLOCKS), default=0)}."
        tensors = {name: each for name, each in file.tensors.items() if not name.startswith(norm)}
        file = replace(file, tensors=tensors)
    return infer_decoder(
        file, blocks, dim, inferred, kind=None, table="decoder_pos_embed", heads=heads, class_token=class_token
    )[0]


def _match_classifier(file: ForeignFile, *, slowfast: bool) -> LayoutMatch | None:
    head = "head.projection.weight" if slowfast else "head.weight"
    if head not in file.tensors or not (file.has_patch_embed(5) if slowfast else _is_stmae_encoder(file)):
        return None
    num_classes, inferred = file.count_rows(head), _infer_encoder(file)
    names = "PySlowFast (norm and head.projection" if slowfast else "mae_st (norm and head"
    description = f"a classifier of ST-MAE with the names of {names}, {_describe_qkv(file)}, {num_classes} classes)"
    rules = build_stmae_classifier_rules(inferred.config, slowfast=slowfast)
    pooling = _list_poolings(inferred.config)[0]
    return build_classifier_match(description, inferred, rules, num_classes, pooling, norm="pretrained")


def _match_encoder(file: ForeignFile) -> LayoutMatch | None:
    if not _is_stmae_encoder(file) or file.top_modules & {"head", "decoder_embed", "pred_head"}:
        return None
    inferred = _infer_encoder(file)
    description = "an encoder of ST-MAE alone (separate queries or position tables, and neither decoder nor head)"
    return LayoutMatch("encoder", description, inferred, build_stmae_rules(inferred.config))


def _is_stmae_encoder(file: ForeignFile) -> bool:
    """Return whether there is an encoder of clips with separate queries, or with tables of space and time."""
    signs = {"blocks.0.attn.q.weight", "pos_embed_spatial", "pos_embed_temporal"}
    return file.has_patch_embed(5) and not signs.isdisjoint(file.tensors)


def _describe_qkv(file: ForeignFile) -> str:
    return f"{'separate' if file.has_separate_qkv else 'fused'} queries, keys and values"


def build_stmae_rules(
    config: ViTConfig, decoder: DecoderConfig | None = None, *, separate_qkv: bool = True
) -> tuple[RenameRule, ...]:
    """Return the rules of a pre-training with the names of mae_st.

    Args:
        config: The encoder.
        decoder: Its positions and class token decide the names; None: an encoder alone.
        separate_qkv: A layer each for queries, keys and values is written; both are read.
    """
    return (
        *(build_mae_decoder_rules(decoder, separate_qkv=separate_qkv) if decoder else ()),
        *build_vit_rules(config, "", "encoder.", separate_qkv=separate_qkv),
    )


def build_slowfast_rules(
    config: ViTConfig, decoder: DecoderConfig | None = None, *, separate_qkv: bool = True
) -> tuple[RenameRule, ...]:
    """Return the rules of a pre-training with the names of PySlowFast; arguments as in `build_stmae_rules`."""
    encoder = build_vit_rules(config, "", "encoder.", separate_qkv=separate_qkv)
    if decoder is None:
        return encoder
    blocks = _SLOWFAST_BLOCKS, "decoder.trunk.blocks."
    return (
        RenameRule(f"{_SLOWFAST_BLOCKS}{decoder.depth}.", "decoder.norm."),
        *(build_qkv_rules(*blocks) if separate_qkv else ()),
        RenameRule(*blocks),
        RenameRule("pred_head.projections.0.", "decoder.head."),
        *build_mae_decoder_rules(decoder),
        *encoder,
    )


def build_stmae_classifier_rules(
    config: ViTConfig, *, separate_qkv: bool = True, slowfast: bool = False
) -> tuple[RenameRule, ...]:
    """Return the rules of a fine-tuned model of ST-MAE, whose norm after pooling is the pre-trained encoder's.

    Args:
        config: The encoder.
        separate_qkv: A layer each for queries, keys and values is written; both are read.
        slowfast: PySlowFast's name of the head is written; both are read.
    """
    heads = [RenameRule(f"head.{kind}", f"head.{kind}") for kind in ("weight", "bias")]
    heads.insert(0 if slowfast else 2, RenameRule("head.projection.", "head."))
    encoder = build_vit_rules(config, "", "encoder.", separate_qkv=separate_qkv)
    return (RenameRule("norm.", "norm."), *heads, *(rule for rule in encoder if rule.foreign_prefix != "norm."))


def _build_rules(config: ViTConfig, checkpoint: Checkpoint, *, slowfast: bool) -> tuple[RenameRule, ...]:
    separate_qkv = checkpoint.metadata.get("separate_qkv", True)
    if checkpoint.metadata["kind"] == "classifier":
        return build_stmae_classifier_rules(config, separate_qkv=separate_qkv, slowfast=slowfast)
    build = build_slowfast_rules if slowfast else build_stmae_rules
    return build(config, read_decoder_config(checkpoint.metadata), separate_qkv=separate_qkv)


def _list_poolings(config: ViTConfig) -> tuple[Literal["mean", "mean_after_first"], ...]:
    return ("mean",) if config.class_token else ("mean_after_first",)  # released: the first token is left out


def _build_format(project: str, state_dict_key: str, *, slowfast: bool) -> ForeignFormat:
    build_rules = partial(_build_rules, slowfast=slowfast)
    return ForeignFormat(
        project=project,
        build_rules=build_rules,
        build_classifier_rules=build_rules,
        position_kinds=("separable", "learned"),
        attention_biases=("qkv", "none"),
        class_token_options=(True, False),
        supports_layer_scale=False,
        mean_std=(_MEAN, _STD),
        list_poolings=_list_poolings,
        state_dict_key=state_dict_key,
    )


STMAE = Layout(
    key="stmae",
    name="ST-MAE",
    matchers=(partial(_match_pretraining, slowfast=False), partial(_match_classifier, slowfast=False), _match_encoder),
    format=_build_format("mae_st", "model", slowfast=False),
)
SLOWFAST = Layout(
    key="slowfast",
    name="PySlowFast",
    matchers=(partial(_match_pretraining, slowfast=True), partial(_match_classifier, slowfast=True)),
    format=_build_format("PySlowFast", "model_state", slowfast=True),
)
