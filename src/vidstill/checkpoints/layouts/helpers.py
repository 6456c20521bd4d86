"""What readings of foreign files are put together from: our models' names and shapes, what a file says of itself."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vidstill.checkpoints.layouts.infer_config import InferredEncoder
from vidstill.models.decoder import Decoder, DecoderConfig, DecoderTrunk
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import InputError

ShapeDict = dict[str, tuple[int, ...]]
FIXED_TABLE_REASON = "a table that is computed here"


def list_top_modules(names: Iterable[str]) -> set[str]:
    """The first words of names."""
    return {name.partition(".")[0] for name in names}


def select_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def count_rows(tensors: Mapping[str, Tensor], name: str) -> int:
    """How many outputs a layer has.

    Raises:
        InputError: there is none of this name.
    """
    if name not in tensors or not tensors[name].ndim:
        raise InputError(f"it has no {name!r}, which every file of its layout has: it is incomplete")
    return len(tensors[name])


def list_indices(names: Iterable[str], prefix: str) -> list[int]:
    """The numbers that come after a prefix, ascending."""
    found = (re.match(rf"{re.escape(prefix)}(\d{{1,4}})\.", name) for name in names)
    return sorted({int(match[1]) for match in found if match})


def get_module_shapes(module: nn.Module, prefix: str) -> ShapeDict:
    return {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def compute_encoder_shapes(config: ViTConfig, *, final_norm: bool = True) -> ShapeDict:
    """The encoder's, by a model without memory."""
    with torch.device("meta"):
        return get_module_shapes(config.build(final_norm=final_norm), "encoder.")


def compute_decoder_shapes(
    config: DecoderConfig, encoder_dim: int, out_dim: int, prefix: str = "decoder."
) -> ShapeDict:
    with torch.device("meta"):
        return get_module_shapes(Decoder(config, encoder_dim, out_dim), prefix)


def compute_infill_shapes(config: DecoderConfig, prefix: str) -> ShapeDict:
    with torch.device("meta"):
        return get_module_shapes(DecoderTrunk(config), prefix)


def compute_linear_shapes(name: str, weight: Tensor) -> ShapeDict:
    """A linear layer's, as its own weight has it."""
    return {f"{name}.weight": tuple(weight.shape), f"{name}.bias": (len(weight),)}


def infer_heads_of_64(dim: int) -> int:
    """Heads of 64 channels, where the width divides into them."""
    return dim // 64 if dim and dim % 64 == 0 else 1


def build_pretraining_metadata(key: str, inferred: InferredEncoder, **extra: Any) -> dict[str, Any]:
    """What a pre-training says of itself."""
    return _build_metadata("pretraining", key, inferred) | extra


def build_encoder_metadata(key: str, inferred: InferredEncoder) -> dict[str, Any]:
    return _build_metadata("encoder", key, inferred)


def build_classifier_metadata(
    key: str,
    inferred: InferredEncoder,
    num_classes: int,
    pooling: Literal["mean", "first", "mean_after_first"],
    norm: Literal["fresh", "pretrained"] = "fresh",
) -> dict[str, Any]:
    """What a fine-tuned model says of itself; its configuration is downstream's ClassifierConfig."""
    plain = {"encoder": to_dict(inferred.config), "num_classes": num_classes, "pooling": pooling, "norm": norm}
    return _build_metadata("classifier", key, inferred) | {"classifier": plain | {"norm_eps": inferred.config.norm_eps}}


def _build_metadata(kind: str, key: str, inferred: InferredEncoder) -> dict[str, Any]:
    about = {"kind": kind, "encoder": to_dict(replace(inferred.config, drop_path=0.0)), "layout": key}
    return about | ({"grid": list(inferred.stored_grid)} if inferred.stored_grid else {})
