"""What is asked for: which features, of which videos, and what one may call them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.datasets.windows import WindowsConfig
from vidstill.data.decode.images import is_image_file
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import list_splits, open_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import PathOrUrl, source_name
from vidstill.data.tools.inspect import open_split_manifests
from vidstill.data.tools.probe import stat_source
from vidstill.pipelines.infer.clip_encoder import Pooling
from vidstill.pipelines.infer.encoder import VideoEncoder
from vidstill.pipelines.infer.videos import resolve_views
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import get_package_version
from vidstill.utils.types import InputError

EmbedSplitChoice = Literal["all", "train", "val"]


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Which features of a video.

    Args:
        layers: blocks counted from 1, or backwards from -1; none: the final output, after the last norm.
        pool: what is kept of a clip's tokens: their mean or max, the class token, the mean over space or over time, or
            all tokens.
        temporal_clips: draws of frames from a video, as in a test; the mean over all views is kept.
        spatial_crops: places in each of them.
        window: seconds of a window; None: the video is looked at in views.
        hop: seconds from the start of a window to that of the next; None: the windows follow one another.
    """

    layers: tuple[int, ...] = ()
    pool: Pooling = "mean"
    temporal_clips: int = 1
    spatial_crops: int = 1
    window: float | None = None
    hop: float | None = None


class EmbedRequest(NamedTuple):
    """What is asked of this encoder, of every video.

    Args:
        shapes: of what is kept of each clip, by the layer's name.
        settings: all that the features depend on, as plain JSON, but for the precision.
    """

    encoder: VideoEncoder
    config: EmbedConfig
    views: ViewsConfig
    windows: WindowsConfig | None
    shapes: Mapping[str, tuple[int, ...]]
    settings: Mapping[str, Any]

    def build_metadata(self) -> dict[str, Any]:
        """What a file of features says of itself."""
        source = {"source": self.encoder.source, "dim": self.encoder.dim}
        precision = {"precision": self.encoder.runtime.precision}
        return {
            "kind": "features",
            "encoder": source,
            "settings": {**self.settings, **precision},
            "versions": {name: get_package_version(name) for name in ("vidstill", "torch", "av")},
        }


def build_embed_request(encoder: VideoEncoder, config: EmbedConfig) -> EmbedRequest:
    """
    Raises:
        InputError: the encoder has no such layer, or no class token, or the settings contradict one another.
    """
    names = encoder.name_outputs(config.layers)
    views, cut = resolve_views(
        encoder,
        temporal_clips=config.temporal_clips,
        spatial_crops=config.spatial_crops,
        window=config.window,
        hop=config.hop,
    )
    encoder.check_pool(config.pool)
    grid = encoder.model.grid(torch.empty(1, 3, views.sampling.num_frames, *views.size, device="meta"))
    sides = {"space": (grid.t,), "time": (grid.h, grid.w), "tokens": (grid.t, grid.h, grid.w)}
    settings = {
        "encoder": hash_encoder(encoder),
        "layers": list(names),
        "pool": config.pool,
        "views": to_dict(views),
        "window": None if cut is None else cut.window_seconds,
        "hop": None if cut is None else cut.hop_seconds,
    }
    shape = (*sides.get(config.pool, ()), encoder.dim)
    return EmbedRequest(encoder, config, views, cut, dict.fromkeys(names, shape), settings)


def hash_encoder(encoder: VideoEncoder) -> str:
    """The SHA-256 of all that a clip's features depend on in an encoder: the same whatever file it comes from."""
    pooling = "mean" if encoder.classifier is None else encoder.classifier.config.pooling
    digest = hashlib.sha256(json.dumps([to_dict(encoder.model.config), pooling]).encode())
    for part in (encoder.model, encoder.norm):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.detach().float().cpu().contiguous().numpy().reshape(-1).view(np.uint8)))
    return digest.hexdigest()


