"""One call of `embed`: what is computed of which videos, what is in the journal, and what the output holds."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.decode.reader import read_stream_metadata
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl
from vidstill.data.tools.probe import stat_source
from vidstill.pipelines.infer.encoder import EmbedConfig, VideoEncoder
from vidstill.pipelines.infer.run import (
    ProgressFn,
    Record,
    iter_dataset_clips,
    iter_window_clips,
    mean_over_views,
    run,
)
from vidstill.pipelines.infer.videos import SplitChoice, build_row_manifest, find_videos
from vidstill.pipelines.infer.writers.feature_store import FormatName, name_video_state, open_feature_store
from vidstill.pipelines.infer.writers.features import (
    FeatureColumn,
    FeatureKey,
    FeatureTable,
    FileStamp,
    RowReader,
    VideoArrays,
    build_column_specs,
    read_npy_rows,
)
from vidstill.pipelines.workers import Workers
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import find_difference, get_package_version
from vidstill.utils.journal import Journal
from vidstill.utils.types import InputError

_DEFAULT_BATCH = 16  # clips


class Entry(NamedTuple):
    """A video whose features exist: in the output from `first_row` on, or (None) in npy files of its own."""

    stamp: FileStamp
    num_rows: int
    first_row: int | None = None


class Plan(NamedTuple):
    """What is done and what is missing, by the index of the video; `changed` videos were done in an earlier state."""

    done: dict[int, Entry]
    missing: dict[int, FileStamp]
    changed: set[int]
    precision: Literal["bf16", "fp16", "fp32"]


class EmbedJob:
    """One call of `embed`: what is computed of which videos, and where it goes."""

    def __init__(
        self,
        encoder: VideoEncoder,
        out: Path,
        config: EmbedConfig,
        format: FormatName | None,
        videos: Sequence[PathOrUrl],
        split: SplitChoice,
        fold: int,
    ):
        self.encoder, self.config = encoder, config
        names = encoder.name_outputs(config.layers)
        self.views, self.windows = config.build_views(encoder)
        encoder.check_pool(config.pool)
        clip = torch.empty(1, 3, self.views.sampling.num_frames, *self.views.size, device="meta")
        grid = encoder.model.grid(clip)
        sides = {"space": (grid.t,), "time": (grid.h, grid.w), "tokens": (grid.t, grid.h, grid.w)}
        self.shapes = dict.fromkeys(names, (*sides.get(config.pool, ()), encoder.dim))
        columns = build_column_specs(self.shapes, with_times=self.windows is not None)
        self.store = open_feature_store(out, format, columns)
        self.columns = {name: columns[name] for name in self.store.columns}
        self.videos = find_videos(
            videos, split=split, fold=fold, clip_frames=self.views.sampling.num_frames, by_dataset_name=True
        )
        if self.videos.skipped:
            raise InputError(next(iter(self.videos.skipped.values())))
        self.keys = list(map(FeatureKey, self.videos.splits, self.videos.names))
        self._fingerprint = hash_encoder(encoder)

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on, as JSON values; a change of the encoder's path changes nothing."""
        return {
            "encoder": {"fingerprint": self._fingerprint, "source": self.encoder.source},
            "layers": list(self.shapes),
            "pool": self.config.pool,
            "views": to_dict(self.views),
            "window": None if self.windows is None else self.windows.window_seconds,
            "hop": None if self.windows is None else self.windows.hop_seconds,
            "precision": self.encoder.runtime.precision,
        }

    def plan(self) -> Plan:
        """Compare the videos with the output and the journal; a precision that nobody chose is that of the output.

        Raises:
            InputError: There are features with other settings, or something else; nothing is written then.
        """
        runtime, stored = self.encoder.runtime, self.store.stored
        unfinished = Journal(self.store.out, {}).read_settings()
        previous = stored.metadata["settings"] if stored else unfinished or {}
        if runtime.requested_precision == "auto" and previous.get("precision") in ("fp32", "bf16"):
            runtime.set_precision(previous["precision"])
        if stored and (difference := find_difference(previous, self.settings)):
            raise InputError(
                f"{self.store.out} holds features with other settings ({difference}); choose another path with --out"
            )
        journal = Journal(self.store.out, self.settings)
        journal.check()
        self.store.check(self.keys, resumes=unfinished is not None)
        entries: dict[tuple[FeatureKey, FileStamp], Entry] = {}
        for record in journal.done().values():
            key, stamp = FeatureKey(*record["key"]), FileStamp(*record["stamp"])
            if all(path.is_file() for path in self.store.video_paths(journal.directory, key, stamp).values()):
                entries[key, stamp] = Entry(stamp, record["rows"])
        if stored:
            spans = zip(stored.keys, stored.stamps, pairwise(stored.offsets.tolist()), strict=True)
            entries |= {(key, stamp): Entry(stamp, end - first, first) for key, stamp, (first, end) in spans}
        stamps = {index: _read_stamp(row) for index, row in enumerate(self.videos.manifest.rows)}
        done = {
            index: entries[self.keys[index], stamp]
            for index, stamp in stamps.items()
            if (self.keys[index], stamp) in entries
        }
        missing = {index: stamp for index, stamp in stamps.items() if index not in done}
        earlier = {key for key, _ in entries}
        return Plan(done, missing, {index for index in missing if self.keys[index] in earlier}, runtime.precision)

    def compute(
        self, missing: Mapping[int, FileStamp], journal: Journal, workers: Workers, progress: ProgressFn
    ) -> tuple[dict[int, Entry], dict[int, str]]:
        """Embed this rank's share into the journal. Return the finished videos, and why the others failed."""
        runtime = self.encoder.runtime
        indices = list(missing)
        share = indices[runtime.rank :: runtime.world_size]
        computed: dict[int, Entry] = {}
        broken: dict[int, str] = {}
        progress(0, len(share))
        for index, records in self._iter_videos(indices, broken, workers):
            key, stamp = self.keys[index], missing[index]
            paths = self.store.video_paths(journal.directory, key, stamp)
            arrays = VideoArrays(paths, self.columns, journal.directory / name_video_state(key, stamp))
            seconds = _read_seconds(self.videos.manifest.rows[index]) if self.windows else math.inf
            for record in records:
                arrays.append({"starts": record.start, "ends": record.end, **record.arrays})
                progress(len(computed) + len(broken) + min(1.0, (record.end or 0) / seconds), len(share))
            if index in broken:
                arrays.discard()
            else:
                arrays.finish()
                computed[index] = Entry(stamp, arrays.num_rows)
                journal.append({"key": key, "stamp": stamp, "rows": arrays.num_rows})
            progress(len(computed) + len(broken), len(share))
        progress(len(share), len(share))
        return computed, broken

    def _iter_videos(
        self, indices: Sequence[int], broken: dict[int, str], workers: Workers
    ) -> Iterator[tuple[int, Iterable[Record]]]:
        """Yield the videos of this rank's share with their records, which come while they are read."""
        runtime, rows = self.encoder.runtime, self.videos.manifest.rows
        ask = partial(
            run,
            partial(self.encoder.extract_features, layers=self.config.layers, pool=self.config.pool),
            runtime=runtime,
            batch=workers.device_batch or _DEFAULT_BATCH,
            merge=mean_over_views,
        )
        if self.windows is not None:
            for index in indices[runtime.rank :: runtime.world_size]:
                yield index, ask(iter_window_clips(index, rows[index], self.windows, self.views, broken=broken))
            return
        failed: dict[int, str] = {}
        dataset = ViewClips(build_row_manifest(rows[index] for index in indices), self.views)
        for record in ask(iter_dataset_clips(dataset, runtime, workers=workers.num_workers, broken=failed)):
            yield indices[record.video], [record]
        broken |= {indices[position]: reason for position, reason in failed.items()}

    def write(self, entries: Mapping[int, Entry], reasons: Sequence[str], journal: Journal) -> None:
        """Write the output, unless it would stay the same, and delete the journal.

        Raises:
            InputError: There is nothing to write.
        """
        if not entries:
            journal.remove()
            raise InputError(f"none of {len(reasons)} videos could be embedded; {reasons[0]}")
        keys, stored = [self.keys[index] for index in entries], self.store.stored
        columns = {}
        for name, (dtype, shape) in self.columns.items():
            segments: list[tuple[RowReader, int, int]] = []
            for key, (stamp, num_rows, first_row) in zip(keys, entries.values(), strict=True):
                if first_row is not None and stored and name in stored.columns:
                    segments.append((stored.columns[name].segments[0][0], first_row, num_rows))
                else:
                    path = self.store.video_paths(journal.directory, key, stamp)[name]
                    segments.append((partial(read_npy_rows, path), 0, num_rows))
            columns[name] = FeatureColumn(dtype, shape, segments)
        classes = self.videos.manifest.classes
        metadata = {
            "kind": "features",
            "encoder": {"source": self.encoder.source, "dim": self.encoder.dim},
            "settings": self.settings,
            "versions": {name: get_package_version(name) for name in ("vidstill", "torch", "av")},
            "broken": list(reasons),
        }
        table = FeatureTable(
            metadata=metadata,
            keys=keys,
            stamps=[entry.stamp for entry in entries.values()],
            labels=_encode_labels(self.videos.manifest, list(entries)) if classes else None,
            classes=classes,
            offsets=np.cumsum([0, *(entry.num_rows for entry in entries.values())]),
            columns=columns,
        )
        self.store.write(table, changed=any(entry.first_row is None for entry in entries.values()))
        journal.remove()


