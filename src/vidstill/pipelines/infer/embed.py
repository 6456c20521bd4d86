"""Features of videos into files: what is there stays, what lacks is computed, by one process or by several."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from vidstill.data.decode.reader import read_stream_metadata
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl
from vidstill.pipelines.infer.embed_config import (
    EmbedConfig,
    EmbedRequest,
    EmbedSplitChoice,
    FeatureKey,
    FileStamp,
    VideoIndex,
    build_embed_request,
    describe_difference,
    index_input_videos,
)
from vidstill.pipelines.infer.encoder import VideoEncoder
from vidstill.pipelines.infer.journal import FeatureWriter, JournalEntry, JournalLog
from vidstill.pipelines.infer.videos import build_unlabeled_manifest, extract_video_features, extract_window_features
from vidstill.pipelines.infer.writers.feature_table import build_column_specs
from vidstill.pipelines.infer.writers.npy_folder import NpyFolderStore
from vidstill.pipelines.infer.writers.one_file import SingleFileStore
from vidstill.utils.types import InputError, check_range

T = TypeVar("T")

FeatureFormat = Literal["npz", "safetensors", "parquet", "npy"]

_FORMAT_BY_SUFFIX: Mapping[str, FeatureFormat] = {
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".parquet": "parquet",
    "": "npy",
}

_DEFAULT_CONFIG = EmbedConfig()

_ProgressFn = Callable[[float, float], None]


@dataclass(frozen=True)
class EmbedResult:
    """What there is in the end.

    Args:
        videos: whose features are there, of those that were asked for.
        new_videos: of these, the ones that were not there before; `changed` of them were, of a file that has changed.
        rows: of the videos: one each, or one for each window.
        shapes: of a row, by layer.
        broken: a sentence for each video that could not be embedded.
    """

    out: Path
    format: FeatureFormat
    videos: int
    new_videos: int
    changed_videos: int
    rows: int
    shapes: Mapping[str, tuple[int, ...]]
    broken: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}


def embed(
    encoder: VideoEncoder,
    videos: Sequence[PathOrUrl],
    out: Path,
    config: EmbedConfig = _DEFAULT_CONFIG,
    *,
    format: FeatureFormat | None = None,
    split: EmbedSplitChoice = "all",
    fold: int = 1,
    batch: int = 16,
    workers: int = 0,
    progress: _ProgressFn | None = None,
) -> EmbedResult:
    """The features of all videos of files, folders, lists and data sets, in one file or in one for each.

    Videos whose features are there, and whose files' sizes and times are as they were, are left alone; so the same
    call goes on wherever it was stopped. Those that do not decode are left out and named, and tried again in the next
    call. Each process takes its share; the first puts the file together.

    Args:
        out: a file, or for npy a folder; what is unfinished lies in `OUT.part`.
        format: None: what `out` ends with says it: .npz, .safetensors, .parquet; a folder of npy if it has no end.
        split: which part of a data set that has splits.
        fold: which of the three official splits of UCF101 and HMDB51.
        batch: clips that go through the encoder at once.
        workers: processes that decode; windows are decoded in this one, one video after the other.
        progress: is told of how many videos it is known what they are, of this process's, and how many these are.

    Raises:
        InputError: `out` holds other features, or something else; there are no videos, or none of them decodes.
    """
    check_range(1, math.inf, batch=batch)
    out, runtime = Path(os.path.abspath(out)), encoder.runtime
    kind = format or _infer_format(out)
    asked = build_embed_request(encoder, config)
    found = index_input_videos(videos, split=split, fold=fold, clip_frames=asked.views.sampling.num_frames)
    store: NpyFolderStore | SingleFileStore = (
        NpyFolderStore(out, asked.shapes)
        if kind == "npy"
        else SingleFileStore(out, kind, build_column_specs(asked.shapes, with_times=asked.windows is not None))
    )
    begun = runtime.run_on_main(lambda: _plan_embedding(store, asked, found))
    runtime.set_precision(begun.precision)
    tell = progress or (lambda number, of: None)
    made, broken = _embed_share(asked, store, found, begun.todo, batch, workers, tell) if begun.todo else ({}, {})
    for their_made, their_broken in runtime.all_gather((made, broken)):
        made |= their_made
        broken |= their_broken
    there = begun.entries | made
    entries = {key: there[key] for key in found.locations if key in there}
    sentences = tuple(broken[key] for key in found.locations if key in broken)
    runtime.run_on_main(lambda: _write_features(store, asked, found, entries, sentences))
    rows = sum(entry.num_rows for entry in entries.values())
    changed = len(begun.changed_keys & made.keys())
    return EmbedResult(out, kind, len(entries), len(made), changed, rows, asked.shapes, sentences)


def _infer_format(out: Path) -> FeatureFormat:
    if out.suffix not in _FORMAT_BY_SUFFIX:
        raise InputError(
            f"{out.name} does not say its format; end it with .npz, .safetensors or .parquet, or say it with --format"
        )
    return _FORMAT_BY_SUFFIX[out.suffix]


class _EmbedPlan(NamedTuple):
    """
    Args:
        entries: the videos that are done.
        todo: those that lack, with their stamps before anything is decoded.
        changed_keys: of these, the ones that were done before they changed.
    """

    entries: dict[FeatureKey, JournalEntry]
    todo: dict[FeatureKey, FileStamp]
    changed_keys: set[FeatureKey]
    precision: Literal["bf16", "fp16", "fp32"]


def _plan_embedding(store: NpyFolderStore | SingleFileStore, request: EmbedRequest, videos: VideoIndex) -> _EmbedPlan:
    """Sees what is there. A precision that nobody has chosen is that of the features that are there.

    Raises:
        InputError: there are features with other settings, or something else; nothing is written then.
    """
    runtime = request.encoder.runtime
    told = store.metadata
    before = told or store.journal.read_metadata() or {}
    theirs = before.get("settings", {}).get("precision")
    if runtime.requested_precision == "auto" and theirs in ("fp32", "bf16"):
        runtime.set_precision(theirs)
    about = request.build_metadata()
    if told is not None and (other := describe_difference(told["settings"], about["settings"])):
        raise InputError(f"{store.out} holds features {other}; choose another place with --out")
    store.journal.check_settings(about)
    entries = store.read_entries(videos)
    stamps = {key: videos.get_stamp(key) for key in videos.locations}
    known = {key: entries[key, stamp] for key, stamp in stamps.items() if (key, stamp) in entries}
    todo = {key: stamp for key, stamp in stamps.items() if key not in known}
    if todo:
        store.journal.open(about)
    return _EmbedPlan(known, todo, {key for key, _ in entries} - known.keys(), runtime.precision)


def _write_features(
    store: NpyFolderStore | SingleFileStore,
    request: EmbedRequest,
    videos: VideoIndex,
    entries: Mapping[FeatureKey, JournalEntry],
    broken: tuple[str, ...],
) -> None:
    """
    Raises:
        InputError: there is nothing to write; nothing is left then.
    """
    if not entries:
        store.journal.remove()
        raise InputError(f"none of {len(broken)} videos could be embedded; {broken[0]}")
    store.finish(videos, entries, {**request.build_metadata(), "broken": list(broken)})


def _embed_share(
    request: EmbedRequest,
    store: NpyFolderStore | SingleFileStore,
    videos: VideoIndex,
    todo: Mapping[FeatureKey, FileStamp],
    batch: int,
    workers: int,
    progress: _ProgressFn,
) -> tuple[dict[FeatureKey, JournalEntry], dict[FeatureKey, str]]:
    """This process's share of the videos, each kept when it is done; and why there is nothing of the others."""
    runtime = request.encoder.runtime
    made: dict[FeatureKey, JournalEntry] = {}
    broken: dict[FeatureKey, str] = {}
    share = len(range(runtime.rank, len(todo), runtime.world_size))
    progress(0, share)
    with (
        closing(JournalLog(store.journal, str(runtime.rank))) as done,
        closing(store.open_writer(runtime.rank)) as writer,
    ):
        works = (
            _embed_views(request, videos, todo, broken, batch, workers, writer)
            if request.windows is None
            else _embed_windows(
                request, videos, todo, broken, batch, writer, lambda part: progress(len(made) + part, share)
            )
        )
        for key in works:
            made[key] = writer.finish_video(key, todo[key])
            done.append(key, made[key])
            progress(len(made) + len(broken), share)
    progress(share, share)
    return made, broken


