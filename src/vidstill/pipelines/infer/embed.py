"""Features of videos into files: what is there stays, what lacks is computed, by one process or by several."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from vidstill.data.decode.probe import facts
from vidstill.data.storage.fetch import BrokenVideo, Place, name_of
from vidstill.pipelines.infer.embed_config import (
    Ask,
    EmbedConfig,
    Key,
    Splits,
    Stamp,
    Videos,
    ask,
    difference,
    gathered,
)
from vidstill.pipelines.infer.encoder import Encoder
from vidstill.pipelines.infer.journal import Done, Entry, Writer
from vidstill.pipelines.infer.videos import listing_of, video_features, video_windows
from vidstill.pipelines.infer.writers.feature_table import columns_of
from vidstill.pipelines.infer.writers.npy_folder import NpyFolder
from vidstill.pipelines.infer.writers.one_file import OneFile
from vidstill.utils.types import InputError, within

T = TypeVar("T")

FileFormat = Literal["npz", "safetensors", "parquet", "npy"]

_SUFFIXES: Mapping[str, FileFormat] = {".npz": "npz", ".safetensors": "safetensors", ".parquet": "parquet", "": "npy"}

_USUAL = EmbedConfig()

Tell = Callable[[float, float], None]


@dataclass(frozen=True)
class Embedded:
    """What there is in the end.

    Args:
        videos: whose features are there, of those that were asked for.
        embedded: of these, the ones that were not there before; `changed` of them were, of a file that has changed.
        rows: of the videos: one each, or one for each window.
        shapes: of a row, by layer.
        broken: a sentence for each video that could not be embedded.
    """

    out: Path
    format: FileFormat
    videos: int
    embedded: int
    changed: int
    rows: int
    shapes: Mapping[str, tuple[int, ...]]
    broken: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}


def embed(
    encoder: Encoder,
    videos: Sequence[Place],
    out: Path,
    config: EmbedConfig = _USUAL,
    *,
    format: FileFormat | None = None,
    split: Splits = "all",
    fold: int = 1,
    batch: int = 16,
    workers: int = 0,
    done: Tell | None = None,
) -> Embedded:
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
        done: is told of how many videos it is known what they are, of this process's, and how many these are.

    Raises:
        InputError: `out` holds other features, or something else; there are no videos, or none of them decodes.
    """
    within(1, math.inf, batch=batch)
    out, runtime = Path(os.path.abspath(out)), encoder.runtime
    kind = format or _format_of(out)
    asked = ask(encoder, config)
    found = gathered(videos, split=split, fold=fold, frames=asked.views.sampling.frames)
    store: NpyFolder | OneFile = (
        NpyFolder(out, asked.shapes)
        if kind == "npy"
        else OneFile(out, kind, columns_of(asked.shapes, timed=asked.cut is not None))
    )
    begun = runtime.first(lambda: _begin(store, asked, found))
    runtime.use(begun.precision)
    tell = done or (lambda number, of: None)
    made, broken = _made(asked, store, found, begun.todo, batch, workers, tell) if begun.todo else ({}, {})
    for their_made, their_broken in runtime.gathered((made, broken)):
        made |= their_made
        broken |= their_broken
    there = begun.known | made
    entries = {key: there[key] for key in found.places if key in there}
    sentences = tuple(broken[key] for key in found.places if key in broken)
    runtime.first(lambda: _finish(store, asked, found, entries, sentences))
    rows = sum(entry.rows for entry in entries.values())
    changed = len(begun.changed & made.keys())
    return Embedded(out, kind, len(entries), len(made), changed, rows, asked.shapes, sentences)


def _format_of(out: Path) -> FileFormat:
    if out.suffix not in _SUFFIXES:
        raise InputError(
            f"{out.name} does not say its format; end it with .npz, .safetensors or .parquet, or say it with --format"
        )
    return _SUFFIXES[out.suffix]


class _Begun(NamedTuple):
    """
    Args:
        known: the videos that are done.
        todo: those that lack, with their stamps before anything is decoded.
        changed: of these, the ones that were done before they changed.
    """

    known: dict[Key, Entry]
    todo: dict[Key, Stamp]
    changed: set[Key]
    precision: Literal["bf16", "fp16", "fp32"]