def hash_encoder(encoder: VideoEncoder) -> str:
    """Return the SHA-256 of all that features depend on in an encoder, whatever file it was read from."""
    pooling = "mean" if encoder.classifier is None else encoder.classifier.config.pooling
    digest = hashlib.sha256(json.dumps([to_dict(encoder.model.config), pooling]).encode())
    for part in (encoder.model, encoder.norm):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.detach().float().cpu().contiguous().numpy().reshape(-1).view(np.uint8)))
    return digest.hexdigest()


def _encode_labels(
    manifest: Manifest, indices: Sequence[int]
) -> Int64[np.ndarray, "n"] | UInt8[np.ndarray, "n classes"]:
    """Return one label per video, -1 for none; one-hot rows if videos may have several."""
    if not manifest.multi_label:
        return manifest.rows.labels[indices].astype(np.int64)
    return np.stack([manifest.rows.multi_hot(index, len(manifest.classes)) for index in indices]).astype(np.uint8)


def _read_stamp(row: VideoRow) -> FileStamp:
    size, mtime_ns = stat_source(row.source) or (-1, None)
    return FileStamp(size, -1 if mtime_ns is None else mtime_ns)


def _read_seconds(row: VideoRow) -> float:
    """Return the length that a file's header states, for the progress bar; infinity if it is unknown."""
    with suppress(BrokenVideo):
        if isinstance(row.source, Path):
            return read_stream_metadata(row.source).duration_seconds or math.inf
    return math.inf
