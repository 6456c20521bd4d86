"""A trained encoder on its device: features of any layer, and class probabilities, of clips and videos."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import infer_encoder_config, init_encoder, load_checkpoint
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import PathOrUrl, parse_path
from vidstill.data.transforms.frame_sampling import DenseSampling, SegmentSampling, TimedSampling
from vidstill.engine.distributed import Precision, Runtime
from vidstill.models.vit import ViT
from vidstill.pipelines.infer.embed_config import EmbedConfig, Pooling, pool_tokens
from vidstill.pipelines.infer.run import Clip, MergeViews, Record, iter_window_clips, mean_over_views, run
from vidstill.pipelines.infer.videos import build_row_manifest
from vidstill.pipelines.trained_models import load_classifier
from vidstill.tasks.classification import Classifier
from vidstill.tasks.metrics.accuracy import merge_views
from vidstill.utils.arguments import check_arguments
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError, StrPath, check_range

_SEGMENT_CLIP_SECONDS = 4.0  # of a model that samples whole videos: the usual length in Something-Something
_EXTERNAL_FRAMES_AND_STRIDE = 16, 4  # clips of the published video models


@dataclass(frozen=True)
class VideoEncoder:
    """A frozen encoder on its device: `encoder = vidstill.load_encoder("runs/x")`, `encoder.embed("video.mp4")`.

    Args:
        classifier: The fine-tuned model that contains the encoder, if there is one; `classes` are its class names.
        views: One view of a video, as in training.
        test_views: All views that the classifier is tested with.
        global_pool: Whether the model's final norm is that of the mean of the tokens (MAE's linear probe), not of each.
    """

    model: ViT
    classifier: Classifier | None
    classes: tuple[str, ...]
    views: ViewsConfig
    source: str
    runtime: Runtime
    test_views: ViewsConfig | None = None
    global_pool: bool = False

    @property
    def dim(self) -> int:
        return self.model.config.dim

    @property
    def norm(self) -> nn.Module:
        """The norm behind the blocks of an encoder without a final norm: its classifier's."""
        return nn.Identity() if self.classifier is None else self.classifier.norm

    @property
    def multi_label(self) -> bool:
        """Whether a clip may show several classes, each with its own probability."""
        return self.classifier is not None and self.classifier.config.multi_label

    def clip_seconds(self, frame_rate: float) -> float:
        """Return the length of a training clip in a video of so many frames per second."""
        sampling = self.views.sampling
        if isinstance(sampling, SegmentSampling):
            return _SEGMENT_CLIP_SECONDS
        rate = sampling.frame_rate if isinstance(sampling, TimedSampling) else frame_rate
        return sampling.num_frames * sampling.stride / rate

    def compute_shapes(self, config: EmbedConfig) -> dict[str, tuple[int, ...]]:
        """Return the shape of the features of a clip, by name.

        Raises:
            InputError: A block or the class token does not exist, or the clips do not divide into whole tokens.
        """
        clip = torch.empty(1, 3, self.views.sampling.num_frames, *self.views.size, device="meta")
        grid = self.model.config.grid(clip)
        tokens = clip.new_empty(1, grid.num_tokens, self.dim)
        self._check_pool(config.pool)
        shape = tuple(pool_tokens(tokens, tokens[:, :1], grid, config.pool).shape[1:])
        blocks = self._resolve_blocks(config.layers)
        return {f"block_{block}": shape for block in blocks} or {"final": shape}

    def require_classifier(self) -> tuple[Classifier, ViewsConfig]:
        """Return the classifier and all the views that it is tested with.

        Raises:
            InputError: The encoder was not fine-tuned.
        """
        if self.classifier is None or self.test_views is None:
            raise InputError(
                f"{self.source} has no classes; fine-tune it first: vidstill finetune … --init {self.source}"
            )
        return self.classifier, self.test_views

    def extract_features(
        self, clips: Num[Tensor, "b 3 t h w"], *, layers: Sequence[int] = (), pool: Pooling = "mean"
    ) -> dict[str, Float[Tensor, "b ..."]]:
        """Return the features of clips by name (`final`, or `block_6` for each layer), in float32 on the CPU.

        Args:
            clips: uint8, or floats in [0, 1].
            layers: Blocks counted from 1, or backwards from -1; none: the final output, after the last norm (with the
                mean of a fine-tuned model: the input of its head).
            pool: How the tokens of a clip are pooled.

        Raises:
            InputError: A block or a class token does not exist.
        """
        self._check_pool(pool)
        blocks = self._resolve_blocks(layers)
        with torch.inference_mode(), self.runtime.compute(self.classifier or self.model):
            clip = self._scale_pixels(clips)
            grid = self.model.grid(clip)
            if blocks:
                out = self.model(clip, layers=blocks, intermediates_only=True)
                features = {f"block_{b}": pool_tokens(out.layers[b], out.cls_layers[b], grid, pool) for b in blocks}
            elif self.classifier is not None and pool == "mean":
                features = {"final": self.classifier.forward_features(clip)}
            else:
                out = self.model(clip)
                features = {"final": pool_tokens(self.norm(out.tokens), self.norm(out.cls_token), grid, pool)}
        return {name: each.float().cpu() for name, each in features.items()}

    def predict_logits(self, clips: Num[Tensor, "b 3 t h w"]) -> Float[Tensor, "b classes"]:
        """Return the logits of clips, uint8 or floats in [0, 1], in float32 on the CPU.

        Raises:
            InputError: The encoder was not fine-tuned.
        """
        classifier = self.require_classifier()[0]
        with torch.inference_mode(), self.runtime.compute(classifier):
            return classifier(self._scale_pixels(clips)).float().cpu()

    def merge_views(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Merge the logits of a clip's views to class probabilities, as the test does; a `MergeViews` for `run`."""
        return {"probabilities": merge_views(outputs["logits"], multi_label=self.multi_label)}

    def embed(
        self,
        videos: PathOrUrl | Sequence[PathOrUrl],
        *,
        layers: Sequence[int] = (),
        pool: Pooling = "mean",
        temporal_clips: int = 1,
        spatial_crops: int = 1,
        window: float | None = None,
        hop: float | None = None,
        batch: int = 16,
    ) -> Any:
        """Return a video's features in float32 on the CPU: the mean over its views, `(d)` if tokens are pooled to one.

        With a window the shape is `(n, d)`: row i describes the seconds from `i * hop` to `i * hop + window`; the video
        is decoded from start to end, and a long one takes no more memory. Several layers give a dictionary by name,
        several videos a list.

        Args:
            videos: A path or URL, or several.
            layers, pool, temporal_clips, spatial_crops, window, hop: As in `EmbedConfig`.
            batch: Clips that go through the encoder at once.

        Raises:
            BrokenVideo: A video does not decode.
            InputError: The encoder lacks a requested layer or token, or the options exclude each other.
        """
        check_range(1, math.inf, batch=batch)
        config = EmbedConfig(
            layers=tuple(layers),
            pool=pool,
            temporal_clips=temporal_clips,
            spatial_crops=spatial_crops,
            window=window,
            hop=hop,
        )
        if not isinstance(videos, str | Path):
            return [self._embed_video(parse_path(each), config, batch) for each in videos]
        return self._embed_video(parse_path(videos), config, batch)

    def _embed_video(self, video: PathOrUrl, config: EmbedConfig, batch: int) -> Any:
        row, (views, windows) = VideoRow(video, None), config.build_views(self.views)
        broken: dict[int, str] = {}
        if windows is None:
            clips = iter([Clip(0, _load_views(build_row_manifest([row]), views))])
        else:
            clips = iter_window_clips(0, row, windows, views, broken=broken)
        records = [each.arrays for each in self.iter_features(clips, config, batch)]
        if broken:
            raise InputError(broken[0])
        rows = {name: torch.from_numpy(np.stack([each[name] for each in records])) for name in records[0]}
        features = rows if windows else {name: each[0] for name, each in rows.items()}
        return next(iter(features.values())) if len(features) == 1 else features

    def iter_features(
        self, clips: Iterable[Clip], config: EmbedConfig, batch: int | None, merge: MergeViews = mean_over_views
    ) -> Iterator[Record]:
        """Yield the features of clips by name, as `run` does.

        Args:
            config: Layers and pooling.
            batch: Views that the device takes at once; None: those of one clip.
            merge: Merges a clip's views.
        """
        model = partial(self.extract_features, layers=config.layers, pool=config.pool)
        return run(model, clips, self.runtime, batch=batch, merge=merge)

    def predict(self, video: str | Path, *, topk: int = 5) -> list[tuple[str, float]]:
        """Return the most probable classes of one video, the best first, over all the views of its test.

        Raises:
            InputError: The encoder was not fine-tuned, or the video does not exist or does not decode.
        """
        manifest = open_manifest(parse_path(str(video)))
        if (count := len(manifest)) > 1:
            raise InputError(f"{video} holds {count} {manifest.noun}s; give one, or all to vidstill.predict")
        logits = self.predict_logits(_load_views(manifest, self.require_classifier()[1]))
        return rank_classes(self.merge_views({"logits": logits})["probabilities"], self.classes, topk)

    def _resolve_blocks(self, layers: Sequence[int]) -> list[int]:
        depth = len(self.model.blocks)
        for number in layers:
            if not 1 <= abs(number) <= depth:
                raise InputError(
                    f"block {number} does not exist in an encoder of {depth} blocks; give 1 to {depth}, or -1 for the "
                    "last"
                )
        return list(dict.fromkeys(number if number > 0 else depth + 1 + number for number in layers))

    def _check_pool(self, pool: Pooling) -> None:
        if pool == "class" and self.model.cls_token is None:
            raise InputError(f"{self.source} has no class token; choose mean with --pool")

    def _scale_pixels(self, clips: Tensor) -> Tensor:
        pixels = clips.to(self.runtime.device)
        return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def rank_classes(probabilities: Float[Tensor, "classes"], classes: Sequence[str], k: int) -> list[tuple[str, float]]:
    """Return the k most probable classes with their probabilities, the best first."""
    best = probabilities.argsort(descending=True, stable=True)[:k].tolist()
    return [(classes[label], probabilities[label].item()) for label in best]


def _load_views(manifest: Manifest, views: ViewsConfig) -> Num[Tensor, "v 3 t h w"]:
    return torch.from_numpy(ViewClips(manifest, views).load_arrays(0)[0][0])


@check_arguments
def load_encoder(source: StrPath, *, precision: Precision = "auto", runtime: Runtime | None = None) -> VideoEncoder:
    """Load the encoder of a run directory or of a checkpoint, ours or a published one.

    Args:
        source: A run directory, a weights file, a URL or a model of the Hub.
        precision: The precision it computes in; auto: bf16 where the device computes it fast, else fp32.
        runtime: The process and device; None: one of this precision.

    Raises:
        InputError: There is no known encoder.
    """
    runtime, source = runtime or Runtime(precision), os.fspath(source)
    checkpoint = load_checkpoint(source)
    if checkpoint.metadata.get("kind") == "classifier":
        model, checkpoint = load_classifier(checkpoint)
        classifier = model.to(runtime.device).eval()
        test_views = from_dict(ViewsConfig, checkpoint.metadata["views"])
        views = replace(test_views, temporal_clips=1, spatial_crops=1)
        classes = tuple(checkpoint.metadata["classes"])
        return VideoEncoder(classifier.encoder, classifier, classes, views, source, runtime, test_views)
    config = infer_encoder_config(checkpoint)
    encoder, views = config.build().to(runtime.device).eval(), _read_views(checkpoint, config.tubelet[0])
    init_encoder(encoder, checkpoint, config)
    global_pool = checkpoint.metadata.get("global_pool", False)
    return VideoEncoder(encoder, None, (), views, source, runtime, global_pool=global_pool)


def _read_views(checkpoint: Checkpoint, tubelet_frames: int) -> ViewsConfig:
    """Return one view as the checkpoint states it, as its pre-training's clips, or as its family's published models."""
    if "views" in checkpoint.metadata:
        return from_dict(ViewsConfig, checkpoint.metadata["views"])
    if "layout" in checkpoint.metadata:
        frames, stride = _EXTERNAL_FRAMES_AND_STRIDE if tubelet_frames > 1 else (1, 1)
        return ViewsConfig(sampling=DenseSampling(num_frames=frames, stride=stride), temporal_clips=1, spatial_crops=1)
    recipe = checkpoint.metadata.get("recipe")
    if not isinstance(recipe, dict) or "clips" not in recipe:
        raise InputError(f"{checkpoint.source} does not state the clips of its training; give a run of vidstill")
    clips = from_dict(ClipsConfig, recipe["clips"])
    sampling, size = clips.sampling, clips.size
    return ViewsConfig(sampling=sampling, temporal_clips=1, spatial_crops=1, short_side=min(size), size=size)
