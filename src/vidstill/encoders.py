"""A run or a file of weights as an encoder that is ready to be asked: which layers, pooled how, of which clips."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Num
from torch import Tensor, nn

from vidstill.config import from_plain
from vidstill.data.annotations import Listing
from vidstill.data.datasets import ClipsConfig, ViewClips, ViewsConfig
from vidstill.data.loading import view_batches
from vidstill.data.sampling import DenseSampling, SegmentSampling
from vidstill.downstream.classification import Classifier
from vidstill.engine.runtime import Precision, Runtime
from vidstill.models.vit import ViT
from vidstill.testing import load_classifier
from vidstill.types import Grid, InputError
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
    """

    model: ViT
    norm: nn.Module
    classifier: Classifier | None
    classes: tuple[str, ...]
    views: ViewsConfig
    source: str
    runtime: Runtime
    device_batch: int | None = None  # clips that the device takes at once; None: all that there are

    @property
    def dim(self) -> int:
        return self.model.config.dim

    def seconds(self, rate: float) -> float:
        """How long a clip is that it was trained on, in a video of so many frames per second."""
        sampling = self.views.sampling
        if isinstance(sampling, SegmentSampling):
            return _SEGMENTED_SECONDS
        return sampling.frames * sampling.stride / rate

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
        if self.classifier is None:
            raise InputError(
                f"{self.source} has no classes; fine-tune it first: vidstill finetune … --init {self.source}"
            )
        with torch.inference_mode(), self.runtime.autocast():
            parts = clips.split(self.device_batch or len(clips))
            return torch.cat([self.classifier(self._colours(part)).float().cpu() for part in parts])

    def _features(self, clips: Tensor, layers: Sequence[int], pool: Pool) -> dict[str, Tensor]:
        blocks = [number if number > 0 else len(self.model.blocks) + 1 + number for number in layers]
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
        return Encoder(classifier.encoder, norm, classifier, classes, _views(weights), source, runtime)
    config = encoder_config(weights, named_size(weights))
    model = config.build()
    start_encoder(model, weights, config)
    views = _views(weights) if weights.about else _foreign_views(config.tubelet[0])
    return Encoder(model.to(runtime.device).eval(), nn.Identity(), None, (), views, source, runtime)


def video_features(
    encoder: Encoder,
    listing: Listing,
    views: ViewsConfig,
    *,
    layers: Sequence[int] = (),
    pool: Pool = "mean",
    broken: dict[int, str],
    workers: int = 0,
) -> Iterator[tuple[int, dict[str, Float[Tensor, "..."]]]]:
    """Each video's place in the listing with its features, the mean over its views; every process has its share.

    Args:
        broken: is given the places of those that do not decode, and why.
    """
    runtime = encoder.runtime
    batches = view_batches(
        ViewClips(listing, views),
        videos_per_batch=1,
        broken=broken,
        rank=runtime.rank,
        world=runtime.world,
        workers=workers,
        device=runtime.device,
    )
    for batch in batches:
        found = encoder.features(batch.clip[0], layers=layers, pool=pool)
        yield int(batch.place), {name: each.mean(dim=0) for name, each in found.items()}


def _views(weights: Weights) -> ViewsConfig:
    """One view, of our file's: a classifier's, or the clips of its pre-training."""
    if "views" in weights.about:
        return replace(from_plain(ViewsConfig, weights.about["views"]), views=1, crops=1)
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
