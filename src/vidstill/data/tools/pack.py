"""Packs: the videos of a dataset made small and quick to decode, in tar shards, with an index of all of them."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vidstill.data.manifest.list_formats import labels_to_dict
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import INDEX_FILE
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, fetch_source, format_error
from vidstill.data.storage.tar_writer import ShardWriter
from vidstill.data.tools.inspect import open_split_manifests
from vidstill.data.tools.transcode import TranscodeConfig, TranscodedVideo, transcode_video
from vidstill.parallel.pool import LostTask, map_in_workers
from vidstill.utils.files import atomic_write, get_package_version, open_output_dir, write_bytes
from vidstill.utils.journal import Journal
from vidstill.utils.types import InputError, check_range

PACK_FILE = "pack.json"
SKIPPED_FILE = "skipped.jsonl"
"""Lists the videos that are in no shard, and why."""

CLIPS_PER_SHARD = 256
"""At about 1 MB a clip: much to read in one go, and little to repeat after a kill."""

_PACK_VERSION = 1  # to be raised when the same videos and settings give other packs
_NO_SPLIT = "all"  # stands for the split in the names of shards of a dataset without splits


@dataclass(frozen=True, kw_only=True)
class PackResult:
    """The content of a directory of packs.

    Args:
        bytes_before, bytes_after: Size of the packed videos' files before and after.
        skipped: The videos that are in no shard, each with the reason.
    """

    num_videos: int
    bytes_before: int
    bytes_after: int
    skipped: tuple[str, ...]


def pack_dataset(
    data: PathOrUrl,
    out: Path,
    config: TranscodeConfig,
    *,
    clips_per_shard: int = CLIPS_PER_SHARD,
    root: PathOrUrl | None = None,
    fold: int = 1,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> PackResult:
    """Pack every split of a dataset into a directory, which is a dataset then.

    A shard is complete or absent, and the index, which makes the directory a dataset, comes last; so the same call
    resumes, and ends with the same bytes. Videos that do not decode are skipped; those of the validation split stay in
    the index with their error, so that an evaluation reports them.

    Args:
        clips_per_shard: Videos of the dataset per shard, in its order.
        root, fold: As for `open_manifest`.
        workers: Processes that decode and encode; each holds some videos in memory.
        progress: Called with the number of videos that are done, and of all videos.

    Raises:
        InputError: It is no dataset, no video decodes, or the directory holds something else or cannot be written.
        StorageUnreachable: A URL does not answer.
    """
    check_range(1, math.inf, clips_per_shard=clips_per_shard)
    manifests = open_split_manifests(data, root=root, fold=fold)
    settings = {**asdict(config), "clips_per_shard": clips_per_shard, "pack_version": _PACK_VERSION}
    datasets = {
        split: {"videos": len(each), "fingerprint": each.fingerprint, "source": str(each.source)}
        for split, each in manifests.items()
    }
    identity = {"settings": settings, "splits": list(manifests), "data": datasets}
    versions = {"versions": {name: get_package_version(name) for name in ("vidstill", "av")}}
    with open_output_dir(out, identity, kind="packed videos", marker=PACK_FILE, metadata=versions):
        journal = Journal(out / INDEX_FILE, identity)
        if not (out / INDEX_FILE).is_file():
            with journal:
                entries = _write_shards(out, manifests, config, clips_per_shard, workers, journal, progress)
                _write_index(out, manifests, entries)
        journal.remove()
        if progress:
            progress(num_videos := sum(map(len, manifests.values())), num_videos)
        return _read_result(out)


def _write_shards(
    out: Path,
    manifests: Mapping[str, Manifest],
    config: TranscodeConfig,
    clips_per_shard: int,
    workers: int,
    journal: Journal,
    progress: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    """Write the missing shards, and return the entries of all videos in the order of the dataset."""
    num_videos, num_done = sum(map(len, manifests.values())), 0
    done = journal.done()
    for split, manifest in manifests.items():
        for number, rows in enumerate(_divide_rows(len(manifest), clips_per_shard)):
            entries = done[split, number]["entries"] if (split, number) in done else None
            is_written = (out / f"{split}-{number:06d}.tar").is_file()
            if entries is None or not (is_written or all("error" in entry for entry in entries)):
                done.pop((split, number), None)
            else:
                num_done += len(rows)
    for split, manifest in manifests.items():
        shards = list(enumerate(_divide_rows(len(manifest), clips_per_shard)))
        todo = [(number, rows) for number, rows in shards if (split, number) not in done]
        transcode = partial(_transcode_row, manifest.rows, config)
        results: Any = map_in_workers(transcode, [row for _, rows in todo for row in rows], workers=workers)
        with closing(results):
            for number, rows in todo:
                entries, path = [], out / f"{split}-{number:06d}.tar"
                with atomic_write(path) as file:
                    shard = ShardWriter(file)
                    for row in rows:
                        entries.append(_add_to_shard(shard, path.name, split, manifest, row, next(results)[1]))
                        num_done += 1
                        if progress:
                            progress(num_done, num_videos)
                    shard.close()
                if not any("shard" in entry for entry in entries):
                    path.unlink()  # some readers take an empty one for a fault
                done[split, number] = {"key": [split, number], "entries": entries}
                journal.append(done[split, number])
    return [
        entry
        for split, manifest in manifests.items()
        for number, _ in enumerate(_divide_rows(len(manifest), clips_per_shard))
        for entry in done[split, number]["entries"]
    ]


def _divide_rows(num_rows: int, clips_per_shard: int) -> list[range]:
    """Return the rows of each shard."""
    return [range(first, min(first + clips_per_shard, num_rows)) for first in range(0, num_rows, clips_per_shard)]


@dataclass(frozen=True)
class _PackedVideo:
    """The size of a video's file, and what it was transcoded to, or why it was not."""

    bytes_before: int
    result: TranscodedVideo | str


