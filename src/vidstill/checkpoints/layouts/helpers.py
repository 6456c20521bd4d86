"""What readings of foreign files are put together from: our models' names and shapes, what a file says of itself."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vidstill.checkpoints.layouts.infer_config import Found
from vidstill.models.decoder import Decoder, DecoderConfig, Infill
from vidstill.models.vit import ViTConfig
from vidstill.utils.config_io import to_plain
from vidstill.utils.types import InputError

Shapes = dict[str, tuple[int, ...]]
COMPUTED = "a table that is computed here"


def words(tensors: Iterable[str]) -> set[str]:
    """The first words of names."""
    return {name.partition(".")[0] for name in tensors}


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def rows(tensors: Mapping[str, Tensor], name: str) -> int:
    """How many outputs a layer has.

    Raises:
        InputError: there is none of this name.
    """
    if name not in tensors or not tensors[name].ndim:
        raise InputError(f"it has no {name!r}, which every file of its layout has: it is incomplete")
    return len(tensors[name])


def numbers(tensors: Iterable[str], prefix: str) -> list[int]:
    """The numbers that come after a prefix, ascending."""
    found = (re.match(rf"{re.escape(prefix)}(\d{{1,4}})\.", name) for name in tensors)
    return sorted({int(match[1]) for match in found if match})


def shapes_of(module: nn.Module, prefix: str) -> Shapes:
    return {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def encoder_shapes(config: ViTConfig, *, final_norm: bool = True) -> Shapes:
    """The encoder's, by a model without memory."""
    with torch.device("meta"):
        return shapes_of(config.build(final_norm=final_norm), "encoder.")


def decoder_shapes(config: DecoderConfig, encoder_dim: int, out_dim: int, prefix: str = "decoder.") -> Shapes:
    with torch.device("meta"):
        return shapes_of(Decoder(config, encoder_dim, out_dim), prefix)


def infill_shapes(config: DecoderConfig, prefix: str) -> Shapes:
    with torch.device("meta"):
        return shapes_of(Infill(config), prefix)


def linear_shapes(name: str, weight: Tensor) -> Shapes:
    """A linear layer's, as its own weight has it."""
    return {f"{name}.weight": tuple(weight.shape), f"{name}.bias": (len(weight),)}


def of_64(dim: int) -> int:
    """Heads of 64 channels, where the width divides into them."""
    return dim // 64 if dim and dim % 64 == 0 else 1


def pretraining(key: str, found: Found, **more: Any) -> dict[str, Any]:
    """What a pre-training says of itself."""
    return _about("pretraining", key, found) | more


def encoder_alone(key: str, found: Found) -> dict[str, Any]:
    return _about("encoder", key, found)


def classifier(
    key: str,
    found: Found,
    classes: int,
    pooling: Literal["mean", "first", "mean_after_first"],
    norm: Literal["fresh", "pretrained"] = "fresh",
) -> dict[str, Any]:
    """What a fine-tuned model says of itself; its configuration is downstream's ClassifierConfig."""
    plain = {"encoder": to_plain(found.config), "classes": classes, "pooling": pooling, "norm": norm}
    return _about("classifier", key, found) | {"classifier": plain | {"norm_eps": found.config.norm_eps}}


def _about(kind: str, key: str, found: Found) -> dict[str, Any]:
    about = {"kind": kind, "encoder": to_plain(replace(found.config, drop_path=0.0)), "layout": key}
    return about | ({"grid": list(found.grid)} if found.grid else {})
