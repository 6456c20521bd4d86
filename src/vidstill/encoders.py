"""A run or a file of weights as an encoder that is ready to be asked: which layers, pooled how, of which clips."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Num
from torch import Tensor, nn

from vidstill.config import from_plain
from vidstill.data.annotations import Listing, Row, Rows, read_listing
from vidstill.data.datasets import ClipsConfig, ViewClips, ViewsConfig
from vidstill.data.loading import ViewBatch, view_batches
from vidstill.data.sampling import DenseSampling, SegmentSampling, TimedSampling
from vidstill.data.sources import BrokenVideo, Piece, Place, Source, name_of, place_of
from vidstill.data.windows import WindowsConfig, windows
from vidstill.downstream.accuracy import merged
from vidstill.downstream.classification import Classifier
from vidstill.engine.runtime import Precision, Runtime
from vidstill.models.vit import ViT
from vidstill.testing import load_classifier
from vidstill.types import Grid, InputError, within
from vidstill.weights.files import Weights, read_weights
from vidstill.weights.transfer import encoder_config, named_size, start_encoder

Pool = Literal["mean", "max", "class", "space", "time", "tokens"]
"""What is kept of the tokens: their mean or largest values, or the class token, (d); the mean over each frame's places,
(t, d), or over each place's times, (h, w, d); or all of them, (t, h, w, d)."""

_FOREIGN_FRAMES = 16, 4  # of the family's clips of videos, and their stride

