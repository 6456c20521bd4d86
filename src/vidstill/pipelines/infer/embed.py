"""Features of videos in files: what is missing is computed, by one process or several; a killed call resumes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidstill.data.storage.fetch import PathOrUrl
from vidstill.pipelines.infer.embed_job import EmbedJob, Entry
from vidstill.pipelines.infer.encoder import EmbedConfig, VideoEncoder
from vidstill.pipelines.infer.run import (
    ProgressFn,
    gather,
)
from vidstill.pipelines.infer.videos import SplitChoice
from vidstill.pipelines.infer.writers.feature_store import FormatName
from vidstill.pipelines.workers import Workers
from vidstill.utils.journal import Journal

_DEFAULT_CONFIG = EmbedConfig()


@dataclass(frozen=True)
class EmbedResult:
    """What the output holds.

    Args:
        videos: Requested videos whose features it holds.
        new_videos: Those that this call added; `changed_videos` of them replace features of an earlier state.
        rows: One per video, or one per window.
        shapes: The shape of a row, by layer.
        broken: The reason for each video that could not be embedded.
    """

    out: Path
    format: str
    videos: int
    new_videos: int
    changed_videos: int
    rows: int
    shapes: Mapping[str, tuple[int, ...]]
    broken: tuple[str, ...]


def embed(
    encoder: VideoEncoder,
    videos: Sequence[PathOrUrl],
    out: Path,
    config: EmbedConfig = _DEFAULT_CONFIG,
    *,
    format: FormatName | None = None,
    split: SplitChoice = "all",
    fold: int = 1,
    workers: Workers = Workers(),
    progress: ProgressFn | None = None,
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
    job = EmbedJob(encoder, Path(os.path.abspath(out)), config, format, videos, split, fold)
    runtime = encoder.runtime
    plan = runtime.run_on_main(job.plan)
    runtime.set_precision(plan.precision)
    journal = Journal(job.store.out, job.settings, runtime.rank)
    computed: dict[int, Entry] = {}
    broken: dict[int, str] = {}
    try:
        if plan.missing:
            runtime.run_on_main(journal.open)
            if not runtime.is_main:
                journal.open()
            computed, broken = job.compute(plan.missing, journal, workers, progress or (lambda done, total: None))
        computed, broken = gather(runtime, computed), gather(runtime, broken)
        done = plan.done | computed
        entries = {index: done[index] for index in sorted(done)}
        reasons = tuple(broken.values())
        runtime.run_on_main(lambda: job.write(entries, reasons, journal))
    finally:
        journal.close()
    return EmbedResult(
        out=job.store.out,
        format=job.store.format,
        videos=len(entries),
        new_videos=len(computed),
        changed_videos=len(plan.changed.intersection(computed)),
        rows=sum(entry.num_rows for entry in entries.values()),
        shapes=job.shapes,
        broken=reasons,
    )
