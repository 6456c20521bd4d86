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
from vidstill.data.decode.images import is_picture
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.open import read_listing, splits_of
from vidstill.data.manifest.table import Row
from vidstill.data.storage.fetch import Place, name_of
from vidstill.data.tools.inspect import listings_of
from vidstill.data.tools.probe import stamp
from vidstill.pipelines.infer.clip_encoder import Pool
from vidstill.pipelines.infer.encoder import Encoder
from vidstill.pipelines.infer.videos import looked_at
from vidstill.utils.config_io import to_plain
from vidstill.utils.files import version_of
from vidstill.utils.types import InputError

Splits = Literal["all", "train", "val"]


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Which features of a video.

    Args:
        layers: blocks counted from 1, or backwards from -1; none: the final output, after the last norm.
        pool: what is kept of a clip's tokens: their mean or max, the class token, the mean over space or over time, or
            all tokens.
        views: draws of frames from a video, as in a test; the mean over all views is kept.
        crops: places in each of them.
        window: seconds of a window; None: the video is looked at in views.
        hop: seconds from the start of a window to that of the next; None: the windows follow one another.
    """

    layers: tuple[int, ...] = ()
    pool: Pool = "mean"
    views: int = 1
    crops: int = 1
    window: float | None = None
    hop: float | None = None


class Ask(NamedTuple):
    """What is asked of this encoder, of every video.

    Args:
        shapes: of what is kept of each clip, by the layer's name.
        settings: all that the features depend on, as plain JSON, but for the precision.
    """

    encoder: Encoder
    config: EmbedConfig
    views: ViewsConfig
    cut: WindowsConfig | None
    shapes: Mapping[str, tuple[int, ...]]
    settings: Mapping[str, Any]

    def about(self) -> dict[str, Any]:
        """What a file of features says of itself."""
        source = {"source": self.encoder.source, "dim": self.encoder.dim}
        precision = {"precision": self.encoder.runtime.precision}
        return {
            "kind": "features",
            "encoder": source,
            "settings": {**self.settings, **precision},
            "versions": {name: version_of(name) for name in ("vidstill", "torch", "av")},
        }


def ask(encoder: Encoder, config: EmbedConfig) -> Ask:
    """
    Raises:
        InputError: the encoder has no such layer, or no class token, or the settings contradict one another.
    """
    names = encoder.names(config.layers)
    views, cut = looked_at(encoder, views=config.views, crops=config.crops, window=config.window, hop=config.hop)
    encoder.check_pool(config.pool)
    grid = encoder.model.grid(torch.empty(1, 3, views.sampling.frames, *views.size, device="meta"))
    sides = {"space": (grid.t,), "time": (grid.h, grid.w), "tokens": (grid.t, grid.h, grid.w)}
    settings = {
        "encoder": fingerprint(encoder),
        "layers": list(names),
        "pool": config.pool,
        "views": to_plain(views),
        "window": None if cut is None else cut.seconds,
        "hop": None if cut is None else cut.hop,
    }
    shape = (*sides.get(config.pool, ()), encoder.dim)
    return Ask(encoder, config, views, cut, dict.fromkeys(names, shape), settings)


def fingerprint(encoder: Encoder) -> str:
    """The SHA-256 of all that a clip's features depend on in an encoder: the same whatever file it comes from."""
    pooling = "mean" if encoder.classifier is None else encoder.classifier.config.pooling
    digest = hashlib.sha256(json.dumps([to_plain(encoder.model.config), pooling]).encode())
    for part in (encoder.model, encoder.norm):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.detach().float().cpu().contiguous().numpy().reshape(-1).view(np.uint8)))
    return digest.hexdigest()


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """In words, the first way in which settings differ; nothing where they do not."""
    for name in {**ours, **theirs}:
        their, our = theirs.get(name), ours.get(name)
        if isinstance(their, Mapping) and isinstance(our, Mapping):
            if other := difference(their, our):
                return other
        elif their != our:
            return (
                "of another encoder" if name == "encoder" else f"with {name} {_in_words(their)}, not {_in_words(our)}"
            )
    return ""


def _in_words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


class Key(NamedTuple):
    """What tells a video from all others in a file of features."""

    split: str  # nothing where its data set has none
    name: str  # as the data set states it, bytes that are no UTF-8 written as `\\xff`


class Stamp(NamedTuple):
    """By what a file is known again: its size in bytes, its time in nanoseconds; -1 where it is behind an address."""

    bytes: int
    modified: int


@dataclass(frozen=True)
class Videos:
    """All that is to be embedded, each once, in order.

    Args:
        places: the listing that a video is in, and its place there.
        several: a video may have several of the classes.
    """

    listings: tuple[Listing, ...]
    places: Mapping[Key, tuple[int, int]]
    classes: tuple[str, ...]
    several: bool

    def row(self, key: Key) -> Row:
        listing, place = self.places[key]
        return self.listings[listing].rows[place]

    def stamp(self, key: Key) -> Stamp:
        size, modified = stamp(self.row(key).source) or (-1, None)
        return Stamp(size, -1 if modified is None else modified)

    def labels(self, keys: Sequence[Key]) -> Int64[np.ndarray, "n"] | UInt8[np.ndarray, "n classes"]:
        """Of each video its label, -1 for none; where there may be several, 1 for each class that it has, else 0."""
        if not self.several:
            return np.array([-1 if (label := self.row(key).label) is None else label for key in keys], np.int64)
        hot = np.zeros((len(keys), len(self.classes)), np.uint8)
        for place, key in enumerate(keys):
            hot[place, list(self.row(key).labels)] = 1
        return hot


def gathered(places: Sequence[Place], *, split: Splits = "all", fold: int = 1, frames: int = 1) -> Videos:
    """The videos of files, folders, lists and data sets.

    Args:
        split: which part of a data set that has splits.
        frames: of a clip; a picture has one.

    Raises:
        InputError: there are none, two of them have the same name, or classes that do not agree.
    """
    if not places:
        raise InputError("no videos are named; give files, folders or lists of them")
    parts = [part for place in places for part in _parts(place, split, fold)]
    listings = tuple(listing for _, listing in parts)
    found: dict[Key, tuple[int, int]] = {}
    for number, (part, listing) in enumerate(parts):
        for place in range(len(listing.rows)):
            name = listing.rows.name(place)
            if frames > 1 and is_picture(name):
                source = name_of(listing.rows[place].source)
                raise InputError(f"{source} is a picture, and this encoder looks at clips of {frames} frames")
            key = Key(part, readable(name))
            other, at = found.setdefault(key, (number, place))
            one, two = listings[other].rows[at].source, listing.rows[place].source
            if one != two:
                raise InputError(
                    f"{name_of(one)} and {name_of(two)} have one name, {key.name}; embed them one after the other, "
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
    return Videos(listings, found, classes, any(listing.several for listing in labelled))


def _parts(place: Place, split: Splits, fold: int) -> list[tuple[str, Listing]]:
    """The listings that are wanted, each with the name of its split: none where there are no splits."""
    if not splits_of(place):
        return [("", read_listing(place, split=None if split == "all" else split, fold=fold))]
    if split != "all":
        return [(split, read_listing(place, split=split, fold=fold))]
    return list(listings_of(place, fold=fold).items())


def readable(name: str) -> str:
    """A file's name as text in UTF-8, whatever its bytes are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
