"""ST-MAE's files in the words of mae_st: pre-trainings, encoders alone and classifiers."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import (
    build_classifier_metadata,
    build_encoder_metadata,
    build_pretraining_metadata,
    compute_decoder_shapes,
    count_rows,
    list_top_modules,
)
from vidstill.checkpoints.layouts.infer_config import (
    PATCH_EMBED_WEIGHT,
    InferredEncoder,
    infer_decoder,
    infer_encoder,
    infer_positions,
)
from vidstill.checkpoints.layouts.layout import LayoutMatch
from vidstill.checkpoints.layouts.rename import RenameRule, _build_mae_decoder_rules, build_vit_rules
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError

_GREY_MEAN_STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
_DECODER_HEADS = 16  # of mae_st's decoder


class STMAEPretrainingLayout:
    key = "stmae"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        if not is_video_encoder(tensors) or not list_top_modules(tensors) & {"decoder_embed", "decoder_blocks"}:
            return None
        found = infer_stmae_encoder(tensors, hint)
        decoder = infer_stmae_decoder(
            tensors,
            "decoder_blocks.",
            found,
            heads=_DECODER_HEADS,
            class_token=_infer_decoder_class_token(tensors, found),
        )
        separate = "blocks.0.attn.q.weight" in tensors
        return LayoutMatch(
            f"a pre-training of ST-MAE in the words of mae_st (a kernel of clips, decoder_embed and decoder_blocks, "
            f"{'separate' if separate else 'fused'} queries, keys and values)",
            build_pretraining_metadata(self.key, found, decoder=to_dict(decoder)),
            build_stmae_rules(found.config, decoder, separate_qkv=separate),
            notes=found.notes,
            expected_shapes=compute_decoder_shapes(
                decoder, found.config.dim, infer_out_dim(tensors, "decoder_pred.weight", found)
            ),
        )


class STMAEClassifierLayout:
    key = "stmae"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        slowfast = "head.projection.weight" in tensors
        if (
            not is_video_encoder(tensors)
            or "head" not in list_top_modules(tensors)
            or not (slowfast or is_stmae_encoder(tensors))
        ):
            return None
        classes = count_rows(tensors, "head.projection.weight" if slowfast else "head.weight")
        found = infer_stmae_encoder(tensors, hint)
        separate = "blocks.0.attn.q.weight" in tensors
        whose = "PySlowFast (norm and head.projection" if slowfast else "mae_st (norm and head"
        return LayoutMatch(
            f"a classifier of ST-MAE in the words of {whose}, {'separate' if separate else 'fused'} queries, keys and "
            f"values, {classes} classes)",
            build_classifier_metadata(
                "slowfast" if slowfast else "stmae",
                found,
                classes,
                "mean" if found.config.class_token else "mean_after_first",
                "pretrained",
            ),
            build_stmae_classifier_rules(found.config, separate_qkv=separate, slowfast=slowfast),
            notes=found.notes,
        )


class STMAEEncoderLayout:
    key = "stmae"

    def match(
        self, tensors: Mapping[str, Tensor], foreign_metadata: Mapping[str, Any], hint: ViTConfig | None
    ) -> LayoutMatch | None:
        if (
            not is_video_encoder(tensors)
            or not is_stmae_encoder(tensors)
            or list_top_modules(tensors) & {"head", "decoder_embed", "pred_head"}
        ):
            return None
        found = infer_stmae_encoder(tensors, hint)
        return LayoutMatch(
            "an encoder of ST-MAE alone (a class token or separate layers of clips, and neither decoder nor head)",
            build_encoder_metadata(self.key, found),
            build_vit_rules(found.config, "", "encoder.", separate_qkv="blocks.0.attn.q.weight" in tensors),
            optional_prefixes={"encoder.norm.": "an encoder may be kept without its last norm"},
            notes=found.notes,
        )


def is_video_encoder(tensors: Mapping[str, Tensor]) -> bool:
    return PATCH_EMBED_WEIGHT in tensors and tensors[PATCH_EMBED_WEIGHT].ndim == 5


def is_stmae_encoder(tensors: Mapping[str, Tensor]) -> bool:
    """Whether an encoder of clips is ST-MAE's: separate layers, or codes of places and slots."""
    return bool(tensors.keys() & {"blocks.0.attn.q.weight", "pos_embed_spatial", "pos_embed_temporal"})


