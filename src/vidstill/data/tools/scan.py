"""Decodes every file of a data set once, and writes what it found as a list that is a data set itself."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from vidstill.data.manifest.jsonl import labels_to_dict
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.storage.fetch import PathOrUrl, ShardMember, VideoSource, format_error
from vidstill.data.tools.inspect import open_split_manifests
from vidstill.data.tools.near_duplicates import SIGNATURE_LENGTH
from vidstill.data.tools.probe import SCAN_FIELDS, ScanRecord, init_scan_record, scan_video, stat_source
from vidstill.data.tools.scan_report import ScanReport, ScanReportBuilder
from vidstill.parallel.pool import WORKER_TIMEOUT_SECONDS, LostTask, map_in_workers
from vidstill.utils.files import PARTIAL_SUFFIX, atomic_write
from vidstill.utils.types import InputError, check_range

MANIFEST_SUFFIX = ".scan.jsonl"
"""Ends the name of a scan's list, beside the data set that it is of."""

MIN_FRAMES = 16
"""A video with fewer is said to be short: the papers' clips have as many."""

VideoKey = tuple[str, str, int]
"""What a list calls a video: its path, and of a packed one the shard's, and the offset in it."""


def scan_dataset(
    data: PathOrUrl,
    *,
    out: Path | None = None,
    root: PathOrUrl | None = None,
    fold: int = 1,
    workers: int = 1,
    min_frames: int = MIN_FRAMES,
    progress: Callable[[int, int], None] | None = None,
) -> ScanReport:
    """Decodes all splits of a data set, and writes a list that is a data set: with every video's true length.

    What is broken stays in the list, which says so: training names it and shows another, a test reports it. What is
    known is appended to `OUT.part`, so that the same call goes on wherever it was stopped; the list is whole or absent.
    A file that the list has already, and whose size and time are as they were, is not decoded again.

    Args:
        out: the list to write; None: `DATA.scan.jsonl` beside the data set.
        root, fold: as for `open_manifest`.
        workers: processes; each decodes a video at a time, frame by frame.
        min_frames: a video with fewer is said to be short.
        progress: is told how many files are known, and how many there are.

    Raises:
        InputError: it is no data set, or the list cannot be written.
        Unreachable: a place does not answer.
    """
    check_range(1, math.inf, min_frames=min_frames)
    path = Path(os.path.abspath(get_manifest_path(data) if out is None else out))
    listings = open_split_manifests(data, root=root, fold=fold)
    _claim(path)
    sources = {_make_key(row.source, path.parent): row.source for at in listings.values() for row in at.rows}
    known = {
        key: line for key, line in _read_previous_lines(path) if key in sources and _is_unchanged(line, sources[key])
    }
    todo = {key: source for key, source in sources.items() if key not in known}
    tell = progress or (lambda number, of: None)
    tell(len(known), len(sources))
    for key, line in _scan_videos(todo, _get_part_path(path), workers):
        known[key] = line
        tell(len(known), len(sources))
    findings = ScanReportBuilder(path, listings, min_frames, num_decoded=len(todo))
    _write_manifest(path, listings, known, findings)
    return findings.build()


def get_manifest_path(data: PathOrUrl) -> Path:
    """Where the list of a scan goes if nobody says."""
    if isinstance(data, str):
        raise InputError(f"{data} is an address; say with --out where the list of the scan goes")
    place = Path(os.path.abspath(data))  # the name of "." too
    stem = place.name if place.is_dir() else place.name.removesuffix(MANIFEST_SUFFIX)
    return place.with_name((stem if place.is_dir() else Path(stem).stem) + MANIFEST_SUFFIX)


def _get_part_path(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL_SUFFIX)


def _claim(path: Path) -> None:
    """Sees to it that nothing else is lost there."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                if _parse_record(file.readline()) is None:
                    raise InputError(f"{path} is there and is no scan's list; choose another file with --out")
        elif path.exists():
            raise InputError(f"{path} is there and is no file; choose another with --out")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({format_error(error)}); choose another file with --out") from error


def _make_key(source: PathOrUrl | ShardMember, folder: Path) -> VideoKey:
    """Paths are relative to the list's folder where they lie below it."""
    if isinstance(source, ShardMember):
        return source.name, _make_relative(source.shard, folder), source.offset
    return _make_relative(source, folder), "", 0