_SEGMENTED_SECONDS = 4.0  # of a model that looks at whole videos: as long as Something-Something's usually are


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder on its device, with what it was trained to look at.

    Args:
        norm: what comes behind the encoder's blocks where the encoder has no final norm of its own: its classifier's.
        classifier: the fine-tuned model that the encoder is of, if it is of one; `classes` are its classes' names.
        views: one view of a video, as it was trained to see them; how many more there are, who asks decides.
        test_views: all the views that its classifier is tested with.
    """

    model: ViT
    norm: nn.Module
    classifier: Classifier | None
    classes: tuple[str, ...]
    views: ViewsConfig
    source: str
    runtime: Runtime
    device_batch: int | None = None  # clips that the device takes at once; None: all that there are
    test_views: ViewsConfig | None = None

    @property
    def dim(self) -> int:
        return self.model.config.dim

    def seconds(self, rate: float) -> float:
        """How long a clip is that it was trained on, in a video of so many frames per second."""
        sampling = self.views.sampling
        if isinstance(sampling, SegmentSampling):
            return _SEGMENTED_SECONDS
        return sampling.frames * sampling.stride / (sampling.rate if isinstance(sampling, TimedSampling) else rate)

    def names(self, layers: Sequence[int]) -> tuple[str, ...]:
        """What the outputs of layers are called: `final` where none are named, else `block_6` and so on, each once.

        Raises:
            InputError: a block is named that is not there.
        """
        return tuple(f"block_{block}" for block in self._blocks(layers)) or ("final",)

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

    def features(
        self, clips: Num[Tensor, "b 3 t h w"], *, layers: Sequence[int] = (), pool: Pool = "mean"
    ) -> dict[str, Float[Tensor, "b ..."]]:
        """What it makes of clips, on the CPU in float32, by name: `final`, or `block_6` for each layer.

        Args:
            clips: bytes, or colours in [0, 1].
            layers: blocks counted from 1, or backwards from -1, whose outputs are wanted; none: the final output, after
                the last norm (of a fine-tuned model's mean: what enters its head).

        Raises:
            InputError: a block or a class token is asked for that is not there.
        """
        parts = [self._features(part, layers, pool) for part in clips.split(self.device_batch or len(clips))]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def scores(self, clips: Num[Tensor, "b 3 t h w"]) -> Float[Tensor, "b classes"]:
        """The logits of clips, bytes or colours in [0, 1], on the CPU in float32.

        Raises:
            InputError: it was not fine-tuned.
        """
        classifier = self.fine_tuned()[0]
        with torch.inference_mode(), self.runtime.autocast():
            parts = clips.split(self.device_batch or len(clips))
            return torch.cat([classifier(self._colours(part)).float().cpu() for part in parts])

    def fine_tuned(self) -> tuple[Classifier, ViewsConfig]:
        """The classifier and all the views that it is tested with.

        Raises:
            InputError: it was not fine-tuned.
        """
        if self.classifier is None or self.test_views is None:
            raise InputError(
                f"{self.source} has no classes; fine-tune it first: vidstill finetune … --init {self.source}"
            )
        return self.classifier, self.test_views

    def probabilities(self, views: Num[Tensor, "v 3 t h w"]) -> Float[Tensor, "classes"]:
        """How probable each class is by all of these views of a video, merged as in a test, in float64."""
        return self.merged(self.scores(views))

    @property
    def several(self) -> bool:
        """Whether a clip may show several classes: then each has a probability of its own."""
        return self.classifier is not None and self.classifier.config.several

    def merged(self, logits: Float[Tensor, "views classes"]) -> Float[Tensor, "classes"]:
        """What a test makes of the logits of a video's views."""
        return merged(logits, several=self.several)

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

    def _features(self, clips: Tensor, layers: Sequence[int], pool: Pool) -> dict[str, Tensor]:
        blocks = self._blocks(layers)
        with torch.inference_mode(), self.runtime.autocast():
            clip = self._colours(clips)
            grid = self.model.grid(clip)
            if blocks:
                seen = self.model.look(clip, layers=blocks)
                found = {f"block_{b}": self._pooled(seen.layers[b], seen.class_layers[b], grid, pool) for b in blocks}
            elif self.classifier is not None and pool == "mean":
                found = {"final": self.classifier.features(clip)}
            else:
                final = self.model(clip)
                found = {"final": self._pooled(self.norm(final.tokens), self.norm(final.classes), grid, pool)}
        return {name: each.float().cpu() for name, each in found.items()}

    def _blocks(self, layers: Sequence[int]) -> list[int]:
        depth = len(self.model.blocks)
        for number in layers:
            if not 1 <= abs(number) <= depth:
                raise InputError(
                    f"block {number} is asked of an encoder of {depth} blocks; take 1 to {depth}, or -1 for the last"
                )
        return list(dict.fromkeys(number if number > 0 else depth + 1 + number for number in layers))

    def _pooled(self, tokens: Tensor, classes: Tensor, grid: Grid, pool: Pool) -> Tensor:
        sides = {"t": grid.t, "h": grid.h, "w": grid.w}
        match pool:
            case "mean":
                return tokens.mean(dim=1)
            case "max":
                return tokens.amax(dim=1)
            case "class":
                if not classes.shape[1]:
                    raise InputError(f"{self.source} has no class token; take the mean of its tokens")
                return classes[:, 0]
            case "space":
                return reduce(tokens, "b (t h w) d -> b t d", "mean", **sides)
            case "time":
                return reduce(tokens, "b (t h w) d -> b h w d", "mean", **sides)
            case "tokens":
                return rearrange(tokens, "b (t h w) d -> b t h w d", **sides)

    def _colours(self, clips: Tensor) -> Tensor:
        here = clips.to(self.runtime.device)
        return here.float().div_(255) if here.dtype == torch.uint8 else here


def load(source: str, *, precision: Precision = "auto", runtime: Runtime | None = None) -> Encoder:
    """The encoder of a run's folder or of a file of weights, ours or the authors'.

    Raises:
        InputError: there is none that is known here.
    """
    runtime = runtime or Runtime(precision)
    weights = read_weights(source)
    if weights.about.get("kind") == "classifier":
        classifier = load_classifier(source)[0].to(runtime.device).eval()
        norm = nn.Identity() if classifier.config.pooling == "first" else classifier.norm
        classes = tuple(weights.about["classes"])
        tested = from_plain(ViewsConfig, weights.about["views"])
        views = replace(tested, views=1, crops=1)
        return Encoder(classifier.encoder, norm, classifier, classes, views, source, runtime, test_views=tested)
    config = encoder_config(weights, named_size(weights))
    model = config.build()
    start_encoder(model, weights, config)
    views = _views(weights) if weights.about else _foreign_views(config.tubelet[0])
    return Encoder(model.to(runtime.device).eval(), nn.Identity(), None, (), views, source, runtime)


def video_probabilities(
    encoder: Encoder, listing: Listing, *, broken: dict[int, str], workers: int = 0
) -> Iterator[tuple[int, Float[Tensor, "classes"]]]:
    """Each video's place in the listing with its classes' probabilities, as in a test; every process has its share.

    Args:
        broken: is given the places of those that do not decode, and why.

    Raises:
        InputError: the encoder was not fine-tuned.
    """
    for batch in _video_batches(encoder, listing, encoder.fine_tuned()[1], broken, workers):
        yield int(batch.place), encoder.probabilities(batch.clip[0])


def video_features(
    encoder: Encoder,
    listing: Listing,
    views: ViewsConfig,
    *,
    layers: Sequence[int] = (),
    pool: Pool = "mean",
    each_view: bool = False,
    broken: dict[int, str],
    videos: int = 1,
    workers: int = 0,
) -> Iterator[tuple[int, dict[str, Float[Tensor, "..."]]]]:
    """Each video's place in the listing with its features, the mean over its views; every process has its share.

    Args:
        each_view: the features of each view, side by side, rather than their mean.
        broken: is given the places of those that do not decode, and why.
        videos: that go through the encoder at once.
    """
    for batch in _video_batches(encoder, listing, views, broken, workers, videos):
        found = encoder.features(batch.clip.flatten(0, 1), layers=layers, pool=pool)
        parted = {name: each.unflatten(0, (len(batch.place), -1)) for name, each in found.items()}
        for number, place in enumerate(batch.place.tolist()):
            yield (
                place,
                {name: each[number] if each_view else each[number].mean(dim=0) for name, each in parted.items()},
            )


class Seen(NamedTuple):
    """Some windows of a video: where each begins and ends in seconds, and their features by name."""

    times: Float[Tensor, "n 2"]
    features: dict[str, Float[Tensor, "n ..."]]


def video_windows(
    encoder: Encoder,
    source: Source,
    cut: WindowsConfig,
    views: ViewsConfig,
    *,
    layers: Sequence[int] = (),
    pool: Pool = "mean",
    batch: int = 16,
    rate: float | None = None,
) -> Iterator[Seen]:
    """A video's windows with their features, the mean over the crops, so many at once; from its start to its end.

    Args:
        rate: frames per second, where the file states none.

    Raises:
        BrokenVideo: it does not decode, or not to its end; some of its windows may have been given by then.
    """
    within(1, math.inf, batch=batch)
    coming, any_seen = windows(source, cut, views, rate=rate), False
    while some := list(islice(coming, batch)):
        any_seen = True
        times = torch.tensor([(each.start, each.end) for each in some], dtype=torch.float64)
        found = encoder.features(torch.cat([each.clip for each in some]), layers=layers, pool=pool)
        means = {name: each.unflatten(0, (len(some), -1)).mean(dim=1) for name, each in found.items()}
        yield Seen(times, means)
    if not any_seen:
        raise BrokenVideo(f"{name_of(source)} holds no frame that decodes")


def looked_at(
    encoder: Encoder, *, views: int, crops: int, window: float | None, hop: float | None
) -> tuple[ViewsConfig, WindowsConfig | None]:
    """How a video is looked at: in views as it was trained to see them, or in windows.

    Raises:
        InputError: both are asked for, or a hop without a window.
    """
    if window is None and hop is not None:
        raise InputError(f"a hop of {hop} seconds is one of windows; say with window how long they are")
    if window is not None and views != 1:
        raise InputError(f"{views} views of a video and windows over it are asked for; leave one of them out")
    cut = None if window is None else WindowsConfig(seconds=window, hop=window if hop is None else hop)
    return replace(encoder.views, views=views, crops=crops), cut


def listing_of(rows: Iterable[Row]) -> Listing:
    """Videos from anywhere, side by side, without their labels."""
    found = Rows(Path())
    for row in rows:
        if isinstance(row.source, Piece):
            piece = str(row.source.shard), row.source.offset, row.source.size
            found.add(row.source.name, None, row.frames, row.rate, piece, row.wrong)
        else:
            found.add(str(row.source), None, row.frames, row.rate, wrong=row.wrong)
    return Listing(found, (), "videos", "what was asked for", found.fingerprint())


def _video_batches(
    encoder: Encoder, listing: Listing, views: ViewsConfig, broken: dict[int, str], workers: int, videos: int = 1
) -> Iterator[ViewBatch]:
    """So many videos at a time, of this process's share."""
    return view_batches(
        ViewClips(listing, views),
        videos_per_batch=videos,
        broken=broken,
        rank=encoder.runtime.rank,
        world=encoder.runtime.world,
        workers=workers,
        device=encoder.runtime.device,
    )


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
