"""A run or a file of weights as an encoder that is ready to be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidstill.checkpoints.io import Checkpoint
from vidstill.checkpoints.load import infer_encoder_config, init_encoder, load_checkpoint
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.manifest.open import open_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import PathOrUrl, parse_path
from vidstill.data.transforms.frame_sampling import DenseSampling
from vidstill.engine.distributed import Precision, Runtime
from vidstill.pipelines.classifier_checkpoint import load_classifier
from vidstill.pipelines.infer.clip_encoder import ClipEncoder, Pooling
from vidstill.pipelines.infer.videos import (
    build_unlabeled_manifest,
    extract_video_features,
    extract_window_features,
    resolve_views,
)
from vidstill.utils.config_io import from_dict
from vidstill.utils.types import InputError

_EXTERNAL_FRAMES_AND_STRIDE = 16, 4  # of the family's clips of videos, and their stride


@dataclass(frozen=True)
class VideoEncoder(ClipEncoder):
    """An encoder that is asked of videos: `encoder = vidstill.load("runs/x")`, `encoder.patch_embed("video.mp4")`."""

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
        """A video's features, in float32 on the CPU: the mean over its views, (d) where tokens are pooled to a vector.

        With a window, (n, d): row i is of the seconds from `i * hop` to `i * hop + window`; the video is decoded from
        its start to its end, and takes no more memory if it is long. Of several layers, a dictionary of such; of
        several videos, a list.

        Args:
            videos: a path or an address, or several of them.
            layers, pool: as for `extract_mean_features`.
            views, crops: how many times, and in how many places, a video is looked at.
            window: seconds; None: it is looked at as in a test, in views.
            hop: seconds from the start of a window to that of the next; None: the windows follow one another.
            batch: windows that go through the encoder at once.

        Raises:
            InputError: one does not decode.
            InputError: what is asked for is not there.
        """
        if not isinstance(videos, str | Path):
            return [
                self.embed(
                    each,
                    layers=layers,
                    pool=pool,
                    temporal_clips=temporal_clips,
                    spatial_crops=spatial_crops,
                    window=window,
                    hop=hop,
                    batch=batch,
                )
                for each in videos
            ]
        place = parse_path(videos)
        look, cut = resolve_views(
            self, temporal_clips=temporal_clips, spatial_crops=spatial_crops, window=window, hop=hop
        )
        if cut is None:
            broken: dict[int, str] = {}
            listing = build_unlabeled_manifest([VideoRow(place, None)])
            found = next(extract_video_features(self, listing, look, layers=layers, pool=pool, broken=broken), None)
            if found is None:
                raise InputError(broken[0])
            features = found[1]
        else:
            parts = list(extract_window_features(self, place, cut, look, layers=layers, pool=pool, batch=batch))
            features = {name: torch.cat([part.features[name] for part in parts]) for name in self.name_outputs(layers)}
        return next(iter(features.values())) if len(features) == 1 else features

    def predict(self, video: str | Path, *, topk: int = 5) -> list[tuple[str, float]]:
        """The most probable classes of one video, the first first, over all the views of its test.

        Raises:
            InputError: it was not fine-tuned, there is no such video, or it does not decode.
        """
        listing = open_manifest(parse_path(str(video)))
        if len(listing.rows) > 1:
            raise InputError(f"{video} holds {len(listing.rows)} videos; give one, or vidstill.predict all of them")
        found = self.predict_probabilities(
            torch.from_numpy(ViewClips(listing, self.require_classifier()[1]).load_arrays(0)[0][0])
        )
        return [
            (self.classes[label], found[label].item())
            for label in found.argsort(descending=True, stable=True)[:topk].tolist()
        ]


def load_encoder(source: str, *, precision: Precision = "auto", runtime: Runtime | None = None) -> VideoEncoder:
    """The encoder of a run's folder or of a file of weights, ours or the authors'.

    Raises:
        InputError: there is none that is known here.
    """
    runtime = runtime or Runtime(precision)
    weights = load_checkpoint(source)
    if weights.metadata.get("kind") == "classifier":
        loaded, weights = load_classifier(weights)
        classifier = loaded.to(runtime.device).eval()
        norm = nn.Identity() if classifier.config.pooling == "first" else classifier.norm
        classes = tuple(weights.metadata["classes"])
        tested = from_dict(ViewsConfig, weights.metadata["views"])
        views = replace(tested, temporal_clips=1, spatial_crops=1)
        return VideoEncoder(classifier.encoder, norm, classifier, classes, views, source, runtime, test_views=tested)
    config = infer_encoder_config(weights)
    model = config.build()
    init_encoder(model, weights, config)
    if stated := weights.metadata.get("views"):
        views = from_dict(ViewsConfig, stated)
    else:
        views = _build_external_views(config.tubelet[0]) if "layout" in weights.metadata else _read_views(weights)
    return VideoEncoder(model.to(runtime.device).eval(), nn.Identity(), None, (), views, source, runtime)


def _read_views(checkpoint: Checkpoint) -> ViewsConfig:
    """One view, of our file's: a clip of its pre-training."""
    clips = from_dict(ClipsConfig, _read_recipe(checkpoint)["clips"])
    return ViewsConfig(
        sampling=clips.sampling, temporal_clips=1, spatial_crops=1, short_side=min(clips.size), size=clips.size
    )


def _read_recipe(checkpoint: Checkpoint) -> Mapping[str, object]:
    recipe = checkpoint.metadata.get("recipe")
    if not isinstance(recipe, dict) or "clips" not in recipe:
        raise InputError(f"{checkpoint.source} does not say which clips it was trained on; it is no run's of vidstill")
    return recipe


def _build_external_views(tubelet_frames: int) -> ViewsConfig:
    frames, stride = _EXTERNAL_FRAMES_AND_STRIDE if tubelet_frames > 1 else (1, 1)
    return ViewsConfig(sampling=DenseSampling(num_frames=frames, stride=stride), temporal_clips=1, spatial_crops=1)
