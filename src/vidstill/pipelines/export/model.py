"""What is shipped: a model that takes clips and gives one answer, and what its file says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidstill.checkpoints.io import read_checkpoint
from vidstill.checkpoints.licences import build_provenance
from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.engine.distributed import Runtime
from vidstill.models.position_embeddings import PositionEmbedding
from vidstill.models.vit import ViT
from vidstill.pipelines.detector_checkpoint import DETECTOR_KIND as DETECTOR
from vidstill.pipelines.detector_checkpoint import load_detector
from vidstill.pipelines.infer.clip_encoder import ClipEncoder
from vidstill.pipelines.infer.encoder import load_encoder
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import Grid, InputError, check_range

OutputType = Literal["logits", "features", "tokens"]
"""The scores of a fine-tuned model, (b, classes), or of a detector, (b, boxes, actions); the mean over the tokens, of a
fine-tuned model what enters its head, (b, d); every token after the last norm, (b, n, d)."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """
    Args:
        output_type: what the file answers; None: logits where the model has classes, else features.
        frames: of a clip; None: as the model is tested, or was trained.
        size: rows and columns of a clip; None: as the model is tested, or was trained.
        data: videos whose clips are compared too; of int8, the labelled ones that accuracy is measured on.
        fold: which of the three official splits of UCF101 and HMDB51.
        workers: processes that decode.
    """

    output_type: OutputType | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None
    data: str | Path | None = None
    fold: Literal[1, 2, 3] = 1
    workers: int = 0

    def __post_init__(self) -> None:
        check_range(1, 2**20, frames=self.frames)
        for side in self.size or ():
            check_range(1, 2**20, size=side)


@dataclass(frozen=True, kw_only=True)
class ExportableModel:
    """
    Args:
        module: on the CPU in float32, in eval mode: a clip, and of a detector boxes, to what it gives.
        clip_shape: frames, rows and columns.
        class_names: of what is scored; of features there are none.
        views: how videos are looked at in a test; None: of a detector, which is asked about boxes.
        multi_label: a clip may show several classes.
        metadata: what the file says of itself.
    """

    module: nn.Module
    kind: Literal["classifier", "encoder", "detector"]
    output_type: OutputType
    clip_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    views: ViewsConfig | None
    multi_label: bool
    metadata: Mapping[str, Any]
    source: str

    @property
    def input_names(self) -> tuple[str, ...]:
        return ("clip", "boxes") if self.kind == "detector" else ("clip",)


class OutputWrapper(nn.Module):
    """The one answer of an encoder, or of the fine-tuned model that it is of, that is shipped."""

    def __init__(self, encoder: ClipEncoder, output_type: OutputType):
        super().__init__()
        self.output_type, self.is_fine_tuned = output_type, encoder.classifier is not None
        self.model: nn.Module = encoder.model if encoder.classifier is None else encoder.classifier
        self.vit, self.norm = encoder.model, encoder.norm

    def forward(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b ..."]:
        """Of colours in [0, 1]."""
        if self.output_type == "logits":
            return self.model(clip)
        if self.output_type == "features" and self.is_fine_tuned:
            return cast(Any, self.model).forward_features(clip)
        tokens = self.norm(self.vit(clip).tokens)
        return tokens if self.output_type == "tokens" else tokens.mean(dim=1)


class _ConstantPositionEmbedding(nn.Module):
    """The position codes of one grid, as numbers: no program that a model is shipped to has to compute them."""

    def __init__(self, embedding: PositionEmbedding, grid: Grid):
        super().__init__()
        self.cls_embedding = embedding.cls_embedding
        with torch.no_grad():
            self.register_buffer("table", embedding(grid, torch.device("cpu")).detach().clone())

    def forward(self, grid: Grid, device: torch.device) -> Float[Tensor, "n d"]:
        return cast(Tensor, self.table)


def load_exportable_model(source: str, config: ExportConfig) -> ExportableModel:
    """The model of a run's folder or of a file of weights, ready to be shipped.

    Raises:
        InputError: it is none, or cannot give what is asked.
    """
    weights = read_checkpoint(source)
    found = (
        _load_exportable_detector(source, config)
        if weights.metadata.get("kind") == DETECTOR
        else _load_exportable_encoder(source, config)
    )
    vit = next(part for part in found.module.modules() if isinstance(part, ViT))
    with torch.no_grad():
        clip = torch.zeros(1, 3, *found.clip_shape)
        if found.kind == "detector":
            clip = cast(Any, found.module).pad_to_tubelets(clip)
        vit.positions = cast(PositionEmbedding, _ConstantPositionEmbedding(vit.positions, vit.grid(clip)))
    about = {
        "kind": found.kind,
        "gives": found.output_type,
        "source": source,
        "input": {
            "clip": ["batch", 3, *found.clip_shape],
            "colours": "RGB in [0, 1]; mean and std are taken off inside",
        },
        "mean": list(vit.config.mean),
        "std": list(vit.config.std),
        "encoder": to_dict(vit.config),
        **found.metadata,
        **build_provenance({"exported": weights}),
    }
    return replace(found, metadata=about)


def _load_exportable_encoder(source: str, config: ExportConfig) -> ExportableModel:
    encoder = load_encoder(source, runtime=Runtime("fp32"))
    fine_tuned = encoder.classifier is not None
    gives = config.output_type or ("logits" if fine_tuned else "features")
    if gives == "logits":
        encoder.require_classifier()
    views = _override_views(encoder.test_views or encoder.views, config)
    names = encoder.classes if gives == "logits" else ()
    return ExportableModel(
        module=OutputWrapper(encoder, gives).cpu().float().eval(),
        kind="classifier" if fine_tuned else "encoder",
        output_type=gives,
        clip_shape=(views.sampling.num_frames, *views.size),
        class_names=names,
        views=views,
        multi_label=encoder.multi_label,
        metadata={"views": to_dict(views)} | ({"classes": list(names)} if names else {}),
        source=source,
    )


def _load_exportable_detector(source: str, config: ExportConfig) -> ExportableModel:
    if config.output_type not in (None, "logits"):
        raise InputError(f"{source} is a detector, which gives logits of boxes, and {config.output_type} are asked for")
    if config.data is not None:
        raise InputError(f"{source} is a detector, which needs boxes beside videos; leave {config.data} out")
    found = load_detector(source)
    size = config.size or found.views.crop_size or found.train_size
    actions = [[number, name] for number, name in found.actions.names.items()]
    return ExportableModel(
        module=found.model.cpu().float().eval(),
        kind="detector",
        output_type="logits",
        clip_shape=(config.frames or found.views.sampling.frames, *size),
        class_names=tuple(found.actions.names.values()),
        views=None,
        multi_label=True,
        metadata={"views": to_dict(found.views), "actions": actions, "boxes": "x1, y1, x2, y2 in pixels of the clip"},
        source=source,
    )


def _override_views(views: ViewsConfig, config: ExportConfig) -> ViewsConfig:
    if config.frames is not None:
        views = replace(views, sampling=replace(views.sampling, num_frames=config.frames))
    if config.size is not None:
        views = replace(views, size=config.size, short_side=min(config.size))
    return views