def infer_stmae_encoder(tensors: Mapping[str, Tensor], hint: ViTConfig | None) -> InferredEncoder:
    return infer_encoder(
        tensors, hint, default_positions="sinusoid", requires_table=True, mean=_GREY_MEAN_STD[0], std=_GREY_MEAN_STD[1]
    )


def infer_stmae_decoder(
    tensors: Mapping[str, Tensor],
    prefix: str,
    inferred: InferredEncoder,
    *,
    heads: int,
    class_token: Literal["none", "encoder", "own"],
) -> DecoderConfig:
    dim = count_rows(tensors, "decoder_embed.weight")
    codes = infer_positions(
        tensors,
        "decoder_pos_embed",
        dim,
        inferred.config.tubelet[0],
        expected_kind=None,
        hint_grid=inferred.config.learned_grid,
        class_token=class_token != "none",
        default_positions="sinusoid",
        requires_table=True,
    )
    return infer_decoder(tensors, prefix, dim, heads=heads, positions=codes, class_token=class_token, project_bias=True)


def _infer_decoder_class_token(
    tensors: Mapping[str, Tensor], inferred: InferredEncoder
) -> Literal["none", "encoder", "own"]:
    """What stands before the decoder's tokens: its own class token; or the encoder's, if its table has a row for it."""
    if "decoder_cls_token" in tensors:
        return "own"
    table, grid = tensors.get("decoder_pos_embed"), inferred.config.learned_grid
    longer = table is not None and grid is not None and table.shape[-2:-1] == (grid[0] * grid[1] * grid[2] + 1,)
    return "encoder" if longer or "decoder_pos_embed_class" in tensors else "none"


def infer_out_dim(tensors: Mapping[str, Tensor], name: str, inferred: InferredEncoder) -> int:
    """How many values are guessed for a token: the pixels of some frames of its tubelet.

    Raises:
        InputError: they are no whole frames.
    """
    size, frame = count_rows(tensors, name), 3 * inferred.config.tubelet[1] * inferred.config.tubelet[2]
    if size % frame or size > inferred.config.pixels_per_token:
        raise InputError(f"{name!r} has {size} rows, and a frame of a token has {frame} values")
    return size


def build_stmae_rules(
    config: ViTConfig, decoder: DecoderConfig, *, separate_qkv: bool = True
) -> tuple[RenameRule, ...]:
    """A pre-training of ST-MAE in the layout of mae_st."""
    return (
        *_build_mae_decoder_rules(decoder, separate_qkv=separate_qkv),
        *build_vit_rules(config, "", "encoder.", separate_qkv=separate_qkv),
    )


def build_stmae_classifier_rules(
    config: ViTConfig, *, separate_qkv: bool = True, slowfast: bool = False
) -> tuple[RenameRule, ...]:
    """A fine-tuned model of ST-MAE, whose norm after the mean is the pre-trained encoder's.

    Args:
        slowfast: PySlowFast's word for the head is written; read are both.
    """
    of_slowfast = (RenameRule("head.projection.", "head."),)
    of_mae_st = (RenameRule("head.weight", "head.weight"), RenameRule("head.bias", "head.bias"))
    encoder = build_vit_rules(config, "", "encoder.", separate_qkv=separate_qkv)
    return (
        RenameRule("norm.", "norm."),
        *(of_slowfast + of_mae_st if slowfast else of_mae_st + of_slowfast),
        *(name for name in encoder if name.foreign_prefix != "norm."),
    )