def _begin(store: NpyFolder | OneFile, asked: Ask, videos: Videos) -> _Begun:
    """Sees what is there. A precision that nobody has chosen is that of the features that are there.

    Raises:
        InputError: there are features with other settings, or something else; nothing is written then.
    """
    runtime = asked.encoder.runtime
    told = store.told
    before = told or store.parts.told() or {}
    theirs = before.get("settings", {}).get("precision")
    if runtime.asked == "auto" and theirs in ("fp32", "bf16"):
        runtime.use(theirs)
    about = asked.about()
    if told is not None and (other := difference(told["settings"], about["settings"])):
        raise InputError(f"{store.out} holds features {other}; choose another place with --out")
    store.parts.check(about)
    entries = store.entries(videos)
    stamps = {key: videos.stamp(key) for key in videos.places}
    known = {key: entries[key, stamp] for key, stamp in stamps.items() if (key, stamp) in entries}
    todo = {key: stamp for key, stamp in stamps.items() if key not in known}
    if todo:
        store.parts.claim(about)
    return _Begun(known, todo, {key for key, _ in entries} - known.keys(), runtime.precision)


def _finish(
    store: NpyFolder | OneFile, asked: Ask, videos: Videos, entries: Mapping[Key, Entry], broken: tuple[str, ...]
) -> None:
    """
    Raises:
        InputError: there is nothing to write; nothing is left then.
    """
    if not entries:
        store.parts.remove()
        raise InputError(f"none of {len(broken)} videos could be embedded; {broken[0]}")
    store.finish(videos, entries, {**asked.about(), "broken": list(broken)})


def _made(
    asked: Ask,
    store: NpyFolder | OneFile,
    videos: Videos,
    todo: Mapping[Key, Stamp],
    batch: int,
    workers: int,
    tell: Tell,
) -> tuple[dict[Key, Entry], dict[Key, str]]:
    """This process's share of the videos, each kept when it is done; and why there is nothing of the others."""
    runtime = asked.encoder.runtime
    made: dict[Key, Entry] = {}
    broken: dict[Key, str] = {}
    share = len(range(runtime.rank, len(todo), runtime.world))
    tell(0, share)
    with closing(Done(store.parts, str(runtime.rank))) as done, closing(store.writer(runtime.rank)) as writer:
        works = (
            _in_views(asked, videos, todo, broken, batch, workers, writer)
            if asked.cut is None
            else _in_windows(asked, videos, todo, broken, batch, writer, lambda part: tell(len(made) + part, share))
        )
        for key in works:
            made[key] = writer.end(key, todo[key])
            done.note(key, made[key])
            tell(len(made) + len(broken), share)
    tell(share, share)
    return made, broken


def _in_views(
    asked: Ask,
    videos: Videos,
    todo: Mapping[Key, Stamp],
    broken: dict[Key, str],
    batch: int,
    workers: int,
    writer: Writer,
) -> Iterator[Key]:
    """Each video whose row is appended."""
    keys = list(todo)
    found: dict[int, str] = {}
    features = video_features(
        asked.encoder,
        listing_of(videos.row(key) for key in keys),
        asked.views,
        layers=asked.config.layers,
        pool=asked.config.pool,
        broken=found,
        videos=max(1, batch // (asked.views.views * asked.views.crops)),
        workers=workers,
    )
    for place, each in features:
        writer.append({name: vector.numpy()[None] for name, vector in each.items()})
        yield keys[place]
    broken |= {keys[place]: why for place, why in found.items()}


def _in_windows(
    asked: Ask,
    videos: Videos,
    todo: Mapping[Key, Stamp],
    broken: dict[Key, str],
    batch: int,
    writer: Writer,
    part: Callable[[float], None],
) -> Iterator[Key]:
    """Each video whose windows are appended.

    Args:
        part: is told which share of the video in hand is done, as its header states its length.
    """
    runtime, cut = asked.encoder.runtime, asked.cut
    assert cut is not None
    for key in list(todo)[runtime.rank :: runtime.world]:
        row = videos.row(key)
        try:
            if row.wrong:
                raise BrokenVideo(f"{name_of(row.source)} {row.wrong}")
            length = facts(row.source).seconds or np.inf if isinstance(row.source, Path) else np.inf
            for seen in video_windows(
                asked.encoder,
                row.source,
                cut,
                asked.views,
                layers=asked.config.layers,
                pool=asked.config.pool,
                batch=batch,
                rate=row.rate,
            ):
                times = dict(zip(("starts", "ends"), seen.times.T.numpy(), strict=True))
                writer.append({**times, **{name: each.numpy() for name, each in seen.features.items()}})
                part(len(broken) + min(1.0, float(seen.times[-1, 1]) / length))
            yield key
        except BrokenVideo as error:
            writer.drop()
            broken[key] = str(error)
