"""Models of `transformers` as teachers: VideoMAE, V-JEPA 2, DINOv2, DINOv3, the vision towers of CLIP and SigLIP."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import nn

from vidstill.models.external.base import (
    ExternalEncoder,
    ExternalEncoderConfig,
    InputResolution,
    Pixels,
    Tokens,
    Visible,
    import_library,
)
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD
from vidstill.utils.types import InputError

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_SIGLIP_MEAN_STD = (0.5, 0.5, 0.5)
_UNUSED_MODULES = {"predictor", "layernorm", "post_layernorm", "norm", "head"}  # not needed for the blocks
_PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
_GRID_SIZE = 4096  # tokens; more than any row or column of V-JEPA 2


class _DINOv2Encoder(ExternalEncoder):
    """DINOv2, with or without registers; positions are resized as the library does."""

    blocks_path = "encoder.layer"

    def embed(self, pixels: Pixels) -> Tokens:
        return self.library_model.embeddings(pixels.squeeze(2))


class _DINOv3Encoder(_DINOv2Encoder):
    """DINOv3; rotary positions in every block."""

    blocks_path = "model.layer"

    def build_block_arguments(self, pixels: Pixels, visible: Visible) -> dict[str, Any]:
        rotary = self.library_model.rope_embeddings(pixels.squeeze(2))
        if visible is not None:
            rotary = tuple(rearrange(part[visible], "b v d -> b 1 v d") for part in rotary)  # for every head
        return {"position_embeddings": rotary}


class _CLIPEncoder(ExternalEncoder):
    """The vision tower of CLIP, or of SigLIP, which has neither class token nor norm before its blocks."""

    blocks_path = "encoder.layers"

    def embed(self, pixels: Pixels) -> Tokens:
        tokens = self.library_model.embeddings(pixels.squeeze(2), interpolate_pos_encoding=True)
        norm = getattr(self.library_model, "pre_layrnorm", None)
        return tokens if norm is None else norm(tokens)

    def build_block_arguments(self, pixels: Pixels, visible: Visible) -> dict[str, Any]:
        return {"attention_mask": None}


class _VideoMAEEncoder(ExternalEncoder):
    """VideoMAE; its sinusoids are computed for the clip's own grid, so that any clip fits."""

    blocks_path = "encoder.layer"

    def embed(self, pixels: Pixels) -> Tokens:
        tokens = self.library_model.embeddings.patch_embeddings.projection(pixels)
        table = build_position_table("sinusoid", self.grid(pixels), self.config.dim, pixels.device)
        return rearrange(tokens, "b d t h w -> b (t h w) d") + table.to(tokens.dtype)


class _VJEPA2Encoder(ExternalEncoder):
    """V-JEPA 2's encoder; rotary positions, which extrapolate beyond those of its training.

    The library numbers tokens row by row, in a square grid of the model's own size: here in one that fits all sizes.
    """

    blocks_path = "layer"

    def __init__(self, config: ExternalEncoderConfig, library_model: nn.Module, metadata: Mapping[str, Any]):
        super().__init__(config, library_model, metadata)
        for block in self.library_model.layer:
            block.attention.grid_size = _GRID_SIZE

    def embed(self, pixels: Pixels) -> Tokens:
        return self.library_model.embeddings.patch_embeddings(pixels)

    def build_block_arguments(self, pixels: Pixels, visible: Visible) -> dict[str, Any]:
        grid = self.grid(pixels)
        sides = [torch.arange(side, device=pixels.device) for side in (grid.t, grid.h, grid.w)]
        frame, row, column = torch.meshgrid(*sides, indexing="ij")
        numbers = ((frame * _GRID_SIZE + row) * _GRID_SIZE + column).flatten().expand(len(pixels), -1)
        return {"position_mask": numbers if visible is None else torch.take_along_dim(numbers, visible, dim=1)}


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


