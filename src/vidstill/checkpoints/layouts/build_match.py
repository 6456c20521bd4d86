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
_OPTIONAL_NORM = {"encoder.norm.": "an encoder may be saved without its final norm"}


def build_pretraining_match(
    description: str,
    inferred: InferredEncoder,
    rules: Sequence[RenameRule],
    expected_shapes: Mapping[str, tuple[int, ...]],
    *,
    extra_notes: Sequence[str] = (),
    ignored_prefixes: Mapping[str, str] = {},
    optional_prefixes: Mapping[str, str] = {},
    **metadata: Any,
) -> LayoutMatch:
    """A pre-training.

    Args:
        description: For people.
        inferred: The encoder.
        rules: Turn the foreign names into ours.
        expected_shapes: Of what it must hold beside the encoder.
        extra_notes: Notes beside the encoder's.
        ignored_prefixes: Foreign names that are not needed, and why.
        optional_prefixes: Our names that it may lack, and why.
        metadata: What it says beside its kind and encoder, `decoder` for example.
    """
    return LayoutMatch(
        description,
        _build_metadata("pretraining", inferred) | metadata,
        rules,
        ignored_prefixes,
        optional_prefixes,
        (*inferred.notes, *extra_notes),
        expected_shapes,
    )


def build_encoder_match(
    description: str,
    inferred: InferredEncoder,
    rules: Sequence[RenameRule],
    ignored_prefixes: Mapping[str, str] = {},
    *,
    kind: Literal["encoder", "probe"] = "encoder",
    expected_shapes: Mapping[str, tuple[int, ...]] = {},
) -> LayoutMatch:
    """An encoder, whose final norm may be missing unless it is a detector's or a probe's.

    Args:
        description: For people.
        inferred: The encoder.
        rules: Turn the foreign names into ours.
        ignored_prefixes: Foreign names that are not needed, and why.
        kind: "probe": with a batch norm and a linear head.
        expected_shapes: Of what a probe must hold beside the encoder.
    """
    optional = {} if kind == "probe" else _OPTIONAL_NORM
    metadata = _build_metadata(kind, inferred)
    return LayoutMatch(description, metadata, rules, ignored_prefixes, optional, inferred.notes, expected_shapes)


def build_classifier_match(
    description: str,
    inferred: InferredEncoder,
    rules: Sequence[RenameRule],
    num_classes: int,
    pooling: Literal["mean", "first", "mean_after_first"],
    *,
    norm: Literal["fresh", "pretrained"] = "fresh",
    ignored_prefixes: Mapping[str, str] = {},
) -> LayoutMatch:
    """A fine-tuned model, whose metadata holds a ClassifierConfig as a dict.

    Args:
        description: For people.
        inferred: The encoder.
        rules: Turn the foreign names into ours.
        num_classes: The outputs of its head.
        pooling: How it makes one vector of the tokens.
        norm: Where the norm before its head started from.
        ignored_prefixes: Foreign names that are not needed, and why.
    """
    encoder = to_dict(inferred.config)
    classifier = {"encoder": encoder, "num_classes": num_classes, "pooling": pooling, "norm": norm}
    classifier["norm_eps"] = inferred.config.norm_eps
    metadata = _build_metadata("classifier", inferred) | {"classifier": classifier}
    return LayoutMatch(description, metadata, rules, ignored_prefixes, notes=inferred.notes)


def _build_metadata(kind: str, inferred: InferredEncoder) -> dict[str, Any]:
    metadata = {"kind": kind, "encoder": to_dict(replace(inferred.config, drop_path=0.0))}
    return metadata | ({"grid": list(inferred.stored_grid)} if inferred.stored_grid else {})


def compute_encoder_shapes(config: ViTConfig, *, final_norm: bool = True) -> ShapeDict:
    with torch.device("meta"):
        return get_module_shapes(config.build(final_norm=final_norm), "encoder.")


def compute_decoder_shapes(
    config: DecoderConfig, encoder_dim: int, out_dim: int, prefix: str = "decoder."
) -> ShapeDict:
    """The names and shapes of a decoder.

    Args:
        config: The decoder.
        encoder_dim: The width of the tokens that enter it.
        out_dim: The number of values that it predicts for a token.
        prefix: Of its names.
    """
    with torch.device("meta"):
        return get_module_shapes(Decoder(config, encoder_dim, out_dim), prefix)


def compute_trunk_shapes(config: DecoderConfig, prefix: str) -> ShapeDict:
    with torch.device("meta"):
        return get_module_shapes(DecoderTrunk(config), prefix)


def get_module_shapes(module: nn.Module, prefix: str) -> ShapeDict:
    return {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def get_linear_shapes(name: str, weight: Tensor) -> ShapeDict:
    """The names and shapes of a linear layer with this weight."""
    return {f"{name}.weight": tuple(weight.shape), f"{name}.bias": (len(weight),)}
