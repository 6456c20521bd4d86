"""Vision transformers of `timm` as teachers: by name, with timm's published weights or those of a file."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidstill.models.external.base import (
    ExternalEncoder,
    ExternalEncoderConfig,
    InputResolution,
    Pixels,
    Tokens,
    import_library,
)
from vidstill.utils.types import InputError

_REQUIRED_PREFIXES = ("patch_embed.", "cls_token", "reg_token", "pos_embed", "norm_pre.", "blocks.")  # all but the end


@dataclass(frozen=True, kw_only=True)
class TimmEncoderConfig(ExternalEncoderConfig):
    """A teacher of timm."""

    def build(self) -> ExternalEncoder:
        with torch.device("meta"):
            return _TimmEncoder(self, _create_model(self.source, pretrained=False), {})


class _TimmEncoder(ExternalEncoder):
    """A plain ViT of timm; positions are resized as timm does for images of any size."""

    blocks_path = "blocks"

    def embed(self, pixels: Pixels) -> Tokens:
        model = self.library_model
        return model.norm_pre(model._pos_embed(model.patch_embed(pixels.squeeze(2))))


def load_timm_encoder(
    source: str, tensors: Mapping[str, Tensor] | None, *, input_resolution: InputResolution
) -> ExternalEncoder:
    """Load a model of timm.

    Args:
        source: `timm:NAME`, or `timm:NAME@FILE`.
        tensors: Content of a weights file; None: timm's published weights.
        input_resolution: Frame size that the teacher sees.

    Raises:
        InputError: timm is missing or cannot fetch the weights, the model is no plain ViT, or tensors are missing.
    """
    model = _create_model(source, pretrained=tensors is None)
    if tensors is not None:
        _load_tensors(model, tensors, source)
    metadata = model.pretrained_cfg
    config = TimmEncoderConfig(
        source=source,
        dim=model.embed_dim,
        depth=len(model.blocks),
        heads=model.blocks[0].attn.num_heads,
        tubelet=(1, *model.patch_embed.patch_size),
        train_size=tuple(model.patch_embed.img_size),
        mean=tuple(metadata["mean"]),
        std=tuple(metadata["std"]),
        input_resolution=input_resolution,
    )
    licence = metadata.get("license") if tensors is None else None
    return _TimmEncoder(config, model, {"layout": f"timm {_parse_name(source)}", "licence": licence})


def _parse_name(source: str) -> str:
    return source.partition(":")[2].partition("@")[0]


def _create_model(source: str, *, pretrained: bool) -> Any:
    """Create timm's model without its head, for images of any size."""
    with _import_timm(source) as library, torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            model = library.create_model(_parse_name(source))
        if not isinstance(model, library.models.VisionTransformer):
            raise InputError(f"{source} is a {type(model).__name__}; teachers of timm are its plain VisionTransformers")
        options = {"num_classes": 0, "dynamic_img_size": True}
        return library.create_model(_parse_name(source), pretrained=pretrained, **options).eval()


def _load_tensors(model: Any, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load a file's tensors, as timm translates them; every module that is run must be complete."""
    with _import_timm(source) as library:
        translated = library.models.vision_transformer.checkpoint_filter_fn(dict(tensors), model)
        required = {n: t for n, t in model.state_dict().items() if n.startswith(_REQUIRED_PREFIXES)}
        missing = sorted(n for n, t in required.items() if n not in translated or translated[n].shape != t.shape)
        if missing:
            raise InputError(
                f"{source}: {len(missing)} tensors of {_parse_name(source)} are not in the file or of another shape, "
                f"first {missing[0]!r}; take the name that the file was made with"
            )
        model.load_state_dict({n: translated[n] for n in required}, strict=False)


def _import_timm(source: str) -> AbstractContextManager[Any]:
    return import_library(
        "timm",
        source,
        f"timm cannot load {_parse_name(source)} with weights ({{reason}}); take a model of timm.list_pretrained() "
        "that can be downloaded from here, or a file of its weights: timm:NAME@FILE",
    )
