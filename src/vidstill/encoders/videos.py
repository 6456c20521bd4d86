"""What a trained encoder makes of videos: of the views of many, or of windows over one of any length."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.data.annotations import Listing, Row, Rows
from vidstill.data.datasets import ViewClips, ViewsConfig
from vidstill.data.loading import view_batches
from vidstill.data.sources import BrokenVideo, Piece, Source, name_of
from vidstill.data.windows import WindowsConfig, windows
from vidstill.encoders.clips import ClipEncoder
from vidstill.encoders.pooling import Pool
from vidstill.types import InputError, within


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