def _make_relative(place: PathOrUrl, folder: Path) -> str:
    if isinstance(place, str):
        return place
    return os.path.abspath(place).removeprefix(f"{str(folder).rstrip('/')}/")


def _read_previous_lines(path: Path) -> Iterator[tuple[VideoKey, bytes]]:
    """The lines of the last scan, of files that may be known again, and of one that was stopped; what is no line, such
    as one that was cut, is passed by.
    """
    for part in (path, _get_part_path(path)):
        if not part.is_file():
            continue
        with part.open("rb") as lines:
            for line in lines:
                found = _parse_record(line)
                if found is not None and (part != path or {"sha256", "modified"} <= found.keys()):
                    yield (found["path"], found.get("shard", ""), found.get("offset", 0)), line


def _parse_record(line: bytes) -> ScanRecord | None:
    """What a scan's line states; None if a scan of this kind did not write it."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or not {"path", "frames", "bytes"} <= found.keys():
        return None
    ours = "sha256" in found or "wrong" in found
    return found if ours and len(found.get("looks", " " * SIGNATURE_LENGTH)) == SIGNATURE_LENGTH else None


def _is_unchanged(line: bytes, source: VideoSource) -> bool:
    """Whether a file is as it was; what lies behind an address is not asked."""
    now, found = stat_source(source), _parse_record(line) or {}
    return now is None or (found.get("modified") == now[1] and now[0] in (0, found["bytes"]))


def _scan_videos(todo: Mapping[VideoKey, VideoSource], part: Path, workers: int) -> Iterator[tuple[VideoKey, bytes]]:
    """Lines without labels, each of which is kept before it is given."""
    results: Any = map_in_workers(
        scan_video, list(todo.values()), workers=workers, timeout_seconds=WORKER_TIMEOUT_SECONDS
    )
    with closing(results), _open_part(part) as file:
        for (key, source), (_, result) in zip(todo.items(), results, strict=True):
            found = {**init_scan_record(source), "wrong": result.reason} if isinstance(result, LostTask) else result
            line = _encode_record(key, {}, found)
            _append_line(file, line)
            yield key, line


def _open_part(part: Path) -> FileIO:
    """What was cut when an earlier scan was stopped stays a line of its own, which is none."""
    with _translate_write_errors(part):
        file = part.open("ab", buffering=0)
    if file.tell():
        _append_line(file, b"\n")
    return file


def _append_line(file: FileIO, line: bytes) -> None:
    with _translate_write_errors(file.name):
        while line:
            line = line[file.write(line) :]


@contextmanager
def _translate_write_errors(path: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({format_error(error)}); make room, or make it writable: the same command goes on, "
            "and what was decoded is kept"
        ) from error


def _encode_record(key: VideoKey, told: Mapping[str, Any], found: ScanRecord) -> bytes:
    """
    Args:
        told: what the data set says of the video.
    """
    path, shard, offset = key
    where = {"path": path, **told} if not shard else {"path": path, **told, "shard": shard, "offset": offset}
    return (json.dumps({**where, **{name: found[name] for name in SCAN_FIELDS if name in found}}) + "\n").encode()


def _write_manifest(
    path: Path, listings: Mapping[str, Manifest], known: Mapping[VideoKey, bytes], findings: ScanReportBuilder
) -> None:
    """The list, whole or absent; what was appended is in it then."""
    fresh = path.with_name(f"{path.name}.new")
    with atomic_write(fresh) as file:
        for split, listing in listings.items():
            for row in listing.rows:
                key = _make_key(row.source, path.parent)
                found = _parse_record(known[key])
                assert found is not None
                told = labels_to_dict(row, listing.classes) | ({"split": split} if split in ("train", "val") else {})
                file.write(_encode_record(key, told, found))
                findings.add(key, split, found)
    fresh.replace(path)
    _get_part_path(path).unlink(missing_ok=True)