def load_transformers_encoder(source: str, *, input_resolution: InputResolution) -> ExternalEncoder:
    """Load a model with its weights, from a directory or the Hugging Face Hub.

    Args:
        source: `transformers:FOLDER_OR_NAME`.
        input_resolution: Frame size that the teacher sees.

    Raises:
        InputError: transformers is missing or cannot read it, it is of another kind, or tensors are missing.
    """
    name, config = _parse_name(source), _load_library_config(source)
    family = _MODEL_FAMILIES[config.model_type]
    mean, std = _read_mean_std(name, family)
    with _import_transformers(source) as library:
        model, loaded = getattr(library, family.model_class).from_pretrained(
            name, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    missing = [n for n in loaded["missing_keys"] if n.split(".")[0] not in _UNUSED_MODULES and "mask_token" not in n]
    if missing:
        raise InputError(
            f"{source} lacks {len(missing)} tensors of its model, first {min(missing)!r}; download it again"
        )
    encoder_config = TransformersEncoderConfig(
        source=source,
        dim=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        tubelet=(getattr(config, "tubelet_size", 1), *_to_pair(config.patch_size)),
        train_size=_to_pair(config.crop_size if config.model_type == "vjepa2" else config.image_size),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        input_resolution=input_resolution,
    )
    metadata = {"layout": f"transformers {config.model_type}", "licence": _read_licence(name)}
    return family.encoder_class(encoder_config, _select_encoder(model), metadata)


@dataclass(frozen=True, kw_only=True)
class TransformersEncoderConfig(ExternalEncoderConfig):
    """A teacher of transformers."""

    def build(self) -> ExternalEncoder:
        library_config = _load_library_config(self.source)
        family = _MODEL_FAMILIES[library_config.model_type]
        with _import_transformers(self.source) as library, torch.device("meta"):
            model = getattr(library, family.model_class)(library_config)
            return family.encoder_class(self, _select_encoder(model.eval()), {})


def _parse_name(source: str) -> str:
    return source.partition(":")[2]


def _load_library_config(source: str) -> Any:
    """Load config.json; of CLIP and SigLIP, the part for the vision tower."""
    with _import_transformers(source) as library:
        config = library.AutoConfig.from_pretrained(_parse_name(source), trust_remote_code=False)
    if config.model_type not in _MODEL_FAMILIES:
        raise InputError(
            f"{source} is of the kind {config.model_type!r}; teachers of transformers are {', '.join(_MODEL_FAMILIES)}"
        )
    return getattr(config, "vision_config", config)


def _to_pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _select_encoder(model: Any) -> nn.Module:
    """Return the encoder, without V-JEPA 2's predictor."""
    return model.encoder if type(model).__name__ == "VJEPA2Model" else model


def _read_mean_std(name: str, family: _ModelFamily) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and std of the model's processor, or the family's."""
    for path in filter(None, (_find_file(name, filename) for filename in _PROCESSOR_FILES)):
        content = json.loads(path.read_text())
        for processor in (content, content.get("image_processor") or {}, content.get("video_processor") or {}):
            if processor.get("do_normalize") is False:
                return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            if processor.get("image_mean") and processor.get("image_std"):
                return processor["image_mean"], processor["image_std"]
    return family.mean, family.std


def _read_licence(name: str) -> str | None:
    """Return the licence in the model card, or None."""
    from huggingface_hub import metadata_load

    path = _find_file(name, "README.md")
    fields = (metadata_load(path) if path else None) or {}
    licence = fields.get("license")
    return fields.get("license_name", licence) if licence == "other" else licence


def _find_file(name: str, filename: str) -> Path | None:
    """Return the path of a file of the model, or None."""
    if Path(name).is_dir():
        path = Path(name) / filename
        return path if path.exists() else None
    from transformers.utils import cached_file

    cached = cached_file(
        name, filename, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return Path(cached) if cached else None


@contextmanager
def _import_transformers(source: str) -> Iterator[Any]:
    """Import transformers for a `with` block, without its log messages and progress bars."""
    failure = (
        f"transformers cannot read {_parse_name(source)} ({{reason}}); give a directory with config.json and weights, "
        "or a name of the Hugging Face Hub that can be reached from here or is in its cache"
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
