"""What a trained encoder makes of videos: of the views of many, or of windows over one of any length."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.datasets.windows import WindowsConfig, windows
from vidstill.data.decode.images import PICTURES, is_picture
from vidstill.data.decode.probe import facts
from vidstill.data.decode.stream import VIDEOS
from vidstill.data.loader.loader import view_batches
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.open import read_listing, splits_of
from vidstill.data.manifest.table import Row, Rows
from vidstill.data.storage.fetch import BrokenVideo, Piece, Place, Source, Unreachable, name_of, place_of
from vidstill.data.storage.filesystem import is_file, last_name
from vidstill.pipelines.infer.clip_encoder import ClipEncoder, Pool
from vidstill.utils.types import InputError, within


def video_features(
    encoder: ClipEncoder,
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
    batches = view_batches(
        ViewClips(listing, views),
        videos_per_batch=videos,
        broken=broken,
        rank=encoder.runtime.rank,
        world=encoder.runtime.world,
        workers=workers,
        device=encoder.runtime.device,
    )
    for batch in batches:
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
    encoder: ClipEncoder,
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
    encoder: ClipEncoder, *, views: int, crops: int, window: float | None, hop: float | None
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


WhichSplit = Literal["all", "train", "val"]


_LISTS = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".list"})


@dataclass(frozen=True)
class Videos:
    """Videos in the order of their names.

    Args:
        names: what answers call them: as the only folder or list that was named calls them, else by their paths.
        left_out: what cannot be asked about, and why.
    """

    listing: Listing
    names: tuple[str, ...]
    left_out: Mapping[str, str]


def find_videos(
    places: Sequence[Place], *, split: WhichSplit = "all", root: Place | None = None, frames: int
) -> Videos:
    """The videos of all that is named; what cannot be read is left out.

    Args:
        split: of what has splits.
        root: the folder that a list's paths start from; None: the list's own.
        frames: of a clip; pictures are clips of one.

    Raises:
        InputError: there is nothing that can be asked about.
    """
    if not places:
        raise InputError("no videos are named; give files, folders or lists of them: vidstill predict RUN VIDEO…")
    found: dict[str, Row] = {}
    left_out: dict[str, str] = {}
    for place in map(place_of, places):
        try:
            found |= _named(place, split, root, alone=len(places) == 1)
        except Unreachable:
            raise
        except InputError as error:
            left_out[str(place)] = str(error)
    for name in [name for name, row in found.items() if frames > 1 and is_picture(row.name)]:
        del found[name]
        left_out[name] = f"{name} is a picture, a clip of one frame, and the model was trained on clips of {frames}"
    if not found:
        more = f"; {len(left_out) - 1} more cannot be asked about either" if len(left_out) > 1 else ""
        raise InputError(next(iter(left_out.values())) + more)
    names = tuple(sorted(found))
    return Videos(listing_of(found[name] for name in names), names, left_out)


def _named(place: Place, split: WhichSplit, root: Place | None, *, alone: bool) -> dict[str, Row]:
    """The videos of one place by their names."""
    single = is_file(place) and has_suffix(last_name(place), VIDEOS | PICTURES)
    rows = [Row(place, None, name=last_name(place))] if single else _rows(place, split, root)
    if [row.source for row in rows] == [place]:
        return {str(place): rows[0]}
    if alone:
        return {row.name: row for row in rows}
    return {f"{place}/{row.name}" if isinstance(row.source, Piece) else name_of(row.source): row for row in rows}


def _rows(place: Place, split: WhichSplit, root: Place | None) -> list[Row]:
    try:
        splits = splits_of(place)
        asked = [None] if not splits else splits if split == "all" else [split]
        return [row for each in asked for row in read_listing(place, split=each, root=root).rows]
    except Unreachable:
        raise
    except InputError as error:
        if is_file(place) and not has_suffix(last_name(place), _LISTS):
            try:
                facts(place)
            except InputError:
                raise error from None
            return [Row(place, None, name=last_name(place))]
        raise
