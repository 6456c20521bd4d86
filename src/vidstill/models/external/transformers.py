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

from vidstill.models.external.base import ExternalEncoder, ExternalEncoderConfig, InputResolution, drop_frame_axis
from vidstill.models.position_embeddings import build_position_table
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD
from vidstill.utils.types import InputError, Tubelet

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_SIGLIP_MEAN_STD = (0.5, 0.5, 0.5)
_UNUSED_MODULES = {"predictor", "layernorm", "post_layernorm", "norm", "head"}  # parts beside or behind the last block
_PROCESSOR_FILES = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
_GRID_SIZE = 4096  # tokens; a number that no row or column of V-JEPA 2's reaches


class _DINOv2Encoder(ExternalEncoder):
    """DINOv2, with registers or without: positions are resized as the library does."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library_model.encoder.layer  # type: ignore[union-attr, return-value]  # torch forgets what a module holds

    def embed(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        return self.library_model.embeddings(drop_frame_axis(pixels))  # type: ignore[operator]


class _DINOv3Encoder(ExternalEncoder):
    """DINOv3: positions turn queries and keys, in every block."""

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
        turned = self.library_model.rope_embeddings(drop_frame_axis(pixels))  # type: ignore[operator]
        if visible is not None:  # (b, heads, v, d_head)
            turned = tuple(part[visible][:, None] for part in turned)
        return block(tokens, position_embeddings=turned)


class _CLIPEncoder(ExternalEncoder):
    """The vision tower of CLIP, and SigLIP's, which has no class token and no norm before its blocks."""

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
    """VideoMAE: its flat table of sines and cosines is that of the clip's own grid, so that any clip fits."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library_model.encoder.layer  # type: ignore[union-attr, return-value]

    def embed(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        tokens = self.library_model.embeddings.patch_embeddings.projection(pixels)  # type: ignore[union-attr, operator]
        table = build_position_table("sinusoid", self.grid(pixels), self.config.dim, pixels.device)
        return tokens.flatten(2).transpose(1, 2) + table.to(tokens.dtype)


class _VJEPA2Encoder(ExternalEncoder):
    """V-JEPA 2's encoder: positions turn queries and keys, and go on beyond those of its training.

    The library numbers places row by row, of a square as large as the model's own: here of one that all sizes go into.
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
    """Models of one kind: the library's class, how it is run, and its colours where no processor states others."""

    model_class: str
    encoder_class: type[ExternalEncoder]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


_CLIP_FAMILY = _ModelFamily("CLIPVisionModel", _CLIPEncoder, _CLIP_MEAN, _CLIP_STD)
_SIGLIP_FAMILY = _ModelFamily("SiglipVisionModel", _CLIPEncoder, _SIGLIP_MEAN_STD, _SIGLIP_MEAN_STD)
_MODEL_FAMILIES = {  # by what a config.json says under model_type
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
    """A folder's model, or one of the Hugging Face Hub, with its weights.

    Raises:
        InputError: transformers is missing or cannot read it, it is of another kind, or tensors are missing.
    """
    theirs = _load_library_config(name, source)
    family, mean, std = _MODEL_FAMILIES[theirs.model_type], *_read_mean_std(name, _MODEL_FAMILIES[theirs.model_type])
    with _import_transformers(name, source) as library:
        model, loaded = getattr(library, family.model_class).from_pretrained(
            name, config=theirs, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    lost = sorted(n for n in loaded["missing_keys"] if n.split(".")[0] not in _UNUSED_MODULES and "mask_token" not in n)
    if lost:
        raise InputError(
            f"{source} lacks {len(lost)} tensors of its model, first {lost[0]!r}: fetch it again, or whole"
        )
    about = {"layout": f"transformers {theirs.model_type}", "licence": _read_licence(name)}
    return family.encoder_class(
        _build_encoder_config(theirs, source, mean, std, input_resolution), _select_encoder(model), about
    )


def build_transformers_encoder(name: str, config: ExternalEncoderConfig) -> ExternalEncoder:
    theirs = _load_library_config(name, config.source)
    family = _MODEL_FAMILIES[theirs.model_type]
    with _import_transformers(name, config.source) as library, torch.device("meta"):
        model = getattr(library, family.model_class)(theirs)
        return family.encoder_class(config, _select_encoder(model.eval()), {})


def _load_library_config(name: str, source: str) -> Any:
    """What config.json says of the model; of CLIP's and SigLIP's, of the part that looks at images."""
    with _import_transformers(name, source) as library:
        theirs = library.AutoConfig.from_pretrained(name, trust_remote_code=False)
    if theirs.model_type not in _MODEL_FAMILIES:
        raise InputError(
            f"{source} is of the kind {theirs.model_type!r}; teachers of transformers are {', '.join(_MODEL_FAMILIES)}"
        )
    return getattr(theirs, "vision_config", theirs)


def _build_encoder_config(
    library_config: Any, source: str, mean: tuple[float, ...], std: tuple[float, ...], input_resolution: InputResolution
) -> ExternalEncoderConfig:
    size = library_config.crop_size if library_config.model_type == "vjepa2" else library_config.image_size
    tubelet: Tubelet = (getattr(library_config, "tubelet_size", 1), *_to_pair(library_config.patch_size))
    return ExternalEncoderConfig(
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
    """Without V-JEPA 2's predictor."""
    return model.encoder if type(model).__name__ == "VJEPA2Model" else model  # type: ignore[return-value]


def _read_mean_std(name: str, family: _ModelFamily) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation of the model's own processor; the family's where it comes without one."""
    for file in _PROCESSOR_FILES:
        text = _read_model_file(name, file)
        said = json.loads(text) if text else {}
        for processor in (said, said.get("image_processor") or {}, said.get("video_processor") or {}):
            if processor.get("do_normalize") is False:
                return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            if processor.get("image_mean") and processor.get("image_std"):
                return tuple(processor["image_mean"]), tuple(processor["image_std"])
    return family.mean, family.std


def _read_licence(name: str) -> str | None:
    """What the model's card says; None where there is none."""
    card = (_read_model_file(name, "README.md") or "").split("---")
    words = dict(re.findall(r"^(license|license_name): *(\S+) *$", card[1] if len(card) > 2 else "", re.MULTILINE))
    stated = words.get("license")
    return words.get("license_name", stated) if stated == "other" else stated


def _read_model_file(name: str, filename: str) -> str | None:
    """A file that comes with the model, or None."""
    if Path(name).is_dir():
        path = Path(name) / filename
        return path.read_text() if path.exists() else None
    from transformers.utils import cached_file

    found = cached_file(
        name, filename, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return Path(found).read_text() if found else None


@contextmanager
def _import_transformers(name: str, source: str) -> Iterator[Any]:
    """The library, quiet; whatever it raises is the user's to mend."""
    try:
        import transformers
    except ImportError:
        raise InputError(f"{source} needs transformers; install it by pip install 'vidstill[teachers]'") from None
    logging = transformers.utils.logging
    said, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    except InputError:
        raise
    except Exception as error:  # transformers raises whatever names, files and networks lead it to
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"transformers cannot read {name} ({reason}); give a folder with config.json and weights, or a name of "
            "the Hugging Face Hub that can be reached from here or is in its cache"
        ) from None
    finally:
        logging.set_verbosity(said)
        if shown:
            logging.enable_progress_bar()
