"""A trained model ready to be exported: clips to one output, and the metadata of its file."""

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
from vidstill.pipelines.infer.encoder import VideoEncoder, load_encoder
from vidstill.pipelines.trained_models import DETECTOR_KIND, load_detector
from vidstill.utils.config_io import to_dict
from vidstill.utils.types import Grid, InputError, check_range

OutputType = Literal["logits", "features", "tokens"]
"""logits: of a fine-tuned model (b, classes) or a detector (b, boxes, actions); features: the mean over the tokens, or
the input of a fine-tuned model's head (b, d); tokens: all tokens after the last norm (b, n, d)."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What is exported, and what it is compared on."""

    output_type: OutputType | None = None  # output of the file; None: logits if the model has classes, else features
    frames: int | None = None  # frames of a clip; None: as the model is tested, or was trained
    size: tuple[int, int] | None = None  # rows and columns of a clip; None: as the model is tested, or was trained
    data: str | Path | None = None  # videos to compare on; for int8, labelled videos to measure accuracy on
    fold: Literal[1, 2, 3] = 1  # which of the three official splits of UCF101 and HMDB51
    workers: int = 0  # decoding processes

    def __post_init__(self) -> None:
        check_range(1, 2**20, frames=self.frames)
        for side in self.size or ():
            check_range(1, 2**20, size=side)


@dataclass(frozen=True, kw_only=True)
class ExportableModel:
    """A model on the CPU in float32, in eval mode.

    Args:
        module: A clip (and a detector's boxes) → its output.
        clip_shape: Frames, rows and columns.
        class_names: Of logits.
        views: Of a video in a test; None: a detector.
        multi_label: Clips may have several labels.
        metadata: Of the exported file.
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
    """One output of an encoder, or of its fine-tuned model."""

    def __init__(self, encoder: VideoEncoder, output_type: OutputType):
        super().__init__()
        self.output_type, self.is_fine_tuned = output_type, encoder.classifier is not None
        self.model: nn.Module = encoder.model if encoder.classifier is None else encoder.classifier
        self.vit, self.norm = encoder.model, encoder.norm

    def forward(self, clip: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b ..."]:
        """Return the output of clips of colours in [0, 1]."""
        if self.output_type == "logits":
            return self.model(clip)
        if self.output_type == "features" and self.is_fine_tuned:
            return cast(Any, self.model).forward_features(clip)
        tokens = self.norm(self.vit(clip).tokens)
        return tokens if self.output_type == "tokens" else tokens.mean(dim=1)


class _ConstantPositionEmbedding(nn.Module):
    """The position embedding of one grid as a table, so that the exported program does not compute it."""

    def __init__(self, embedding: PositionEmbedding, grid: Grid):
        super().__init__()
        self.cls_embedding = embedding.cls_embedding
        with torch.no_grad():
            self.register_buffer("table", embedding(grid, torch.device("cpu")).detach().clone())

    def forward(self, grid: Grid, device: torch.device) -> Float[Tensor, "n d"]:
        return cast(Tensor, self.table)


def load_exportable_model(source: str, config: ExportConfig) -> ExportableModel:
    """Load the model of a run directory or weights file.

    Raises:
        InputError: There is none, or it has no such output.
    """
    checkpoint = read_checkpoint(source)
    is_detector = checkpoint.metadata.get("kind") == DETECTOR_KIND
    model = (_load_exportable_detector if is_detector else _load_exportable_encoder)(source, config)
    vit = next(module for module in model.module.modules() if isinstance(module, ViT))
    with torch.no_grad():
        clip = torch.zeros(1, 3, *model.clip_shape)
        if is_detector:
            clip = cast(Any, model.module).pad_to_tubelets(clip)
        vit.positions = cast(PositionEmbedding, _ConstantPositionEmbedding(vit.positions, vit.grid(clip)))
    metadata = {
        "kind": model.kind,
        "output_type": model.output_type,
        "source": source,
        "input": {
            "clip": ["batch", 3, *model.clip_shape],
            "colours": "RGB in [0, 1]; the model normalizes by mean and std itself",
        },
        "mean": list(vit.config.mean),
        "std": list(vit.config.std),
        "encoder": to_dict(vit.config),
        **model.metadata,
        **build_provenance({"exported": checkpoint}),
    }
    return replace(model, metadata=metadata)


def _load_exportable_encoder(source: str, config: ExportConfig) -> ExportableModel:
    encoder = load_encoder(source, runtime=Runtime("fp32"))
    fine_tuned = encoder.classifier is not None
    output_type = config.output_type or ("logits" if fine_tuned else "features")
    if output_type == "logits":
        encoder.require_classifier()
    views = encoder.test_views or encoder.views
    if config.frames is not None:
        views = replace(views, sampling=replace(views.sampling, num_frames=config.frames))
    if config.size is not None:
        views = replace(views, size=config.size, short_side=min(config.size))
    names = encoder.classes if output_type == "logits" else ()
    return ExportableModel(
        module=OutputWrapper(encoder, output_type).cpu().float().eval(),
        kind="classifier" if fine_tuned else "encoder",
        output_type=output_type,
        clip_shape=(views.sampling.num_frames, *views.size),
        class_names=names,
        views=views,
        multi_label=encoder.multi_label,
        metadata={"views": to_dict(views)} | ({"classes": list(names)} if names else {}),
        source=source,
    )


def _load_exportable_detector(source: str, config: ExportConfig) -> ExportableModel:
    if config.output_type not in (None, "logits"):
        raise InputError(
            f"{source} is a detector, whose output are logits of boxes; leave out --output-type {config.output_type}"
        )
    if config.data is not None:
        raise InputError(f"{source} is a detector, which needs boxes beside videos; leave out --data {config.data}")
    detector = load_detector(source)
    size = config.size or detector.recipe.views.crop_size or detector.recipe.clips.size
    names = detector.actions.names
    return ExportableModel(
        module=detector.model.cpu().float().eval(),
        kind="detector",
        output_type="logits",
        clip_shape=(config.frames or detector.recipe.views.sampling.num_frames, *size),
        class_names=tuple(names.values()),
        views=None,
        multi_label=True,
        metadata={
            "views": to_dict(detector.recipe.views),
            "actions": [[action_id, name] for action_id, name in names.items()],
            "boxes": "x1, y1, x2, y2 in pixels of the clip",
        },
        source=source,
    )
