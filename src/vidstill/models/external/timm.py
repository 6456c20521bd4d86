"""Vision transformers of `timm` as teachers: by name, with the weights that timm publishes or those of a file."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.models.external.base import ExternalEncoder, ExternalEncoderConfig, InputResolution, drop_frame_axis
from vidstill.utils.types import InputError

_REQUIRED_PREFIXES = (
    "patch_embed.",
    "cls_token",
    "reg_token",
    "pos_embed",
    "norm_pre.",
    "blocks.",
)  # what comes before a last norm


class _TimmEncoder(ExternalEncoder):
    """A plain ViT of timm: positions are resized as it does for images of any size."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library_model.blocks  # type: ignore[return-value]  # torch forgets what a module holds

    def embed(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        tokens = self.library_model.patch_embed(drop_frame_axis(pixels))  # type: ignore[operator]
        return self.library_model.norm_pre(self.library_model._pos_embed(tokens))  # type: ignore[operator]


def load_timm_encoder(
    name: str, tensors: Mapping[str, Tensor] | None, *, source: str, input_resolution: InputResolution
) -> ExternalEncoder:
    """A model by timm's name, with the weights that timm publishes for it or the tensors of a file.

    Raises:
        InputError: timm is missing or cannot fetch them, it is no plain ViT, or tensors are missing.
    """
    model = _create_model(name, source, pretrained=tensors is None)
    if tensors is not None:
        _load_tensors(model, tensors, name, source)
    stated = model.pretrained_cfg
    config = ExternalEncoderConfig(
        source=source,
        dim=model.embed_dim,
        depth=len(model.blocks),
        heads=model.blocks[0].attn.num_heads,
        tubelet=(1, *model.patch_embed.patch_size),
        train_size=tuple(model.patch_embed.img_size),
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        input_resolution=input_resolution,
    )
    licence = stated.get("license") if tensors is None else None
    return _TimmEncoder(config, model, {"layout": f"timm {name}", "licence": licence})


def build_timm_encoder(name: str, config: ExternalEncoderConfig) -> ExternalEncoder:
    with torch.device("meta"):
        return _TimmEncoder(config, _create_model(name, config.source, pretrained=False), {})


def _create_model(name: str, source: str, *, pretrained: bool) -> Any:
    """timm's model without its head, which takes images of any size."""
    with _import_timm(name, source) as library, torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            kind = library.create_model(name)
        if not isinstance(kind, library.models.VisionTransformer):
            raise InputError(f"{source} is a {type(kind).__name__}; teachers of timm are its plain VisionTransformers")
        return library.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True).eval()


def _load_tensors(model: Any, tensors: Mapping[str, Tensor], name: str, source: str) -> None:
    """Puts a file's tensors in, as timm translates them; each that is run has to be there."""
    with _import_timm(name, source) as library:
        found = library.models.vision_transformer.checkpoint_filter_fn(dict(tensors), model)
        needed = {n: t for n, t in model.state_dict().items() if n.startswith(_REQUIRED_PREFIXES)}
        lost = sorted(n for n, t in needed.items() if n not in found or found[n].shape != t.shape)
        if lost:
            raise InputError(
                f"{source}: {len(lost)} tensors of {name} are not in the file or of another shape, first {lost[0]!r}; "
                "take the name that the file was made with"
            )
        model.load_state_dict({n: found[n] for n in needed}, strict=False)


@contextmanager
def _import_timm(name: str, source: str) -> Iterator[Any]:
    """The library; whatever it raises is the user's to mend."""
    try:
        import timm
    except ImportError:
        raise InputError(f"{source} needs timm; install it by pip install 'vidstill[teachers]'") from None
    try:
        yield timm
    except InputError:
        raise
    except Exception as error:  # timm raises whatever names, files and networks lead it to
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"timm cannot give {name} with weights ({reason}); name a model of timm.list_pretrained() that can be "
            f"fetched from here, or a file of its weights: timm:NAME@FILE"
        ) from None