def describe_difference(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """In words, the first way in which settings differ; nothing where they do not."""
    for name in {**expected, **actual}:
        their, our = actual.get(name), expected.get(name)
        if isinstance(their, Mapping) and isinstance(our, Mapping):
            if other := describe_difference(their, our):
                return other
        elif their != our:
            return (
                "of another encoder"
                if name == "encoder"
                else f"with {name} {_format_value(their)}, not {_format_value(our)}"
            )
    return ""


def _format_value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


class FeatureKey(NamedTuple):
    """What tells a video from all others in a file of features."""

    split: str  # nothing where its data set has none
    name: str  # as the data set states it, bytes that are no UTF-8 written as `\\xff`


class FileStamp(NamedTuple):
    """By what a file is known again: its size in bytes, its time in nanoseconds; -1 where it is behind an address."""

    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class VideoIndex:
    """All that is to be embedded, each once, in order.

    Args:
        locations: the listing that a video is in, and its place there.
        multi_label: a video may have several of the classes.
    """

    manifests: tuple[Manifest, ...]
    locations: Mapping[FeatureKey, tuple[int, int]]
    classes: tuple[str, ...]
    multi_label: bool

    def get_row(self, key: FeatureKey) -> VideoRow:
        listing, place = self.locations[key]
        return self.manifests[listing].rows[place]

    def get_stamp(self, key: FeatureKey) -> FileStamp:
        size, modified = stat_source(self.get_row(key).source) or (-1, None)
        return FileStamp(size, -1 if modified is None else modified)

    def encode_labels(self, keys: Sequence[FeatureKey]) -> Int64[np.ndarray, "n"] | UInt8[np.ndarray, "n classes"]:
        """Of each video its label, -1 for none; where there may be several, 1 for each class that it has, else 0."""
        if not self.multi_label:
            return np.array([-1 if (label := self.get_row(key).label) is None else label for key in keys], np.int64)
        hot = np.zeros((len(keys), len(self.classes)), np.uint8)
        for place, key in enumerate(keys):
            hot[place, list(self.get_row(key).labels)] = 1
        return hot


def index_input_videos(
    paths: Sequence[PathOrUrl], *, split: EmbedSplitChoice = "all", fold: int = 1, clip_frames: int = 1
) -> VideoIndex:
    """The videos of files, folders, lists and data sets.

    Args:
        split: which part of a data set that has splits.
        clip_frames: of a clip; a picture has one.

    Raises:
        InputError: there are none, two of them have the same name, or classes that do not agree.
    """
    if not paths:
        raise InputError("no videos are named; give files, folders or lists of them")
    parts = [part for place in paths for part in _open_splits(place, split, fold)]
    listings = tuple(listing for _, listing in parts)
    found: dict[FeatureKey, tuple[int, int]] = {}
    for number, (part, listing) in enumerate(parts):
        for place in range(len(listing.rows)):
            name = listing.rows.get_name(place)
            if clip_frames > 1 and is_image_file(name):
                source = source_name(listing.rows[place].source)
                raise InputError(f"{source} is a picture, and this encoder looks at clips of {clip_frames} frames")
            key = FeatureKey(part, escape_name(name))
            other, at = found.setdefault(key, (number, place))
            one, two = listings[other].rows[at].source, listing.rows[place].source
            if one != two:
                raise InputError(
                    f"{source_name(one)} and {source_name(two)} have one name, {key.name}; embed them one after the other, "
                    "into different files"
                )
    labelled = [listing for listing in listings if listing.classes]
    for listing in labelled:
        if listing.classes != labelled[0].classes:
            raise InputError(
                f"{labelled[0].source} and {listing.source} have other classes; embed them one after the other, into "
                "different files"
            )
    classes = labelled[0].classes if labelled else ()
    return VideoIndex(listings, found, classes, any(listing.multi_label for listing in labelled))


def _open_splits(path: PathOrUrl, split: EmbedSplitChoice, fold: int) -> list[tuple[str, Manifest]]:
    """The listings that are wanted, each with the name of its split: none where there are no splits."""
    if not list_splits(path):
        return [("", open_manifest(path, split=None if split == "all" else split, fold=fold))]
    if split != "all":
        return [(split, open_manifest(path, split=split, fold=fold))]
    return list(open_split_manifests(path, fold=fold).items())


def escape_name(name: str) -> str:
    """A file's name as text in UTF-8, whatever its bytes are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
