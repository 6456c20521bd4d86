"""What is shipped: a model that takes clips and gives one answer, and what its file says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidstill.checkpoints.io import read_weights
from vidstill.checkpoints.licences import provenance
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.engine.distributed import Runtime
from vidstill.models.position_embeddings import PositionCodes
from vidstill.models.vit import ViT
from vidstill.pipelines.detector_checkpoint import KIND as DETECTOR
from vidstill.pipelines.detector_checkpoint import load_detector
from vidstill.pipelines.infer.clip_encoder import ClipEncoder
from vidstill.pipelines.infer.encoder import load
from vidstill.utils.config_io import to_plain
from vidstill.utils.types import Grid, InputError, within

Gives = Literal["logits", "features", "tokens"]
"""The scores of a fine-tuned model, (b, classes), or of a detector, (b, boxes, actions); the mean over the tokens, of a
fine-tuned model what enters its head, (b, d); every token after the last norm, (b, n, d)."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """
    Args:
        gives: what the file answers; None: logits where the model has classes, else features.
        frames: of a clip; None: as the model is tested, or was trained.
        size: rows and columns of a clip; None: as the model is tested, or was trained.
        data: videos whose clips are compared too; of int8, the labelled ones that accuracy is measured on.
        fold: which of the three official splits of UCF101 and HMDB51.
        workers: processes that decode.
    """

    gives: Gives | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None
    data: str | Path | None = None
    fold: Literal[1, 2, 3] = 1
    workers: int = 0

    def __post_init__(self) -> None:
        within(1, 2**20, frames=self.frames)
        for side in self.size or ():
            within(1, 2**20, size=side)


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """
    Args:
        model: on the CPU in float32, in eval mode: a clip, and of a detector boxes, to what it gives.
        clip: frames, rows and columns.
        names: of what is scored; of features there are none.
        views: how videos are looked at in a test; None: of a detector, which is asked about boxes.
        several: a clip may show several classes.
        about: what the file says of itself.
    """

    model: nn.Module
    kind: Literal["classifier", "encoder", "detector"]
    gives: Gives
    clip: tuple[int, int, int]
    names: tuple[str, ...]
    views: ViewsConfig | None
    several: bool
    about: Mapping[str, Any]
    source: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("clip", "boxes") if self.kind == "detector" else ("clip",)


class Answer(nn.Module):
    """The one answer of an encoder, or of the fine-tuned model that it is of, that is shipped."""

    def __init__(self, encoder: ClipEncoder, gives: Gives):
        super().__init__()
        self.gives, self.fine_tuned = gives, encoder.classifier is not None
        self.model: nn.Module = encoder.model if encoder.classifier is None else encoder.classifier
        self.vit, self.norm = encoder.model, encoder.norm

    def forward(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b ..."]:
        """Of colours in [0, 1]."""
        if self.gives == "logits":
            return self.model(clip)
        if self.gives == "features" and self.fine_tuned:
            return cast(Any, self.model).features(clip)
        tokens = self.norm(self.vit(clip).tokens)
        return tokens if self.gives == "tokens" else tokens.mean(dim=1)


class _Table(nn.Module):
    """The position codes of one grid, as numbers: no program that a model is shipped to has to compute them."""

    def __init__(self, codes: PositionCodes, grid: Grid):
        super().__init__()
        self.of_class = codes.of_class
        with torch.no_grad():
            self.register_buffer("table", codes(grid, torch.device("cpu")).detach().clone())

    def forward(self, grid: Grid, device: torch.device) -> Float[Tensor, "n d"]:
        return cast(Tensor, self.table)


def shipped(source: str, asked: ExportConfig) -> Shipped:
    """The model of a run's folder or of a file of weights, ready to be shipped.

    Raises:
        InputError: it is none, or cannot give what is asked.
    """
    weights = read_weights(source)
    found = _detector(source, asked) if weights.about.get("kind") == DETECTOR else _encoder(source, asked)
    vit = next(part for part in found.model.modules() if isinstance(part, ViT))
    with torch.no_grad():
        clip = torch.zeros(1, 3, *found.clip)
        if found.kind == "detector":
            clip = cast(Any, found.model).filled_up(clip)
        vit.positions = cast(PositionCodes, _Table(vit.positions, vit.grid(clip)))
    about = {
        "kind": found.kind,
        "gives": found.gives,
        "source": source,
        "input": {"clip": ["batch", 3, *found.clip], "colours": "RGB in [0, 1]; mean and std are taken off inside"},
        "mean": list(vit.config.mean),
        "std": list(vit.config.std),
        "encoder": to_plain(vit.config),
        **found.about,
        **provenance({"exported": weights}),
    }
    return replace(found, about=about)


def _encoder(source: str, asked: ExportConfig) -> Shipped:
    encoder = load(source, runtime=Runtime("fp32"))
    fine_tuned = encoder.classifier is not None
    gives = asked.gives or ("logits" if fine_tuned else "features")
    if gives == "logits":
        encoder.fine_tuned()
    views = _as_asked(encoder.test_views or encoder.views, asked)
    names = encoder.classes if gives == "logits" else ()
    return Shipped(
        model=Answer(encoder, gives).cpu().float().eval(),
        kind="classifier" if fine_tuned else "encoder",
        gives=gives,
        clip=(views.sampling.frames, *views.size),
        names=names,
        views=views,
        several=encoder.several,
        about={"views": to_plain(views)} | ({"classes": list(names)} if names else {}),
        source=source,
    )


def _detector(source: str, asked: ExportConfig) -> Shipped:
    if asked.gives not in (None, "logits"):
        raise InputError(f"{source} is a detector, which gives logits of boxes, and {asked.gives} are asked for")
    if asked.data is not None:
        raise InputError(f"{source} is a detector, which needs boxes beside videos; leave {asked.data} out")
    found = load_detector(source)
    size = asked.size or found.views.crop or found.trained_on
    actions = [[number, name] for number, name in found.actions.names.items()]
    return Shipped(
        model=found.model.cpu().float().eval(),
        kind="detector",
        gives="logits",
        clip=(asked.frames or found.views.sampling.frames, *size),
        names=tuple(found.actions.names.values()),
        views=None,
        several=True,
        about={"views": to_plain(found.views), "actions": actions, "boxes": "x1, y1, x2, y2 in pixels of the clip"},
        source=source,
    )


def _as_asked(views: ViewsConfig, asked: ExportConfig) -> ViewsConfig:
    if asked.frames is not None:
        views = replace(views, sampling=replace(views.sampling, frames=asked.frames))
    if asked.size is not None:
        views = replace(views, size=asked.size, short_side=min(asked.size))
    return views
