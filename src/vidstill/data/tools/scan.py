"""The scan of a dataset: every file is decoded once, and the result is a list that is a dataset itself."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from vidstill.data.manifest.list_formats import labels_to_dict
from vidstill.data.manifest.made import check_has_files
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_split_manifests
from vidstill.data.storage.fetch import PathOrUrl, ShardMember, VideoSource, source_name
from vidstill.data.storage.filesystem import stat_source
from vidstill.data.tools.near_duplicates import SIGNATURE_LENGTH
from vidstill.data.tools.probe import SCAN_FIELDS, ScanRecord, init_scan_record, scan_video
from vidstill.data.tools.scan_report import ScanReport, VideoKey, build_scan_report
from vidstill.parallel.pool import WORKER_TIMEOUT_SECONDS, LostTask, map_in_workers
from vidstill.utils.files import atomic_write, check_output_file, convert_write_errors
from vidstill.utils.journal import Journal
from vidstill.utils.types import InputError, check_range

MANIFEST_SUFFIX = ".scan.jsonl"
"""Suffix of the list beside the dataset."""

MIN_FRAMES = 16
"""A video with fewer frames is reported as short: the papers' clips have as many."""

_JOURNAL_SETTINGS = {"scan_version": 1}  # to be raised when a scan finds out other facts


def scan_dataset(
    data: PathOrUrl,
    *,
    out: Path | None = None,
    root: PathOrUrl | None = None,
    fold: int = 1,
    workers: int = 1,
    min_frames: int = MIN_FRAMES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ScanReport:
    """Decode all splits of a dataset, and write a list that is a dataset, with the true length of every video.

    Broken videos stay in the list with their error: training replaces them, evaluation reports them. The records of
    finished files are in `OUT.journal`, so that the same call resumes; the list is complete or absent. A file that is
    in an earlier list and has the same size and time is not decoded again.

    Args:
        out: The list; None for `DATA.scan.jsonl` beside the dataset.
        root, fold: As for `open_manifest`.
        workers: Processes that decode, one video at a time each.
        min_frames: Videos with fewer frames are reported as short.
        progress: Called with the number of files that are done, and of all files.

    Raises:
        InputError: It is no dataset, or the list cannot be written.
        StorageUnreachable: A URL does not answer.
    """
    check_has_files(data)
    check_range(1, math.inf, min_frames=min_frames)
    path = Path(os.path.abspath(get_manifest_path(data) if out is None else out))
    manifests = open_split_manifests(data, root=root, fold=fold)
    _check_manifest_path(path)
    sources = {make_key(row.source, path.parent): row.source for each in manifests.values() for row in each.rows}
    with Journal(path, _JOURNAL_SETTINGS) as journal:
        lines = _read_known_lines(path, journal, sources)
        todo = {key: source for key, source in sources.items() if key not in lines}
        progress(len(lines), len(sources))
        results: Any = map_in_workers(
            scan_video,
            list(todo.values()),
            workers=workers,
            timeout_seconds=WORKER_TIMEOUT_SECONDS,
            describe=source_name,
        )
        with closing(results):
            for (key, source), (_, record) in zip(todo.items(), results, strict=True):
                if isinstance(record, LostTask):
                    record = {**init_scan_record(source), "error": record.reason}
                journal.append(entry := _make_entry(key, {}, record))
                lines[key] = json.dumps(entry).encode()
                progress(len(lines), len(sources))
        with atomic_write(path) as file:
            rows = _write_rows(file, path.parent, manifests, lines)
            report = build_scan_report(path, manifests, rows, min_frames=min_frames, num_decoded=len(todo))
        journal.remove()
    return report


def get_manifest_path(data: PathOrUrl) -> Path:
    """Return the default path of a scan's list."""
    if isinstance(data, str):
        raise InputError(f"{data} is a URL; name the list of the scan with --out")
    path = Path(os.path.abspath(data))  # "." has a name then
    stem = path.name if path.is_dir() else Path(path.name.removesuffix(MANIFEST_SUFFIX)).stem
    return path.with_name(stem + MANIFEST_SUFFIX)


def read_scan_checksums(path: Path) -> dict[VideoKey, str]:
    """Return the SHA-256 of the files in the list of a scan; of those that could not be read there is none."""
    digests = {}
    with path.open("rb") as file:
        for record in filter(None, map(_parse_record, file)):
            if "sha256" in record:
                digests[record["path"], record.get("shard", ""), record.get("offset", 0)] = record["sha256"]
    return digests


def _check_manifest_path(path: Path) -> None:
    """Raise an InputError if a list cannot be written there, or if something else would be lost."""
    check_output_file(path)
    if path.exists():
        with convert_write_errors(path), path.open("rb") as file:
            if _parse_record(file.readline()) is None:
                raise InputError(f"{path} exists and is not the list of a scan; choose another file with --out")


def make_key(source: PathOrUrl | ShardMember, directory: Path) -> VideoKey:
    """Return the paths as the list states them: relative to its directory where they are below it."""
    path = source.shard if isinstance(source, ShardMember) else source
    if isinstance(path, Path):
        path = os.path.abspath(path).removeprefix(f"{str(directory).rstrip('/')}/")
    return (source.name, path, source.offset) if isinstance(source, ShardMember) else (path, "", 0)


def _read_known_lines(path: Path, journal: Journal, sources: Mapping[VideoKey, VideoSource]) -> dict[VideoKey, bytes]:
    """Return the lines of unchanged files: those of an earlier list that can be recognized, and the journal's."""
    unchanged: dict[VideoKey, bytes] = {}
    with open(path if path.is_file() else os.devnull, "rb") as file:
        for required, lines in (({"sha256", "modified"}, file), (set[str](), journal.lines())):
            for line in lines:
                record = _parse_record(line)
                if record is None or not required <= record.keys():
                    continue
                key = record["path"], record.get("shard", ""), record.get("offset", 0)
                if key in sources:
                    current = stat_source(sources[key])  # None for a URL, which is taken as unchanged
                    state = record.get("modified"), record["bytes"]
                    if current is None or (state[0] == current[1] and current[0] in (0, state[1])):
                        unchanged[key] = line
    return unchanged


def _parse_record(line: bytes) -> ScanRecord | None:
    """Return the entries of a scan's line; None if no scan of this version wrote it, or a kill has cut it."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not {"path", "frames", "bytes"} <= record.keys():
        return None
    if not {"sha256", "error"} & record.keys():
        return None
    return record if len(record.get("signature", " " * SIGNATURE_LENGTH)) == SIGNATURE_LENGTH else None


def _make_entry(key: VideoKey, labels: Mapping[str, Any], record: ScanRecord) -> dict[str, Any]:
    """Return a line's entries in their order: `labels` are the dataset's, all other entries the scan's."""
    path, shard, offset = key
    location = {"shard": shard, "offset": offset} if shard else {}
    facts = {name: record[name] for name in SCAN_FIELDS if name in record}
    return {"path": path, **labels, **location, **facts}


def _write_rows(
    file: BinaryIO, directory: Path, manifests: Mapping[str, Manifest], lines: Mapping[VideoKey, bytes]
) -> Iterator[tuple[VideoKey, str, ScanRecord]]:
    """Write the line of each row, then yield its key, its split and its record."""
    for split, manifest in manifests.items():
        for row in manifest.rows:
            key = make_key(row.source, directory)
            labels, record = labels_to_dict(row, manifest.classes), json.loads(lines[key])
            if split in ("train", "val"):
                labels["split"] = split
            file.write((json.dumps(_make_entry(key, labels, record)) + "\n").encode())
            yield key, split, record
