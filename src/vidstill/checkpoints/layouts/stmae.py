"""ST-MAE's files in the words of mae_st: pre-trainings, encoders alone and classifiers."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from vidstill.checkpoints.layouts.helpers import classifier, decoder_shapes, encoder_alone, pretraining, rows, words
from vidstill.checkpoints.layouts.infer_config import KERNEL, Found, codes_of, decoder_of, encoder_of
from vidstill.checkpoints.layouts.layout import Reading
from vidstill.checkpoints.layouts.rename import Name, _mae_decoder_names, vit_names
from vidstill.models.decoder import DecoderConfig
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_plain
from vidstill.utils.types import InputError

_GREY = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
_HEADS = 16  # of mae_st's decoder


class Pretraining:
    key = "stmae"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        if not of_clips(tensors) or not words(tensors) & {"decoder_embed", "decoder_blocks"}:
            return None
        found = st_encoder(tensors, hint)
        decoder = st_decoder(
            tensors, "decoder_blocks.", found, heads=_HEADS, class_token=_decoder_class(tensors, found)
        )
        separate = "blocks.0.attn.q.weight" in tensors
        return Reading(
            f"a pre-training of ST-MAE in the words of mae_st (a kernel of clips, decoder_embed and decoder_blocks, "
            f"{'separate' if separate else 'fused'} queries, keys and values)",
            pretraining(self.key, found, decoder=to_plain(decoder)),
            stmae_names(found.config, decoder, separate_qkv=separate),
            notes=found.notes,
            wanted=decoder_shapes(decoder, found.config.dim, out_dim(tensors, "decoder_pred.weight", found)),
        )


class Classifier:
    key = "stmae"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        slowfast = "head.projection.weight" in tensors
        if not of_clips(tensors) or "head" not in words(tensors) or not (slowfast or is_stmae(tensors)):
            return None
        classes = rows(tensors, "head.projection.weight" if slowfast else "head.weight")
        found = st_encoder(tensors, hint)
        separate = "blocks.0.attn.q.weight" in tensors
        whose = "PySlowFast (norm and head.projection" if slowfast else "mae_st (norm and head"
        return Reading(
            f"a classifier of ST-MAE in the words of {whose}, {'separate' if separate else 'fused'} queries, keys and "
            f"values, {classes} classes)",
            classifier(
                "slowfast" if slowfast else "stmae",
                found,
                classes,
                "mean" if found.config.class_token else "mean_after_first",
                "pretrained",
            ),
            stmae_classifier_names(found.config, separate_qkv=separate, slowfast=slowfast),
            notes=found.notes,
        )


class Encoder:
    key = "stmae"

    def read(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any], hint: ViTConfig | None) -> Reading | None:
        if not of_clips(tensors) or not is_stmae(tensors) or words(tensors) & {"head", "decoder_embed", "pred_head"}:
            return None
        found = st_encoder(tensors, hint)
        return Reading(
            "an encoder of ST-MAE alone (a class token or separate layers of clips, and neither decoder nor head)",
            encoder_alone(self.key, found),
            vit_names(found.config, "", "encoder.", separate_qkv="blocks.0.attn.q.weight" in tensors),
            may_lack={"encoder.norm.": "an encoder may be kept without its last norm"},
            notes=found.notes,
        )


def of_clips(tensors: Mapping[str, Tensor]) -> bool:
    return KERNEL in tensors and tensors[KERNEL].ndim == 5


def is_stmae(tensors: Mapping[str, Tensor]) -> bool:
    """Whether an encoder of clips is ST-MAE's: separate layers, or codes of places and slots."""
    return bool(tensors.keys() & {"blocks.0.attn.q.weight", "pos_embed_spatial", "pos_embed_temporal"})


def st_encoder(tensors: Mapping[str, Tensor], hint: ViTConfig | None) -> Found:
    return encoder_of(tensors, hint, computed="sinusoid", stored=True, mean=_GREY[0], std=_GREY[1])


def st_decoder(
    tensors: Mapping[str, Tensor],
    prefix: str,
    found: Found,
    *,
    heads: int,
    class_token: Literal["none", "encoder", "own"],
) -> DecoderConfig:
    dim = rows(tensors, "decoder_embed.weight")
    codes = codes_of(
        tensors,
        "decoder_pos_embed",
        dim,
        found.config.tubelet[0],
        asked=None,
        grid=found.config.learned_grid,
        class_token=class_token != "none",
        computed="sinusoid",
        stored=True,
    )
    return decoder_of(tensors, prefix, dim, heads=heads, codes=codes, class_token=class_token, project_bias=True)


def _decoder_class(tensors: Mapping[str, Tensor], found: Found) -> Literal["none", "encoder", "own"]:
    """What stands before the decoder's tokens: its own class token; or the encoder's, if its table has a row for it."""
    if "decoder_cls_token" in tensors:
        return "own"
    table, grid = tensors.get("decoder_pos_embed"), found.config.learned_grid
    longer = table is not None and grid is not None and table.shape[-2:-1] == (grid[0] * grid[1] * grid[2] + 1,)
    return "encoder" if longer or "decoder_pos_embed_class" in tensors else "none"


def out_dim(tensors: Mapping[str, Tensor], name: str, found: Found) -> int:
    """How many values are guessed for a token: the pixels of some frames of its tubelet.

    Raises:
        InputError: they are no whole frames.
    """
    size, frame = rows(tensors, name), 3 * found.config.tubelet[1] * found.config.tubelet[2]
    if size % frame or size > found.config.pixels_per_token:
        raise InputError(f"{name!r} has {size} rows, and a frame of a token has {frame} values")
    return size


def stmae_names(config: ViTConfig, decoder: DecoderConfig, *, separate_qkv: bool = True) -> tuple[Name, ...]:
    """A pre-training of ST-MAE in the layout of mae_st."""
    return (
        *_mae_decoder_names(decoder, separate_qkv=separate_qkv),
        *vit_names(config, "", "encoder.", separate_qkv=separate_qkv),
    )


def stmae_classifier_names(config: ViTConfig, *, separate_qkv: bool = True, slowfast: bool = False) -> tuple[Name, ...]:
    """A fine-tuned model of ST-MAE, whose norm after the mean is the pre-trained encoder's.

    Args:
        slowfast: PySlowFast's word for the head is written; read are both.
    """
    of_slowfast = (Name("head.projection.", "head."),)
    of_mae_st = (Name("head.weight", "head.weight"), Name("head.bias", "head.bias"))
    encoder = vit_names(config, "", "encoder.", separate_qkv=separate_qkv)
    return (
        Name("norm.", "norm."),
        *(of_slowfast + of_mae_st if slowfast else of_mae_st + of_slowfast),
        *(name for name in encoder if name.theirs != "norm."),
    )
