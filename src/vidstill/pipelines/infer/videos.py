"""What a trained encoder makes of videos: of the views of many, or of windows over one of any length."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.data.datasets.view_clips import ViewClips, ViewsConfig
from vidstill.data.datasets.windows import WindowsConfig, iter_windows
from vidstill.data.decode.images import IMAGE_EXTENSIONS, is_image_file
from vidstill.data.decode.reader import VIDEO_EXTENSIONS, read_stream_metadata
from vidstill.data.loader.loader import iter_view_batches
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import list_splits, open_manifest
from vidstill.data.manifest.table import VideoRow, VideoTable
from vidstill.data.storage.fetch import (
    BrokenVideo,
    PathOrUrl,
    ShardMember,
    StorageUnreachable,
    VideoSource,
    parse_path,
    source_name,
)
from vidstill.data.storage.filesystem import base_name, is_file
from vidstill.pipelines.infer.clip_encoder import ClipEncoder, Pooling
from vidstill.utils.types import InputError, check_range


def extract_video_features(
    encoder: ClipEncoder,
    manifest: Manifest,
    views: ViewsConfig,
    *,
    layers: Sequence[int] = (),
    pool: Pooling = "mean",
    per_view: bool = False,
    broken: dict[int, str],
    video_batch: int = 1,
    workers: int = 0,
) -> Iterator[tuple[int, dict[str, Float[Tensor, "..."]]]]:
    """Each video's place in the listing with its features, the mean over its views; every process has its share.

    Args:
        per_view: the features of each view, side by side, rather than their mean.
        broken: is given the places of those that do not decode, and why.
        video_batch: that go through the encoder at once.
    """
    batches = iter_view_batches(
        ViewClips(manifest, views),
        videos_per_batch=video_batch,
        broken_videos=broken,
        rank=encoder.runtime.rank,
        world_size=encoder.runtime.world_size,
        workers=workers,
        device=encoder.runtime.device,
    )
    for batch in batches:
        found = encoder.extract_features(batch.clip.flatten(0, 1), layers=layers, pool=pool)
        parted = {name: each.unflatten(0, (len(batch.video_index), -1)) for name, each in found.items()}
        for number, place in enumerate(batch.video_index.tolist()):
            yield (
                place,
                {name: each[number] if per_view else each[number].mean(dim=0) for name, each in parted.items()},
            )


class WindowFeatures(NamedTuple):
    """Some windows of a video: where each begins and ends in seconds, and their features by name."""

    times: Float[Tensor, "n 2"]
    features: dict[str, Float[Tensor, "n ..."]]


def extract_window_features(
    encoder: ClipEncoder,
    source: VideoSource,
    windows: WindowsConfig,
    views: ViewsConfig,
    *,
    layers: Sequence[int] = (),
    pool: Pooling = "mean",
    batch: int = 16,
    frame_rate: float | None = None,
) -> Iterator[WindowFeatures]:
    """A video's windows with their features, the mean over the crops, so many at once; from its start to its end.

    Args:
        frame_rate: frames per second, where the file states none.

    Raises:
        BrokenVideo: it does not decode, or not to its end; some of its windows may have been given by then.
    """
    check_range(1, math.inf, batch=batch)
    coming, any_seen = iter_windows(source, windows, views, default_frame_rate=frame_rate), False
    while some := list(islice(coming, batch)):
        any_seen = True
        times = torch.tensor([(each.start, each.end) for each in some], dtype=torch.float64)
        found = encoder.extract_features(torch.cat([each.clip for each in some]), layers=layers, pool=pool)
        means = {name: each.unflatten(0, (len(some), -1)).mean(dim=1) for name, each in found.items()}
        yield WindowFeatures(times, means)
    if not any_seen:
        raise BrokenVideo(source, "holds no frame that decodes")


def resolve_views(
    encoder: ClipEncoder, *, temporal_clips: int, spatial_crops: int, window: float | None, hop: float | None
) -> tuple[ViewsConfig, WindowsConfig | None]:
    """How a video is looked at: in views as it was trained to see them, or in windows.

    Raises:
        InputError: both are asked for, or a hop without a window.
    """
    if window is None and hop is not None:
        raise InputError(f"a hop of {hop} seconds is one of windows; say with window how long they are")
    if window is not None and temporal_clips != 1:
        raise InputError(f"{temporal_clips} views of a video and windows over it are asked for; leave one of them out")
    cut = None if window is None else WindowsConfig(window_seconds=window, hop_seconds=window if hop is None else hop)
    return replace(encoder.views, temporal_clips=temporal_clips, spatial_crops=spatial_crops), cut


def build_unlabeled_manifest(rows: Iterable[VideoRow]) -> Manifest:
    """Videos from anywhere, side by side, without their labels."""
    table = VideoTable.from_rows(replace(row, label=None, extra_labels=()) for row in rows)
    return Manifest(table, (), "videos", "what was asked for", table.compute_fingerprint())


SplitChoice = Literal["all", "train", "val"]


_LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".json", ".jsonl", ".list"})


@dataclass(frozen=True)
class InputVideos:
    """Videos in the order of their names.

    Args:
        names: what answers call them: as the only folder or list that was named calls them, else by their paths.
        skipped: what cannot be asked about, and why.
    """

    manifest: Manifest
    names: tuple[str, ...]
    skipped: Mapping[str, str]


def find_videos(
    paths: Sequence[PathOrUrl], *, split: SplitChoice = "all", root: PathOrUrl | None = None, clip_frames: int
) -> InputVideos:
    """The videos of all that is named; what cannot be read is left out.

    Args:
        split: of what has splits.
        root: the folder that a list's paths start from; None: the list's own.
        clip_frames: of a clip; pictures are clips of one.

    Raises:
        InputError: there is nothing that can be asked about.
    """
    if not paths:
        raise InputError("no videos are named; give files, folders or lists of them: vidstill predict RUN VIDEO…")
    found: dict[str, VideoRow] = {}
    left_out: dict[str, str] = {}
    for place in map(parse_path, paths):
        try:
            found |= _name_rows(place, split, root, is_only_path=len(paths) == 1)
        except StorageUnreachable:
            raise
        except InputError as error:
            left_out[str(place)] = str(error)
    for name in [name for name, row in found.items() if clip_frames > 1 and is_image_file(row.name)]:
        del found[name]
        left_out[name] = (
            f"{name} is a picture, a clip of one frame, and the model was trained on clips of {clip_frames}"
        )
    if not found:
        more = f"; {len(left_out) - 1} more cannot be asked about either" if len(left_out) > 1 else ""
        raise InputError(next(iter(left_out.values())) + more)
    names = tuple(sorted(found))
    return InputVideos(build_unlabeled_manifest(found[name] for name in names), names, left_out)


def _name_rows(
    path: PathOrUrl, split: SplitChoice, root: PathOrUrl | None, *, is_only_path: bool
) -> dict[str, VideoRow]:
    """The videos of one place by their names."""
    single = is_file(path) and has_suffix(base_name(path), VIDEO_EXTENSIONS | IMAGE_EXTENSIONS)
    rows = [VideoRow(path, None, name=base_name(path))] if single else _read_rows(path, split, root)
    if [row.source for row in rows] == [path]:
        return {str(path): rows[0]}
    if is_only_path:
        return {row.name: row for row in rows}
    return {
        f"{path}/{row.name}" if isinstance(row.source, ShardMember) else source_name(row.source): row for row in rows
    }


def _read_rows(path: PathOrUrl, split: SplitChoice, root: PathOrUrl | None) -> list[VideoRow]:
    try:
        splits = list_splits(path)
        asked = [None] if not splits else splits if split == "all" else [split]
        return [row for each in asked for row in open_manifest(path, split=each, root=root).rows]
    except StorageUnreachable:
        raise
    except InputError as error:
        if is_file(path) and not has_suffix(base_name(path), _LIST_SUFFIXES):
            try:
                read_stream_metadata(path)
            except InputError:
                raise error from None
            return [VideoRow(path, None, name=base_name(path))]
        raise
