"""Vision transformers of `timm` as teachers: by name, with timm's published weights or those of a file."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.models.external.base import (
    ExternalEncoder,
    ExternalEncoderConfig,
    InputResolution,
    drop_frame_axis,
    import_library,
)
from vidstill.utils.types import InputError

_REQUIRED_PREFIXES = ("patch_embed.", "cls_token", "reg_token", "pos_embed", "norm_pre.", "blocks.")  # all but the end


@dataclass(frozen=True, kw_only=True)
class TimmEncoderConfig(ExternalEncoderConfig):
    """A teacher of timm."""

    def build(self) -> ExternalEncoder:
        name = self.source.partition(":")[2].partition("@")[0]
        with torch.device("meta"):
            return _TimmEncoder(self, _create_model(name, self.source, pretrained=False), {})


class _TimmEncoder(ExternalEncoder):
    """A plain ViT of timm; positions are resized as timm does for images of any size."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library_model.blocks  # type: ignore[return-value]  # torch forgets what a module holds

    def embed(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        tokens = self.library_model.patch_embed(drop_frame_axis(pixels))  # type: ignore[operator]
        return self.library_model.norm_pre(self.library_model._pos_embed(tokens))  # type: ignore[operator]


def load_timm_encoder(
    name: str, tensors: Mapping[str, Tensor] | None, *, source: str, input_resolution: InputResolution
) -> ExternalEncoder:
    """Load a model of timm.

    Args:
        name: timm's.
        tensors: Content of a weights file; None: timm's published weights.
        source: The whole source, for error messages.
        input_resolution: Frame size that the teacher sees.

    Raises:
        InputError: timm is missing or cannot fetch the weights, the model is no plain ViT, or tensors are missing.
    """
    model = _create_model(name, source, pretrained=tensors is None)
    if tensors is not None:
        _load_tensors(model, tensors, name, source)
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
    return _TimmEncoder(config, model, {"layout": f"timm {name}", "licence": licence})


def _create_model(name: str, source: str, *, pretrained: bool) -> Any:
    """Create timm's model without its head, for images of any size."""
    with _import_timm(name, source) as library, torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            kind = library.create_model(name)
        if not isinstance(kind, library.models.VisionTransformer):
            raise InputError(f"{source} is a {type(kind).__name__}; teachers of timm are its plain VisionTransformers")
        return library.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True).eval()


def _load_tensors(model: Any, tensors: Mapping[str, Tensor], name: str, source: str) -> None:
    """Load a file's tensors, as timm translates them; every module that is run must be complete."""
    with _import_timm(name, source) as library:
        translated = library.models.vision_transformer.checkpoint_filter_fn(dict(tensors), model)
        required = {n: t for n, t in model.state_dict().items() if n.startswith(_REQUIRED_PREFIXES)}
        missing = sorted(n for n, t in required.items() if n not in translated or translated[n].shape != t.shape)
        if missing:
            raise InputError(
                f"{source}: {len(missing)} tensors of {name} are not in the file or of another shape, first "
                f"{missing[0]!r}; take the name that the file was made with"
            )
        model.load_state_dict({n: translated[n] for n in required}, strict=False)


def _import_timm(name: str, source: str) -> AbstractContextManager[Any]:
    return import_library(
        "timm",
        source,
        f"timm cannot load {name} with weights ({{reason}}); take a model of timm.list_pretrained() that can be "
        "downloaded from here, or a file of its weights: timm:NAME@FILE",
    )