def _transcode_row(rows: VideoTable, config: TranscodeConfig, index: int) -> _PackedVideo:
    row, bytes_before = rows[index], 0
    if row.error:
        return _PackedVideo(0, row.error)
    try:
        file = fetch_source(row.source)
        bytes_before = _count_bytes(file)
        return _PackedVideo(bytes_before, transcode_video(file, config, row.frame_rate))
    except BrokenVideo as error:
        return _PackedVideo(bytes_before, error.reason)
    except OSError as error:
        return _PackedVideo(bytes_before, f"cannot be read: {format_error(error)}")


def _count_bytes(file: Path | bytes) -> int:
    if isinstance(file, bytes):
        return len(file)
    return sum(each.stat().st_size for each in file.iterdir()) if file.is_dir() else file.stat().st_size


def _add_to_shard(
    shard: ShardWriter, shard_name: str, split: str, manifest: Manifest, index: int, result: _PackedVideo | LostTask
) -> dict[str, Any]:
    """Add a video's files to the shard, if it has any, and return its line of the index."""
    row = manifest.rows[index]
    entry: dict[str, Any] = {"path": row.name, **labels_to_dict(row, manifest.classes)}
    if split != _NO_SPLIT:
        entry["split"] = split
    if isinstance(result, LostTask):
        return {**entry, "bytes": 0, "error": result.reason}
    video = result.result
    if isinstance(video, str):
        return {**entry, "bytes": result.bytes_before, "error": video}
    entry |= {"frames": video.num_frames, "rate": video.frame_rate, "width": video.width, "height": video.height}
    key = f"{index:09d}"  # not the user's path, which may have dots and lead anywhere
    offset = shard.add_file(f"{key}.{video.suffix}", video.data)
    shard.add_file(f"{key}.json", json.dumps(entry).encode())
    if len(row.labels) == 1:  # readers of .cls take one number; several are in the .json
        shard.add_file(f"{key}.cls", str(row.label).encode())
    location = {"shard": shard_name, "offset": offset, "bytes": len(video.data)}
    return {**entry, "codec": video.codec, **location, "bytes_before": result.bytes_before}


def _write_index(out: Path, manifests: Mapping[str, Manifest], entries: list[dict[str, Any]]) -> None:
    skipped = [entry for entry in entries if "error" in entry]
    if len(skipped) == len(entries):
        raise InputError(f"none of {len(entries)} videos decodes, first {skipped[0]['path']} {skipped[0]['error']}")
    if classes := next(iter(manifests.values())).classes:
        write_bytes(out / "classes.txt", "".join(f"{name}\n" for name in classes).encode(errors="replace"))
    if skipped:
        write_bytes(out / SKIPPED_FILE, map(_encode_entry, skipped))
    indexed = (entry for entry in entries if "error" not in entry or entry.get("split") == "val")
    write_bytes(out / INDEX_FILE, map(_encode_entry, indexed))


def _read_result(out: Path) -> PackResult:
    skipped = _read_entries(out / SKIPPED_FILE) if (out / SKIPPED_FILE).is_file() else iter(())
    sizes = [(each["bytes_before"], each["bytes"]) for each in _read_entries(out / INDEX_FILE) if "error" not in each]
    before, after = (sum(column) for column in zip(*sizes, strict=True))
    reasons = tuple(f"{entry['path']} {entry['error']}" for entry in skipped)
    return PackResult(num_videos=len(sizes), bytes_before=before, bytes_after=after, skipped=reasons)


def _encode_entry(entry: dict[str, Any]) -> bytes:
    return (json.dumps(entry) + "\n").encode()


def _read_entries(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
