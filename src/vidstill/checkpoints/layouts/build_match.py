"""Build a LayoutMatch: the metadata of a native file, and the names and shapes that our models need."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vidstill.checkpoints.layouts.infer_encoder import InferredEncoder
from vidstill.checkpoints.layouts.layout import LayoutMatch, ShapeDict
from vidstill.checkpoints.layouts.rename import RenameRule
from vidstill.models.decoder import Decoder, DecoderConfig, DecoderTrunk
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict

FIXED_TABLE_REASON = "a fixed position table, computed here"


def build_match(
    kind: Literal["pretraining", "encoder", "classifier", "probe"],
    description: str,
    inferred: InferredEncoder,
    rules: Sequence[RenameRule],
    *,
    extra_notes: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    **fields: Any,
) -> LayoutMatch:
    """Build a match whose metadata and notes start with the encoder's.

    Args:
        kind: An encoder may lack its final norm.
        description: For people.
        inferred: The encoder.
        rules: Turn the foreign names into ours.
        extra_notes: Notes beside the encoder's.
        metadata: Metadata beside the kind and the encoder.
        fields: Further fields of LayoutMatch.
    """
    native = {"kind": kind, "encoder": to_dict(replace(inferred.config, drop_path=0.0))}
    native |= {"grid": list(inferred.stored_grid)} if inferred.stored_grid else {}
    if kind == "encoder":
        fields["optional_prefixes"] = {"encoder.norm.": "an encoder may be saved without its final norm"}
    return LayoutMatch(
        description, {**native, **(metadata or {})}, rules, notes=(*inferred.notes, *extra_notes), **fields
    )


def describe_classifier(
    inferred: InferredEncoder,
    num_classes: int,
    pooling: Literal["mean", "first", "mean_after_first"],
    norm: Literal["fresh", "pretrained"] = "fresh",
) -> dict[str, Any]:
    """The metadata of a classifier: a ClassifierConfig as a dict.

    Args:
        inferred: The encoder.
        num_classes: The outputs of its head.
        pooling: How it makes one vector of the tokens.
        norm: Where the norm before its head started from.
    """
    config = {"encoder": to_dict(inferred.config), "num_classes": num_classes, "pooling": pooling, "norm": norm}
    return {"classifier": config | {"norm_eps": inferred.config.norm_eps}}


def compute_encoder_shapes(config: ViTConfig, *, final_norm: bool = True) -> ShapeDict:
    with torch.device("meta"):
        return _get_shapes(config.build(final_norm=final_norm), "encoder.")


def compute_decoder_shapes(
    config: DecoderConfig, encoder_dim: int, out_dim: int, prefix: str = "decoder."
) -> ShapeDict:
    """The names, with a prefix, and shapes of a decoder of `encoder_dim` channels that predicts `out_dim` values."""
    with torch.device("meta"):
        return _get_shapes(Decoder(config, encoder_dim, out_dim), prefix)


def compute_trunk_shapes(config: DecoderConfig, prefix: str) -> ShapeDict:
    with torch.device("meta"):
        return _get_shapes(DecoderTrunk(config), prefix)


def get_linear_shapes(name: str, weight: Tensor) -> ShapeDict:
    """The names and shapes of a linear layer with this weight."""
    return {f"{name}.weight": tuple(weight.shape), f"{name}.bias": (len(weight),)}


def _get_shapes(module: nn.Module, prefix: str) -> ShapeDict:
    return {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()}
