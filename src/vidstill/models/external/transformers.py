"""Models of `transformers` as teachers: VideoMAE, V-JEPA 2, DINOv2, DINOv3, the vision towers of CLIP and SigLIP."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.external.base import (
    ExternalEncoder,
    ExternalEncoderConfig,
    InputResolution,
    drop_frame_axis,
    import_library,
)
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD
from vidstill.utils.types import InputError, Tubelet

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_SIGLIP_MEAN_STD = (0.5, 0.5, 0.5)
_UNUSED_MODULES = {"predictor", "layernorm", "post_layernorm", "norm", "head"}  # not needed for the blocks
_PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
_GRID_SIZE = 4096  # tokens; more than any row or column of V-JEPA 2


class _DINOv2Encoder(ExternalEncoder):
    """DINOv2, with or without registers; positions are resized as the library does."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library_model.encoder.layer  # type: ignore[union-attr, return-value]  # torch forgets what a module holds

    def embed(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        return self.library_model.embeddings(drop_frame_axis(pixels))  # type: ignore[operator]


class _DINOv3Encoder(ExternalEncoder):
    """DINOv3; rotary positions in every block."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library_model.model.layer  # type: ignore[union-attr, return-value]

    def embed(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        return self.library_model.embeddings(drop_frame_axis(pixels))  # type: ignore[operator]

    def run_block(
        self,
        block: Callable[..., Any],
        tokens: Float[Tensor, "b n d"],
        pixels: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None,
    ) -> Float[Tensor, "b n d"]:
        rotary = self.library_model.rope_embeddings(drop_frame_axis(pixels))  # type: ignore[operator]
        if visible is not None:  # (b, heads, v, d_head)
            rotary = tuple(part[visible][:, None] for part in rotary)
        return block(tokens, position_embeddings=rotary)


class _CLIPEncoder(ExternalEncoder):
    """The vision tower of CLIP, or of SigLIP, which has neither class token nor norm before its blocks."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library_model.encoder.layers  # type: ignore[union-attr, return-value]

    def embed(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        tokens = self.library_model.embeddings(drop_frame_axis(pixels), interpolate_pos_encoding=True)  # type: ignore[operator]
        norm = getattr(self.library_model, "pre_layrnorm", None)
        return tokens if norm is None else norm(tokens)

    def run_block(
        self,
        block: Callable[..., Any],
        tokens: Float[Tensor, "b n d"],
        pixels: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None,
    ) -> Float[Tensor, "b n d"]:
        return block(tokens, None)  # no attention mask


class _VideoMAEEncoder(ExternalEncoder):
    """VideoMAE; its sinusoids are computed for the clip's own grid, so that any clip fits."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library_model.encoder.layer  # type: ignore[union-attr, return-value]

    def embed(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        tokens = self.library_model.embeddings.patch_embeddings.projection(pixels)  # type: ignore[union-attr, operator]
        table = build_position_table("sinusoid", self.grid(pixels), self.config.dim, pixels.device)
        return tokens.flatten(2).transpose(1, 2) + table.to(tokens.dtype)


class _VJEPA2Encoder(ExternalEncoder):
    """V-JEPA 2's encoder; rotary positions, which extrapolate beyond those of its training.

    The library numbers tokens row by row, in a square grid of the model's own size: here in one that fits all sizes.
    """

    def __init__(self, config: ExternalEncoderConfig, library_model: nn.Module, metadata: Mapping[str, Any]):
        super().__init__(config, library_model, metadata)
        for block in self.blocks:
            block.attention.grid_size = _GRID_SIZE  # type: ignore[attr-defined]

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library_model.layer  # type: ignore[return-value]

    def embed(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        return self.library_model.embeddings.patch_embeddings(pixels)  # type: ignore[union-attr, operator]

    def run_block(
        self,
        block: Callable[..., Any],
        tokens: Float[Tensor, "b n d"],
        pixels: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None,
    ) -> Float[Tensor, "b n d"]:
        grid = self.grid(pixels)
        sides = [torch.arange(side, device=pixels.device) for side in (grid.t, grid.h, grid.w)]
        frame, row, column = torch.meshgrid(*sides, indexing="ij")
        numbers = ((frame * _GRID_SIZE + row) * _GRID_SIZE + column).flatten().expand(len(tokens), -1)
        if visible is not None:
            numbers = torch.take_along_dim(numbers, visible, dim=1)
        return block(tokens, numbers)[0]


@dataclass(frozen=True)
class _ModelFamily:
    """Models of one kind: the library's class, ours, and mean and std where no processor states others."""

    model_class: str
    encoder_class: type[ExternalEncoder]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


_CLIP_FAMILY = _ModelFamily("CLIPVisionModel", _CLIPEncoder, _CLIP_MEAN, _CLIP_STD)
_SIGLIP_FAMILY = _ModelFamily("SiglipVisionModel", _CLIPEncoder, _SIGLIP_MEAN_STD, _SIGLIP_MEAN_STD)
_MODEL_FAMILIES = {  # by model_type in config.json
    "videomae": _ModelFamily("VideoMAEModel", _VideoMAEEncoder),
    "vjepa2": _ModelFamily("VJEPA2Model", _VJEPA2Encoder),
    "dinov2": _ModelFamily("Dinov2Model", _DINOv2Encoder),
    "dinov2_with_registers": _ModelFamily("Dinov2WithRegistersModel", _DINOv2Encoder),
    "dinov3_vit": _ModelFamily("DINOv3ViTModel", _DINOv3Encoder),
    "clip": _CLIP_FAMILY,
    "clip_vision_model": _CLIP_FAMILY,
    "siglip": _SIGLIP_FAMILY,
    "siglip_vision_model": _SIGLIP_FAMILY,
}


def load_transformers_encoder(name: str, *, source: str, input_resolution: InputResolution) -> ExternalEncoder:
    """Load a model with its weights, from a directory or the Hugging Face Hub.

    Args:
        name: Directory or name.
        source: The whole source, for error messages.
        input_resolution: Frame size that the teacher sees.

    Raises:
        InputError: transformers is missing or cannot read it, it is of another kind, or tensors are missing.
    """
    config = _load_library_config(name, source)
    family = _MODEL_FAMILIES[config.model_type]
    mean, std = _read_mean_std(name, family)
    with _import_transformers(name, source) as library:
        model, loaded = getattr(library, family.model_class).from_pretrained(
            name, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    missing = [n for n in loaded["missing_keys"] if n.split(".")[0] not in _UNUSED_MODULES and "mask_token" not in n]
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} tensors of its model, first {min(missing)!r}; download it again"
        )
    metadata = {"layout": f"transformers {config.model_type}", "licence": _read_licence(name)}
    return family.encoder_class(
        _build_encoder_config(config, source, mean, std, input_resolution), _select_encoder(model), metadata
    )


@dataclass(frozen=True, kw_only=True)
class TransformersEncoderConfig(ExternalEncoderConfig):
    """A teacher of transformers."""

    def build(self) -> ExternalEncoder:
        name = self.source.partition(":")[2]
        library_config = _load_library_config(name, self.source)
        family = _MODEL_FAMILIES[library_config.model_type]
        with _import_transformers(name, self.source) as library, torch.device("meta"):
            model = getattr(library, family.model_class)(library_config)
            return family.encoder_class(self, _select_encoder(model.eval()), {})


def _load_library_config(name: str, source: str) -> Any:
    """Load config.json; of CLIP and SigLIP, the part for the vision tower."""
    with _import_transformers(name, source) as library:
        config = library.AutoConfig.from_pretrained(name, trust_remote_code=False)
    if config.model_type not in _MODEL_FAMILIES:
        raise InputError(
            f"{source} is of the kind {config.model_type!r}; teachers of transformers are {', '.join(_MODEL_FAMILIES)}"
        )
    return getattr(config, "vision_config", config)


def _build_encoder_config(
    library_config: Any, source: str, mean: tuple[float, ...], std: tuple[float, ...], input_resolution: InputResolution
) -> ExternalEncoderConfig:
    size = library_config.crop_size if library_config.model_type == "vjepa2" else library_config.image_size
    tubelet: Tubelet = (getattr(library_config, "tubelet_size", 1), *_to_pair(library_config.patch_size))
    return TransformersEncoderConfig(
        source=source,
        dim=library_config.hidden_size,
        depth=library_config.num_hidden_layers,
        heads=library_config.num_attention_heads,
        tubelet=tubelet,
        train_size=_to_pair(size),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        input_resolution=input_resolution,
    )


def _to_pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _select_encoder(model: nn.Module) -> nn.Module:
    """Return the encoder, without V-JEPA 2's predictor."""
    return model.encoder if type(model).__name__ == "VJEPA2Model" else model  # type: ignore[return-value]


def _read_mean_std(name: str, family: _ModelFamily) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of the model's processor, or the family's."""
    for file in _PROCESSOR_FILES:
        text = _read_model_file(name, file)
        content = json.loads(text) if text else {}
        for processor in (content, content.get("image_processor") or {}, content.get("video_processor") or {}):
            if processor.get("do_normalize") is False:
                return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            if processor.get("image_mean") and processor.get("image_std"):
                return tuple(processor["image_mean"]), tuple(processor["image_std"])
    return family.mean, family.std


def _read_licence(name: str) -> str | None:
    """Return the licence in the model card, or None."""
    card = (_read_model_file(name, "README.md") or "").split("---")
    fields = dict(re.findall(r"^(license|license_name): *(\S+) *$", card[1] if len(card) > 2 else "", re.MULTILINE))
    licence = fields.get("license")
    return fields.get("license_name", licence) if licence == "other" else licence


def _read_model_file(name: str, filename: str) -> str | None:
    """Return the text of a file of the model, or None."""
    if Path(name).is_dir():
        path = Path(name) / filename
        return path.read_text() if path.exists() else None
    from transformers.utils import cached_file

    cached = cached_file(
        name, filename, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return Path(cached).read_text() if cached else None


@contextmanager
def _import_transformers(name: str, source: str) -> Iterator[Any]:
    """Import transformers for a `with` block, without its log messages and progress bars."""
    failure = (
        f"transformers cannot read {name} ({{reason}}); give a directory with config.json and weights, or a name of "
        "the "
        "Hugging Face Hub that can be reached from here or is in its cache"
    )
    with import_library("transformers", source, failure) as library:
        logging = library.utils.logging
        verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield library
        finally:
            logging.set_verbosity(verbosity)
            if has_bars:
                logging.enable_progress_bar()