def _embed_views(
    request: EmbedRequest,
    videos: VideoIndex,
    todo: Mapping[FeatureKey, FileStamp],
    broken: dict[FeatureKey, str],
    batch: int,
    workers: int,
    writer: FeatureWriter,
) -> Iterator[FeatureKey]:
    """Each video whose row is appended."""
    keys = list(todo)
    found: dict[int, str] = {}
    features = extract_video_features(
        request.encoder,
        build_unlabeled_manifest(videos.get_row(key) for key in keys),
        request.views,
        layers=request.config.layers,
        pool=request.config.pool,
        broken=found,
        video_batch=max(1, batch // (request.views.temporal_clips * request.views.spatial_crops)),
        workers=workers,
    )
    for place, each in features:
        writer.append({name: vector.numpy()[None] for name, vector in each.items()})
        yield keys[place]
    broken |= {keys[place]: why for place, why in found.items()}


def _embed_windows(
    request: EmbedRequest,
    videos: VideoIndex,
    todo: Mapping[FeatureKey, FileStamp],
    broken: dict[FeatureKey, str],
    batch: int,
    writer: FeatureWriter,
    progress: Callable[[float], None],
) -> Iterator[FeatureKey]:
    """Each video whose windows are appended.

    Args:
        progress: is told which share of the video in hand is done, as its header states its length.
    """
    runtime, cut = request.encoder.runtime, request.windows
    assert cut is not None
    for key in list(todo)[runtime.rank :: runtime.world_size]:
        row = videos.get_row(key)
        try:
            if row.error:
                raise BrokenVideo(row.source, row.error)
            length = (
                read_stream_metadata(row.source).duration_seconds or np.inf if isinstance(row.source, Path) else np.inf
            )
            for seen in extract_window_features(
                request.encoder,
                row.source,
                cut,
                request.views,
                layers=request.config.layers,
                pool=request.config.pool,
                batch=batch,
                frame_rate=row.frame_rate,
            ):
                times = dict(zip(("starts", "ends"), seen.times.T.numpy(), strict=True))
                writer.append({**times, **{name: each.numpy() for name, each in seen.features.items()}})
                progress(len(broken) + min(1.0, float(seen.times[-1, 1]) / length))
            yield key
        except BrokenVideo as error:
            writer.discard_video()
            broken[key] = str(error)
