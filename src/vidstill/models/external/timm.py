"""Vision transformers of `timm` as teachers: by name, with the weights that timm publishes or those of a file."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.models.external.base import Foreign, ForeignConfig, Input, as_images
from vidstill.utils.types import InputError

_RUN = ("patch_embed.", "cls_token", "reg_token", "pos_embed", "norm_pre.", "blocks.")  # what comes before a last norm


class _Timm(Foreign):
    """A plain ViT of timm: positions are resized as it does for images of any size."""

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        return self.library.blocks  # type: ignore[return-value]  # torch forgets what a module holds

    def enter(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        tokens = self.library.patch_embed(as_images(pixels))  # type: ignore[operator]
        return self.library.norm_pre(self.library._pos_embed(tokens))  # type: ignore[operator]


def read(name: str, tensors: Mapping[str, Tensor] | None, *, source: str, input: Input) -> Foreign:
    """A model by timm's name, with the weights that timm publishes for it or the tensors of a file.

    Raises:
        InputError: timm is missing or cannot fetch them, it is no plain ViT, or tensors are missing.
    """
    model = _made(name, source, pretrained=tensors is None)
    if tensors is not None:
        _fill(model, tensors, name, source)
    stated = model.pretrained_cfg
    config = ForeignConfig(
        source=source,
        dim=model.embed_dim,
        depth=len(model.blocks),
        heads=model.blocks[0].attn.num_heads,
        tubelet=(1, *model.patch_embed.patch_size),
        size=tuple(model.patch_embed.img_size),
        mean=tuple(stated["mean"]),
        std=tuple(stated["std"]),
        input=input,
    )
    licence = stated.get("license") if tensors is None else None
    return _Timm(config, model, {"layout": f"timm {name}", "licence": licence})


def without_weights(name: str, config: ForeignConfig) -> Foreign:
    with torch.device("meta"):
        return _Timm(config, _made(name, config.source, pretrained=False), {})


def _made(name: str, source: str, *, pretrained: bool) -> Any:
    """timm's model without its head, which takes images of any size."""
    with _asking(name, source) as library, torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            kind = library.create_model(name)
        if not isinstance(kind, library.models.VisionTransformer):
            raise InputError(f"{source} is a {type(kind).__name__}; teachers of timm are its plain VisionTransformers")
        return library.create_model(name, pretrained=pretrained, num_classes=0, dynamic_img_size=True).eval()


def _fill(model: Any, tensors: Mapping[str, Tensor], name: str, source: str) -> None:
    """Puts a file's tensors in, as timm translates them; each that is run has to be there."""
    with _asking(name, source) as library:
        found = library.models.vision_transformer.checkpoint_filter_fn(dict(tensors), model)
        needed = {n: t for n, t in model.state_dict().items() if n.startswith(_RUN)}
        lost = sorted(n for n, t in needed.items() if n not in found or found[n].shape != t.shape)
        if lost:
            raise InputError(
                f"{source}: {len(lost)} tensors of {name} are not in the file or of another shape, first {lost[0]!r}; "
                "take the name that the file was made with"
            )
        model.load_state_dict({n: found[n] for n in needed}, strict=False)


@contextmanager
def _asking(name: str, source: str) -> Iterator[Any]:
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
