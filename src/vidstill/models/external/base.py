"""What a foreign teacher says of itself, and how it is looked at: as our own encoder is, block by block."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vidstill.models.vit import Features
from vidstill.utils.types import Grid, InputError, Tubelet, gather_tokens

InputResolution = Literal["match_student", "native"]
"""How large a teacher's frames are: so that its tokens are as many as the student's; or as it was trained on, and its
features are resampled."""


@dataclass(frozen=True, kw_only=True)
class ExternalEncoderConfig:
    """A teacher of another library, as its source says that it is."""

    source: str  # transformers:FOLDER_OR_NAME or timm:NAME, timm:NAME@FILE
    dim: int
    depth: int
    heads: int
    tubelet: Tubelet  # frames, rows and columns of one token; one frame: it looks at images
    train_size: tuple[int, int]  # rows and columns of the frames that it was trained on
    mean: tuple[float, float, float]  # of the colours in [0, 1], taken off at its door
    std: tuple[float, float, float]
    input_resolution: InputResolution = "match_student"

    @property
    def class_token(self) -> bool:
        """Class and register tokens are dropped at its door: nothing is learned from them."""
        return False

    def build(self) -> "ExternalEncoder":
        """The model without its weights, on the "meta" device: they come in at the start (`Frozen.become`)."""
        from vidstill.models.external.registry import build_external_encoder

        return build_external_encoder(self)


class ExternalEncoder(nn.Module, ABC):
    """A library's model, run by its own parts: what enters its first block, then block after block.

    So it sees only the tokens that it is shown, and no block runs after the last one that is needed. Positions are
    those that the library gives to a clip of that size.

    Args:
        library_model: the part of the library's model that is run.
        metadata: where it comes from, for what is learned from it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ExternalEncoderConfig, library_model: nn.Module, metadata: Mapping[str, Any]):
        super().__init__()
        self.config, self.library_model, self.metadata = config, library_model, metadata
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.std), persistent=False)

    @property
    @abstractmethod
    def blocks(self) -> Iterable[Callable[..., Any]]:
        """The library's, in their order."""

    @abstractmethod
    def embed(self, pixels: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b n d"]:
        """What enters the first block of all the clip: class and register tokens, if there are any, then the others."""

    def run_block(
        self,
        block: Callable[..., Any],
        tokens: Float[Tensor, "b n d"],
        pixels: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None,
    ) -> Float[Tensor, "b n d"]:
        """What a block makes of the tokens, of which those named are there."""
        return block(tokens)

    def grid(self, clip: Float[Tensor, "b 3 t h w"]) -> Grid:
        return Grid.from_clip(clip, self.config.tubelet)

    def forward(
        self,
        clip: Float[Tensor, "b 3 t h w"],
        visible: Int[Tensor, "b v"] | None = None,
        *,
        layers: Collection[int] = (),
        attention: Collection[int] = (),
        intermediates_only: bool = True,
    ) -> Features:
        """Return the outputs of the requested blocks, as `ViT.forward`.

        Args:
            intermediates_only: The library's final norm is never run, so that `tokens` is empty.

        Raises:
            InputError: The clip does not suit the model, or the request is one that it cannot answer.
        """
        grid = self.grid(clip)
        self._check_request(clip, layers, attention)
        pixels = (clip - self.mean[:, None, None, None]) / self.std[:, None, None, None]
        tokens = self.embed(pixels)
        prefix = tokens.shape[1] - grid.num_tokens
        if visible is not None:
            tokens = torch.cat([tokens[:, :prefix], gather_tokens(tokens[:, prefix:], visible)], dim=1)
        outputs, classes = {}, {}
        for number, block in enumerate(islice(self.blocks, max(layers, default=0)), start=1):
            tokens = self.run_block(block, tokens, pixels, visible)
            if number in layers:
                classes[number], outputs[number] = tokens[:, :0], tokens[:, prefix:]
        return Features(tokens=tokens[:, :0], cls_token=tokens[:, :0], layers=outputs, cls_layers=classes)

    def _check_request(
        self, clip: Float[Tensor, "b 3 t h w"], layers: Collection[int], attention: Collection[int]
    ) -> None:
        config = self.config
        if attention:
            raise InputError(
                f"{config.source} is asked what a block attends with, which other libraries do not give alike; take a "
                "teacher in vidstill's or its authors' layout, or learn from its features alone (MaskAgain: "
                "--method.hidden-factor 0)"
            )
        if config.tubelet[0] == 1 and clip.shape[2] != 1:
            raise InputError(
                f"{config.source} sees single frames, but got a clip of {clip.shape[2]}; take it as MVD's "
                "image teacher, or teach a student of images"
            )
        for number in layers:
            if not 1 <= number <= config.depth:
                raise InputError(
                    f"block {number} is asked of {config.source}, which has {config.depth}; take 1 to {config.depth}"
                )


def drop_frame_axis(pixels: Float[Tensor, "b 3 1 h w"]) -> Float[Tensor, "b 3 h w"]:
    return rearrange(pixels, "b c 1 h w -> b c h w")
