"""A run or a file of weights as an encoder that is ready to be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidstill.checkpoints.io import Weights
from vidstill.checkpoints.load import encoder_config, read_known, start_encoder
from vidstill.data.datasets.train_clips import ClipsConfig
from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.manifest.open import read_listing
from vidstill.data.manifest.table import Row
from vidstill.data.storage.fetch import BrokenVideo, Place, place_of
from vidstill.data.transforms.frame_sampling import DenseSampling
from vidstill.engine.distributed import Precision, Runtime
from vidstill.pipelines.evaluate.classifier import load_classifier
from vidstill.pipelines.infer.clip_encoder import ClipEncoder, Pool
from vidstill.pipelines.infer.videos import listing_of, looked_at, video_features, video_windows
from vidstill.utils.config_io import from_plain
from vidstill.utils.types import InputError

_FOREIGN_FRAMES = 16, 4  # of the family's clips of videos, and their stride


@dataclass(frozen=True)
class Encoder(ClipEncoder):
    """An encoder that is asked of videos: `encoder = vidstill.load("runs/x")`, `encoder.embed("video.mp4")`."""

    def embed(
        self,
        videos: Place | Sequence[Place],
        *,
        layers: Sequence[int] = (),
        pool: Pool = "mean",
        views: int = 1,
        crops: int = 1,
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
            layers, pool: as for `features`.
            views, crops: how many times, and in how many places, a video is looked at.
            window: seconds; None: it is looked at as in a test, in views.
            hop: seconds from the start of a window to that of the next; None: the windows follow one another.
            batch: windows that go through the encoder at once.

        Raises:
            BrokenVideo: one does not decode.
            InputError: what is asked for is not there.
        """
        if not isinstance(videos, str | Path):
            return [
                self.embed(
                    each, layers=layers, pool=pool, views=views, crops=crops, window=window, hop=hop, batch=batch
                )
                for each in videos
            ]
        place = place_of(videos)
        look, cut = looked_at(self, views=views, crops=crops, window=window, hop=hop)
        if cut is None:
            broken: dict[int, str] = {}
            listing = listing_of([Row(place, None)])
            found = next(video_features(self, listing, look, layers=layers, pool=pool, broken=broken), None)
            if found is None:
                raise BrokenVideo(broken[0])
            features = found[1]
        else:
            parts = list(video_windows(self, place, cut, look, layers=layers, pool=pool, batch=batch))
            features = {name: torch.cat([part.features[name] for part in parts]) for name in self.names(layers)}
        return next(iter(features.values())) if len(features) == 1 else features

    def predict(self, video: str | Path, *, top: int = 5) -> list[tuple[str, float]]:
        """The most probable classes of one video, the first first, over all the views of its test.

        Raises:
            InputError: it was not fine-tuned, there is no such video, or it does not decode.
        """
        listing = read_listing(place_of(str(video)))
        if len(listing.rows) > 1:
            raise InputError(f"{video} holds {len(listing.rows)} videos; give one, or vidstill.predict all of them")
        found = self.probabilities(ViewClips(listing, self.fine_tuned()[1])[0].clip)
        return [
            (self.classes[label], found[label].item())
            for label in found.argsort(descending=True, stable=True)[:top].tolist()
        ]


def load(source: str, *, precision: Precision = "auto", runtime: Runtime | None = None) -> Encoder:
    """The encoder of a run's folder or of a file of weights, ours or the authors'.

    Raises:
        InputError: there is none that is known here.
    """
    runtime = runtime or Runtime(precision)
    weights = read_known(source)
    if weights.about.get("kind") == "classifier":
        loaded, weights = load_classifier(weights)
        classifier = loaded.to(runtime.device).eval()
        norm = nn.Identity() if classifier.config.pooling == "first" else classifier.norm
        classes = tuple(weights.about["classes"])
        tested = from_plain(ViewsConfig, weights.about["views"])
        views = replace(tested, views=1, crops=1)
        return Encoder(classifier.encoder, norm, classifier, classes, views, source, runtime, test_views=tested)
    config = encoder_config(weights)
    model = config.build()
    start_encoder(model, weights, config)
    if stated := weights.about.get("views"):
        views = from_plain(ViewsConfig, stated)
    else:
        views = _foreign_views(config.tubelet[0]) if "layout" in weights.about else _views(weights)
    return Encoder(model.to(runtime.device).eval(), nn.Identity(), None, (), views, source, runtime)


def _views(weights: Weights) -> ViewsConfig:
    """One view, of our file's: a clip of its pre-training."""
    clips = from_plain(ClipsConfig, _recipe(weights)["clips"])
    return ViewsConfig(sampling=clips.sampling, views=1, crops=1, short_side=min(clips.size), size=clips.size)


def _recipe(weights: Weights) -> Mapping[str, object]:
    recipe = weights.about.get("recipe")
    if not isinstance(recipe, dict) or "clips" not in recipe:
        raise InputError(f"{weights.source} does not say which clips it was trained on; it is no run's of vidstill")
    return recipe


def _foreign_views(tubelet_frames: int) -> ViewsConfig:
    frames, stride = _FOREIGN_FRAMES if tubelet_frames > 1 else (1, 1)
    return ViewsConfig(sampling=DenseSampling(frames=frames, stride=stride), views=1, crops=1)
