"""Features of videos in files: what is missing is computed, by one process or several; a killed call resumes."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidstill.data.datasets.view_clips import ViewClips
from vidstill.data.datasets.windows import WindowsConfig
from vidstill.data.decode.reader import VideoReader
from vidstill.data.storage.fetch import PathOrUrl
from vidstill.pipelines.infer.embed_config import EmbedConfig
from vidstill.pipelines.infer.encoder import VideoEncoder
from vidstill.pipelines.infer.run import ProgressFn, Record, gather, iter_dataset_clips, iter_window_clips, open_journal
from vidstill.pipelines.infer.videos import SplitChoice, VideoSelection, build_row_manifest, find_videos
from vidstill.pipelines.infer.writers.feature_store import FormatName, name_video_state, open_feature_store
from vidstill.pipelines.infer.writers.features import (
    FeatureKey,
    FeatureTable,
    FileStamp,
    RowFile,
    Segment,
    build_row_dtype,
    encode_labels,
    read_npy_rows,
    read_stamp,
)
from vidstill.pipelines.run_config import Workers
from vidstill.utils.config_io import to_dict
from vidstill.utils.files import find_difference, get_package_version
from vidstill.utils.journal import Journal
from vidstill.utils.locks import lock_outputs
from vidstill.utils.types import InputError

_DEFAULT_CONFIG = EmbedConfig()
_DEFAULT_BATCH = 16  # clips


@dataclass(frozen=True)
class EmbedResult:
    """What the output holds.

    Args:
        videos: Requested videos whose features it holds.
        new_videos: Those that this call added; `changed_videos` of them replace features of an earlier state.
        rows: One per video, or one per window.
        shapes: The shape of a row, by layer.
        broken: The reason for each video that could not be embedded.
        noun: What messages call a video: "image" if all are images, else "video".
    """

    out: Path
    format: str
    videos: int
    new_videos: int
    changed_videos: int
    rows: int
    shapes: Mapping[str, tuple[int, ...]]
    broken: tuple[str, ...]
    noun: str


_State = tuple[FeatureKey, FileStamp]


class _Entry(NamedTuple):
    """A video whose features exist: in the output from `first_row` on, or (None) in an npy file of its own."""

    num_rows: int
    first_row: int | None = None


def embed_videos(
    encoder: VideoEncoder,
    videos: Sequence[PathOrUrl],
    out: Path,
    config: EmbedConfig = _DEFAULT_CONFIG,
    *,
    format: FormatName | None = None,
    split: SplitChoice = "all",
    fold: int = 1,
    workers: Workers = Workers(),
    progress: ProgressFn = lambda done, total: None,
) -> EmbedResult:
    """Write the features of all videos of files, folders, lists and data sets to one file, or to one npy file each.

    Videos whose features are in the output, and whose size and time have not changed, are not computed again; so the
    same call resumes an interrupted one. Videos that do not decode are left out, named, and tried again by the next
    call. Each rank embeds its share; rank 0 writes the output.

    Args:
        out: A file, or for npy a folder; unfinished work is in `OUT.journal`.
        format: None: the suffix of `out` decides; npy if it has none.
        split: The split of data sets that have several.
        fold: Which of the three official splits of UCF101 and HMDB51.
        workers: Decoding processes (windows are decoded in this process), and clips per batch (None: 16).
        progress: Called with the number of finished videos of this rank, and the number in its share.

    Raises:
        InputError: The output holds other features or something else, or no video decodes.
    """
    frames = encoder.views.sampling.num_frames
    selection = find_videos(videos, split=split, fold=fold, clip_frames=frames, by_dataset_name=True)
    job = _EmbedJob(encoder, selection, Path(os.path.abspath(out)), config, format, workers)
    runtime = encoder.runtime
    with runtime.enter_on_main(lock_outputs(job.store.out)):
        states, earlier = runtime.run_on_main(job.plan)
        runtime.set_precision(runtime.broadcast(runtime.precision))
        entries = {index: earlier[state] for index, state in enumerate(states) if state in earlier}
        missing = [index for index in range(len(states)) if index not in entries]
        journal = Journal(job.store.out, job.settings, runtime.rank)
        with open_journal(journal, runtime) if missing else nullcontext():
            computed, broken = job.compute(missing, states, journal, progress) if missing else ({}, {})
            computed, broken = gather(runtime, computed), gather(runtime, broken)
            entries = dict(sorted((entries | computed).items()))
            reasons = tuple(broken.values())
            runtime.run_on_main(lambda: job.write(entries, states, reasons, journal))
    earlier_keys = {key for key, _ in earlier}
    return EmbedResult(
        out=job.store.out,
        format=job.store.format,
        videos=len(entries),
        new_videos=len(computed),
        changed_videos=sum(states[index][0] in earlier_keys for index in computed),
        rows=sum(entry.num_rows for entry in entries.values()),
        shapes=job.shapes,
        broken=reasons,
        noun=job.manifest.noun,
    )


class _EmbedJob:
    """One call of `embed_videos`: what is computed of which videos, and where it goes."""

    def __init__(
        self,
        encoder: VideoEncoder,
        selection: VideoSelection,
        out: Path,
        config: EmbedConfig,
        format: FormatName | None,
        workers: Workers,
    ):
        self.encoder, self.config, self.workers = encoder, config, workers
        self.views, self.windows = config.build_views(encoder.views)
        self.shapes = encoder.compute_shapes(config)
        row_dtype = build_row_dtype(self.shapes, with_times=self.windows is not None)
        self.store = open_feature_store(out, format, row_dtype)
        if selection.skipped:
            raise InputError(next(iter(selection.skipped.values())))
        self.manifest = selection.manifest
        self.keys = list(map(FeatureKey, selection.splits, selection.names))
        self._fingerprint, self._seconds = _hash_encoder(encoder), math.inf

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on, as JSON values; a change of the encoder's path changes nothing."""
        return {
            "encoder": {"fingerprint": self._fingerprint, "source": self.encoder.source},
            "layers": list(self.shapes),
            "pool": self.config.pool,
            "views": to_dict(self.views),
            "window": self.windows and self.windows.window_seconds,
            "hop": self.windows and self.windows.hop_seconds,
            "precision": self.encoder.runtime.precision,
        }

    def plan(self) -> tuple[list[_State], dict[_State, _Entry]]:
        """Return the state of each video, and the states whose features are in the output or the journal.

        A precision that nobody chose is that of the output.

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
        entries: dict[_State, _Entry] = {}
        for record in journal.done().values():
            key, stamp = FeatureKey(*record["key"]), FileStamp(*record["stamp"])
            if self.store.get_row_path(journal.directory, key, stamp).is_file():
                entries[key, stamp] = _Entry(record["rows"])
        if stored:
            spans = zip(stored.keys, stored.stamps, pairwise(stored.offsets.tolist()), strict=True)
            entries |= {(key, stamp): _Entry(end - first, first) for key, stamp, (first, end) in spans}
        return [(key, read_stamp(row.source)) for key, row in zip(self.keys, self.manifest.rows, strict=True)], entries

    def compute(
        self, indices: Sequence[int], states: Sequence[_State], journal: Journal, progress: ProgressFn
    ) -> tuple[dict[int, _Entry], dict[int, str]]:
        """Embed this rank's share into the journal. Return the finished videos, and why the others failed."""
        runtime = self.encoder.runtime
        num_videos = len(indices[runtime.rank :: runtime.world_size])
        computed, broken = dict[int, _Entry](), dict[int, str]()
        progress(0, num_videos)
        for index, records in self._iter_videos(indices, broken):
            key, stamp = states[index]
            path = self.store.get_row_path(journal.directory, key, stamp)
            unfinished = journal.directory / name_video_state(key, stamp)
            file = RowFile(path, unfinished, self.store.row_dtype, self.store.column)
            for record in records:
                file.append({"starts": record.start, "ends": record.end, **record.arrays})
                progress(len(computed) + len(broken) + min(1.0, (record.end or 0) / self._seconds), num_videos)
            if index in broken:
                file.discard()
            else:
                file.finish()
                computed[index] = _Entry(file.num_rows)
                journal.append({"key": key, "stamp": stamp, "rows": file.num_rows})
            progress(len(computed) + len(broken), num_videos)
        progress(num_videos, num_videos)
        return computed, broken

    def _iter_videos(self, indices: Sequence[int], broken: dict[int, str]) -> Iterator[tuple[int, Iterable[Record]]]:
        """Yield the videos of this rank's share with their records, which come while they are read."""
        encoder, rows, batch = self.encoder, self.manifest.rows, self.workers.device_batch or _DEFAULT_BATCH
        if self.windows is not None:
            for index in indices[encoder.runtime.rank :: encoder.runtime.world_size]:
                clips = iter_window_clips(index, rows[index], self._open_windows, self.views, broken=broken)
                yield index, encoder.iter_features(clips, self.config, batch)
            return
        failed: dict[int, str] = {}
        dataset = ViewClips(build_row_manifest(rows[index] for index in indices), self.views)
        clips = iter_dataset_clips(dataset, encoder.runtime, workers=self.workers.num_workers, broken=failed)
        for record in encoder.iter_features(clips, self.config, batch):
            yield indices[record.video], [record]
        broken |= {indices[position]: reason for position, reason in failed.items()}

    def _open_windows(self, video: VideoReader) -> WindowsConfig:
        """Return the windows of an opened video, and keep its length for the progress."""
        assert self.windows is not None
        self._seconds = video.metadata.duration_seconds or math.inf
        return self.windows

    def write(
        self, entries: Mapping[int, _Entry], states: Sequence[_State], reasons: Sequence[str], journal: Journal
    ) -> None:
        """Write the output, unless it would stay the same, and delete the journal.

        Raises:
            InputError: There is nothing to write.
        """
        if not entries:
            journal.remove()
            raise InputError(f"none of {len(reasons)} {self.manifest.noun}s could be embedded; {reasons[0]}")
        stored, segments = self.store.stored, []
        for index, (num_rows, first_row) in entries.items():
            if first_row is None:
                path = self.store.get_row_path(journal.directory, *states[index])
                segments.append(Segment(partial(read_npy_rows, path), 0, num_rows))
            elif stored and stored.segments:
                segments.append(Segment(stored.segments[0].read, first_row, num_rows))
        table = FeatureTable(
            metadata={
                "kind": "features",
                "encoder": {"source": self.encoder.source, "dim": self.encoder.dim},
                "settings": self.settings,
                "versions": {name: get_package_version(name) for name in ("vidstill", "torch", "av")},
                "broken": list(reasons),
            },
            keys=[states[index][0] for index in entries],
            stamps=[states[index][1] for index in entries],
            labels=encode_labels(self.manifest, list(entries)),
            classes=self.manifest.classes,
            offsets=np.cumsum([0, *(entry.num_rows for entry in entries.values())]),
            row_dtype=self.store.row_dtype,
            segments=segments,
        )
        self.store.write(table, changed=any(entry.first_row is None for entry in entries.values()))
        journal.remove()


def _hash_encoder(encoder: VideoEncoder) -> str:
    """Return the SHA-256 of all that features depend on in an encoder, whatever file it was read from."""
    pooling = "mean" if encoder.classifier is None else encoder.classifier.config.pooling
    digest = hashlib.sha256(json.dumps([to_dict(encoder.model.config), pooling]).encode())
    for part in (encoder.model, encoder.norm):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.detach().float().cpu().contiguous().numpy().reshape(-1).view(np.uint8)))
    return digest.hexdigest()
