"""Decodes every file of a data set once, and writes what it found as a list that is a data set itself."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

from vidstill.data.manifest.jsonl import stated_labels
from vidstill.data.manifest.manifest import Listing
from vidstill.data.storage.fetch import Piece, Place, Source, reason
from vidstill.data.tools.inspect import listings_of
from vidstill.data.tools.near_duplicates import LETTERS
from vidstill.data.tools.probe import FOUND, Found, scanned, stamp, unseen
from vidstill.data.tools.scan_report import Findings, Scan
from vidstill.parallel.pool import STUCK_SECONDS, Lost, in_workers
from vidstill.utils.files import HALF, written_whole
from vidstill.utils.types import InputError, within

MANIFEST = ".scan.jsonl"
"""Ends the name of a scan's list, beside the data set that it is of."""

MIN_FRAMES = 16
"""A video with fewer is said to be short: the papers' clips have as many."""

Key = tuple[str, str, int]
"""What a list calls a video: its path, and of a packed one the shard's, and the offset in it."""


def scan(
    data: Place,
    *,
    out: Path | None = None,
    root: Place | None = None,
    fold: int = 1,
    workers: int = 1,
    min_frames: int = MIN_FRAMES,
    done: Callable[[int, int], None] | None = None,
) -> Scan:
    """Decodes all splits of a data set, and writes a list that is a data set: with every video's true length.

    What is broken stays in the list, which says so: training names it and shows another, a test reports it. What is
    known is appended to `OUT.part`, so that the same call goes on wherever it was stopped; the list is whole or absent.
    A file that the list has already, and whose size and time are as they were, is not decoded again.

    Args:
        out: the list to write; None: `DATA.scan.jsonl` beside the data set.
        root, fold: as for `read_listing`.
        workers: processes; each decodes a video at a time, frame by frame.
        min_frames: a video with fewer is said to be short.
        done: is told how many files are known, and how many there are.

    Raises:
        InputError: it is no data set, or the list cannot be written.
        Unreachable: a place does not answer.
    """
    within(1, math.inf, min_frames=min_frames)
    path = Path(os.path.abspath(manifest_of(data) if out is None else out))
    listings = listings_of(data, root=root, fold=fold)
    _claim(path)
    sources = {_key(row.source, path.parent): row.source for at in listings.values() for row in at.rows}
    known = {key: line for key, line in _known(path) if key in sources and _is_still(line, sources[key])}
    todo = {key: source for key, source in sources.items() if key not in known}
    tell = done or (lambda number, of: None)
    tell(len(known), len(sources))
    for key, line in _decoded(todo, _part(path), workers):
        known[key] = line
        tell(len(known), len(sources))
    findings = Findings(path, listings, min_frames, decoded=len(todo))
    _write(path, listings, known, findings)
    return findings.scan()


def manifest_of(data: Place) -> Path:
    """Where the list of a scan goes if nobody says."""
    if isinstance(data, str):
        raise InputError(f"{data} is an address; say with --out where the list of the scan goes")
    place = Path(os.path.abspath(data))  # the name of "." too
    stem = place.name if place.is_dir() else place.name.removesuffix(MANIFEST)
    return place.with_name((stem if place.is_dir() else Path(stem).stem) + MANIFEST)


def _part(path: Path) -> Path:
    return path.with_name(path.name + HALF)


def _claim(path: Path) -> None:
    """Sees to it that nothing else is lost there."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                if _read(file.readline()) is None:
                    raise InputError(f"{path} is there and is no scan's list; choose another file with --out")
        elif path.exists():
            raise InputError(f"{path} is there and is no file; choose another with --out")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({reason(error)}); choose another file with --out") from error


def _key(source: Place | Piece, folder: Path) -> Key:
    """Paths are relative to the list's folder where they lie below it."""
    if isinstance(source, Piece):
        return source.name, _stated(source.shard, folder), source.offset
    return _stated(source, folder), "", 0


def _stated(place: Place, folder: Path) -> str:
    if isinstance(place, str):
        return place
    return os.path.abspath(place).removeprefix(f"{str(folder).rstrip('/')}/")


def _known(path: Path) -> Iterator[tuple[Key, bytes]]:
    """The lines of the last scan, of files that may be known again, and of one that was stopped; what is no line, such
    as one that was cut, is passed by.
    """
    for part in (path, _part(path)):
        if not part.is_file():
            continue
        with part.open("rb") as lines:
            for line in lines:
                found = _read(line)
                if found is not None and (part != path or {"sha256", "modified"} <= found.keys()):
                    yield (found["path"], found.get("shard", ""), found.get("offset", 0)), line


def _read(line: bytes) -> Found | None:
    """What a scan's line states; None if a scan of this kind did not write it."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or not {"path", "frames", "bytes"} <= found.keys():
        return None
    ours = "sha256" in found or "wrong" in found
    return found if ours and len(found.get("looks", " " * LETTERS)) == LETTERS else None


def _is_still(line: bytes, source: Source) -> bool:
    """Whether a file is as it was; what lies behind an address is not asked."""
    now, found = stamp(source), _read(line) or {}
    return now is None or (found.get("modified") == now[1] and now[0] in (0, found["bytes"]))


def _decoded(todo: Mapping[Key, Source], part: Path, workers: int) -> Iterator[tuple[Key, bytes]]:
    """Lines without labels, each of which is kept before it is given."""
    results: Any = in_workers(scanned, list(todo.values()), workers=workers, stuck_seconds=STUCK_SECONDS)
    with closing(results), _appended(part) as file:
        for (key, source), (_, result) in zip(todo.items(), results, strict=True):
            found = {**unseen(source), "wrong": result.why} if isinstance(result, Lost) else result
            line = _line(key, {}, found)
            _append(file, line)
            yield key, line


def _appended(part: Path) -> FileIO:
    """What was cut when an earlier scan was stopped stays a line of its own, which is none."""
    with _writable(part):
        file = part.open("ab", buffering=0)
    if file.tell():
        _append(file, b"\n")
    return file


def _append(file: FileIO, line: bytes) -> None:
    with _writable(file.name):
        while line:
            line = line[file.write(line) :]


@contextmanager
def _writable(path: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({reason(error)}); make room, or make it writable: the same command goes on, "
            "and what was decoded is kept"
        ) from error


def _line(key: Key, told: Mapping[str, Any], found: Found) -> bytes:
    """
    Args:
        told: what the data set says of the video.
    """
    path, shard, offset = key
    where = {"path": path, **told} if not shard else {"path": path, **told, "shard": shard, "offset": offset}
    return (json.dumps({**where, **{name: found[name] for name in FOUND if name in found}}) + "\n").encode()


def _write(path: Path, listings: Mapping[str, Listing], known: Mapping[Key, bytes], findings: Findings) -> None:
    """The list, whole or absent; what was appended is in it then."""
    fresh = path.with_name(f"{path.name}.new")
    with written_whole(fresh) as file:
        for split, listing in listings.items():
            for row in listing.rows:
                key = _key(row.source, path.parent)
                found = _read(known[key])
                assert found is not None
                told = stated_labels(row, listing.classes) | ({"split": split} if split in ("train", "val") else {})
                file.write(_line(key, told, found))
                findings.add(key, split, found)
    fresh.replace(path)
    _part(path).unlink(missing_ok=True)
