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

from vidstill.models.external.base import Foreign, ForeignConfig, Input, as_images
from vidstill.models.position_embeddings import position_table
from vidstill.models.vit import IMAGENET_MEAN, IMAGENET_STD
from vidstill.utils.types import InputError, Tubelet

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_NOT_RUN = {"predictor", "layernorm", "post_layernorm", "norm", "head"}  # parts beside or behind the last block
_PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
_SIDE = 4096  # tokens; a number that no row or column of V-JEPA 2's reaches


class _Dino(Foreign):
    """DINOv2, with registers or without: positions are resized as the library does."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library.encoder.layer  # type: ignore[union-attr, return-value]  # torch forgets what a module holds

    def enter(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        return self.library.embeddings(as_images(pixels))  # type: ignore[operator]


class _Dino3(Foreign):
    """DINOv3: positions turn queries and keys, in every block."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library.model.layer  # type: ignore[union-attr, return-value]

    def enter(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        return self.library.embeddings(as_images(pixels))  # type: ignore[operator]

    def block(
        self,
        block: Callable[..., Any],
        tokens: Float[Tensor, "b n d"],
        pixels: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None,
    ) -> Float[Tensor, "b n d"]:
        turned = self.library.rope_embeddings(as_images(pixels))  # type: ignore[operator]
        if visible is not None:  # (b, heads, v, d_head)
            turned = tuple(part[visible][:, None] for part in turned)
        return block(tokens, position_embeddings=turned)


class _Clip(Foreign):
    """The vision tower of CLIP, and SigLIP's, which has no class token and no norm before its blocks."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library.encoder.layers  # type: ignore[union-attr, return-value]

    def enter(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        tokens = self.library.embeddings(as_images(pixels), interpolate_pos_encoding=True)  # type: ignore[operator]
        norm = getattr(self.library, "pre_layrnorm", None)
        return tokens if norm is None else norm(tokens)

    def block(
        self,
        block: Callable[..., Any],
        tokens: Float[Tensor, "b n d"],
        pixels: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None,
    ) -> Float[Tensor, "b n d"]:
        return block(tokens, None)  # no attention mask


class _VideoMAE(Foreign):
    """VideoMAE: its flat table of sines and cosines is that of the clip's own grid, so that any clip fits."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library.encoder.layer  # type: ignore[union-attr, return-value]

    def enter(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        tokens = self.library.embeddings.patch_embeddings.projection(pixels)  # type: ignore[union-attr, operator]
        table = position_table("sinusoid", self.grid(pixels), self.config.dim, pixels.device)
        return tokens.flatten(2).transpose(1, 2) + table.to(tokens.dtype)


class _VJepa2(Foreign):
    """V-JEPA 2's encoder: positions turn queries and keys, and go on beyond those of its training.

    The library numbers places row by row, of a square as large as the model's own: here of one that all sizes go into.
    """

    def __init__(self, config: ForeignConfig, library: nn.Module, about: Mapping[str, Any]):
        super().__init__(config, library, about)
        for block in self.blocks:
            block.attention.grid_size = _SIDE  # type: ignore[attr-defined]

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library.layer  # type: ignore[return-value]

    def enter(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        return self.library.embeddings.patch_embeddings(pixels)  # type: ignore[union-attr, operator]

    def block(
        self,
        block: Callable[..., Any],
        tokens: Float[Tensor, "b n d"],
        pixels: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None,
    ) -> Float[Tensor, "b n d"]:
        grid = self.grid(pixels)
        sides = [torch.arange(side, device=pixels.device) for side in (grid.t, grid.h, grid.w)]
        frame, row, column = torch.meshgrid(*sides, indexing="ij")
        numbers = ((frame * _SIDE + row) * _SIDE + column).flatten().expand(len(tokens), -1)
        if visible is not None:
            numbers = torch.take_along_dim(numbers, visible, dim=1)
        return block(tokens, numbers)[0]


@dataclass(frozen=True)
class _Family:
    """Models of one kind: the library's class, how it is run, and its colours where no processor states others."""

    model: str
    adapter: type[Foreign]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


_CLIP_TOWER = _Family("CLIPVisionModel", _Clip, _CLIP_MEAN, _CLIP_STD)
_SIGLIP_TOWER = _Family("SiglipVisionModel", _Clip, _HALF, _HALF)
_FAMILIES = {  # by what a config.json says under model_type
    "videomae": _Family("VideoMAEModel", _VideoMAE),
    "vjepa2": _Family("VJEPA2Model", _VJepa2),
    "dinov2": _Family("Dinov2Model", _Dino),
    "dinov2_with_registers": _Family("Dinov2WithRegistersModel", _Dino),
    "dinov3_vit": _Family("DINOv3ViTModel", _Dino3),
    "clip": _CLIP_TOWER,
    "clip_vision_model": _CLIP_TOWER,
    "siglip": _SIGLIP_TOWER,
    "siglip_vision_model": _SIGLIP_TOWER,
}


def read(name: str, *, source: str, input: Input) -> Foreign:
    """A folder's model, or one of the Hugging Face Hub, with its weights.

    Raises:
        InputError: transformers is missing or cannot read it, it is of another kind, or tensors are missing.
    """
    theirs = _config(name, source)
    family, mean, std = _FAMILIES[theirs.model_type], *_colours(name, _FAMILIES[theirs.model_type])
    with _reading(name, source) as library:
        model, loaded = getattr(library, family.model).from_pretrained(
            name, config=theirs, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    lost = sorted(n for n in loaded["missing_keys"] if n.split(".")[0] not in _NOT_RUN and "mask_token" not in n)
    if lost:
        raise InputError(
            f"{source} lacks {len(lost)} tensors of its model, first {lost[0]!r}: fetch it again, or whole"
        )
    about = {"layout": f"transformers {theirs.model_type}", "licence": _licence(name)}
    return family.adapter(_described(theirs, source, mean, std, input), _run_part(model), about)


def without_weights(name: str, config: ForeignConfig) -> Foreign:
    theirs = _config(name, config.source)
    family = _FAMILIES[theirs.model_type]
    with _reading(name, config.source) as library, torch.device("meta"):
        model = getattr(library, family.model)(theirs)
        return family.adapter(config, _run_part(model.eval()), {})


def _config(name: str, source: str) -> Any:
    """What config.json says of the model; of CLIP's and SigLIP's, of the part that looks at images."""
    with _reading(name, source) as library:
        theirs = library.AutoConfig.from_pretrained(name, trust_remote_code=False)
    if theirs.model_type not in _FAMILIES:
        raise InputError(
            f"{source} is of the kind {theirs.model_type!r}; teachers of transformers are {', '.join(_FAMILIES)}"
        )
    return getattr(theirs, "vision_config", theirs)


def _described(
    theirs: Any, source: str, mean: tuple[float, ...], std: tuple[float, ...], input: Input
) -> ForeignConfig:
    size = theirs.crop_size if theirs.model_type == "vjepa2" else theirs.image_size
    tubelet: Tubelet = (getattr(theirs, "tubelet_size", 1), *_pair(theirs.patch_size))
    return ForeignConfig(
        source=source,
        dim=theirs.hidden_size,
        depth=theirs.num_hidden_layers,
        heads=theirs.num_attention_heads,
        tubelet=tubelet,
        size=_pair(size),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        input=input,
    )


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _run_part(model: nn.Module) -> nn.Module:
    """Without V-JEPA 2's predictor."""
    return model.encoder if type(model).__name__ == "VJEPA2Model" else model  # type: ignore[return-value]


def _colours(name: str, family: _Family) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation of the model's own processor; the family's where it comes without one."""
    for file in _PROCESSORS:
        text = _beside(name, file)
        said = json.loads(text) if text else {}
        for processor in (said, said.get("image_processor") or {}, said.get("video_processor") or {}):
            if processor.get("do_normalize") is False:
                return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
            if processor.get("image_mean") and processor.get("image_std"):
                return tuple(processor["image_mean"]), tuple(processor["image_std"])
    return family.mean, family.std


def _licence(name: str) -> str | None:
    """What the model's card says; None where there is none."""
    card = (_beside(name, "README.md") or "").split("---")
    words = dict(re.findall(r"^(license|license_name): *(\S+) *$", card[1] if len(card) > 2 else "", re.MULTILINE))
    stated = words.get("license")
    return words.get("license_name", stated) if stated == "other" else stated


def _beside(name: str, file: str) -> str | None:
    """A file that comes with the model, or None."""
    if Path(name).is_dir():
        path = Path(name) / file
        return path.read_text() if path.exists() else None
    from transformers.utils import cached_file

    found = cached_file(
        name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    return Path(found).read_text() if found else None


@contextmanager
def _reading(name: str, source: str) -> Iterator[Any]:
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
