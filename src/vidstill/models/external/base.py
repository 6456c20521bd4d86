"""Encoders of other libraries as teachers: their config, and a request-and-answer interface like `ViT`'s."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from operator import attrgetter
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.vit import Features
from vidstill.utils.types import Grid, InputError, Tubelet, gather_tokens

InputResolution = Literal["match_student", "native"]
"""Frame size of a teacher: such that it has as many tokens as the student; or that of its training, and its features
are resized."""

Pixels = Float[Tensor, "b 3 t h w"]
Tokens = Float[Tensor, "b n d"]
Visible = Int[Tensor, "b v"] | None
"""Token numbers; None: all."""


@dataclass(frozen=True, kw_only=True)
class ExternalEncoderConfig(ABC):
    """A teacher of another library, as its source describes it; each library's file has its own subclass."""

    source: str = field(compare=False)  # transformers:FOLDER_OR_NAME or timm:NAME, timm:NAME@FILE
    dim: int
    depth: int
    heads: int
    tubelet: Tubelet  # frames, rows and columns of one token; one frame: it sees images
    train_size: tuple[int, int]  # rows and columns of its training's frames
    mean: tuple[float, float, float]  # of colours in [0, 1]; subtracted by the model
    std: tuple[float, float, float]
    input_resolution: InputResolution = "match_student"

    @property
    def class_token(self) -> bool:
        """Whether class tokens are returned: never, and register tokens neither."""
        return False

    @abstractmethod
    def build(self) -> "ExternalEncoder":
        """Build the model without weights, on the "meta" device; they are loaded later (`FrozenTeacher.set_model`)."""


class ExternalEncoder(nn.Module, ABC):
    """A library's model, run by its own modules: input of the first block, then block after block.

    It thus sees only the visible tokens, and no block runs after the last requested one. Positions are those that the
    library gives to a clip of that size.

    Args:
        config: What is known of the model.
        library_model: The module of the library that is run.
        metadata: Layout and licence, for the provenance of what is learned from it.
    """

    blocks_path: ClassVar[str]  # where the library's model has its blocks
    library_model: Any
    mean: Tensor
    std: Tensor

    def __init__(self, config: ExternalEncoderConfig, library_model: nn.Module, metadata: Mapping[str, Any]):
        super().__init__()
        self.config, self.library_model, self.metadata = config, library_model, metadata
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)

    @property
    def blocks(self) -> Iterable[Callable[..., Any]]:
        """The library's blocks, in order."""
        return attrgetter(self.blocks_path)(self.library_model)

    @abstractmethod
    def embed(self, pixels: Pixels) -> Tokens:
        """Return the input of the first block: class and register tokens, if there are any, then all other tokens."""

    def build_block_arguments(self, pixels: Pixels, visible: Visible) -> dict[str, Any]:
        """Return what every block takes beside its tokens: positions that depend on the clip's size, for example."""
        return {}

    def grid(self, clip: Pixels) -> Grid:
        return Grid.from_clip(clip, self.config.tubelet)

    def forward(
        self,
        clip: Pixels,
        visible: Visible = None,
        *,
        layers: Collection[int] = (),
        attention: Collection[int] = (),
        intermediates_only: bool = True,
    ) -> Features:
        """Return the outputs of the requested blocks, as `ViT.forward`.

        Args:
            clip: Colours in [0, 1].
            visible: Token numbers; None: all.
            layers: Blocks, counted from 1.
            attention: Not available.
            intermediates_only: The library's final norm is never run, so that `tokens` is empty.

        Raises:
            InputError: The clip does not suit the model, or the request is one that it cannot answer.
        """
        grid = self.grid(clip)
        self._check_request(clip, layers, attention)
        pixels = (clip - self.mean[:, None, None, None]) / self.std[:, None, None, None]
        tokens, arguments = self.embed(pixels), self.build_block_arguments(pixels, visible)
        prefix = tokens.shape[1] - grid.num_tokens
        if visible is not None:
            tokens = torch.cat([tokens[:, :prefix], gather_tokens(tokens[:, prefix:], visible)], dim=1)
        outputs, cls_outputs = {}, {}
        for number, block in enumerate(islice(self.blocks, max(layers, default=0)), start=1):
            output = block(tokens, **arguments)
            tokens = output[0] if isinstance(output, tuple) else output
            if number in layers:
                cls_outputs[number], outputs[number] = tokens[:, :0], tokens[:, prefix:]
        return Features(tokens=tokens[:, :0], cls_token=tokens[:, :0], layers=outputs, cls_layers=cls_outputs)

    def _check_request(self, clip: Pixels, layers: Collection[int], attention: Collection[int]) -> None:
        config = self.config
        if attention:
            raise InputError(
                f"{config.source} cannot return the attention of a block; take a teacher in vidstill's or its authors' "
                "layout, or learn from features only (MaskAgain: --method.released.hidden-weight 0)"
            )
        if config.tubelet[0] == 1 and clip.shape[2] != 1:
            raise InputError(
                f"{config.source} sees single frames, and got a clip of {clip.shape[2]}; use it as MVD's image "
                "teacher, or for a student of images"
            )
        for number in layers:
            if not 1 <= number <= config.depth:
                raise InputError(f"{config.source} has no block {number}; take 1 to {config.depth}")


@contextmanager
def import_library(library: str, source: str, failure: str) -> Iterator[Any]:
    """Import a library for a `with` block, in which every error becomes an InputError.

    Args:
        library: Its name.
        source: The teacher that needs it.
        failure: Error message; `{reason}` is replaced by the error's first line.
    """
    try:
        module = import_module(library)
    except ImportError:
        raise InputError(f"{source} needs {library}; install it by pip install 'vidstill[teachers]'") from None
    try:
        yield module
    except InputError:
        raise
    except Exception as error:  # libraries raise anything for wrong names, files and network failures
        raise InputError(failure.format(reason=str(error).strip().partition("\n")[0])) from None
