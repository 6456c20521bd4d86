"""Packs a data set: its videos made small and quick to decode, in tar shards, with a list of where each one lies."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vidstill.data.manifest.jsonl import labels_to_dict
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import INDEX_FILE
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, fetch_source, format_error
from vidstill.data.storage.tar_writer import ShardWriter
from vidstill.data.tools.inspect import open_split_manifests
from vidstill.data.tools.transcode import TranscodeConfig, TranscodedVideo, transcode_video
from vidstill.parallel.pool import LostTask, map_in_workers
from vidstill.utils.files import PARTIAL_SUFFIX, atomic_write, get_package_version
from vidstill.utils.types import InputError, check_range

PACK_FILE = "pack.json"
SKIPPED_FILE = "left_out.jsonl"
"""Lists the videos that are in no shard, and why."""

CLIPS_PER_SHARD = 256
"""At about 1 MB a clip: much to read in one go, and little to do again after a kill."""

_PACK_VERSION = 1  # to be raised when the same videos and settings give other packs
_INDEX_PARTS_DIR = "unfinished"  # folder of the index's parts, one for each shard that is there
_NO_SPLIT = "all"  # what a data set without splits is called in the names of shards


@dataclass(frozen=True, kw_only=True)
class PackResult:
    """What is in packs.

    Args:
        before, after: bytes of the videos' files.
        skipped: the videos that are in no shard, each with the reason.
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
    """Packs every split of a data set into a folder, which is a data set then; what is already there is kept.

    A shard is whole or absent, and the index, which makes the folder a data set, comes last; so the same call goes on
    wherever it was stopped, and ends with the same bytes. Videos that do not decode are left out; those of the val
    split stay in the index as rows that say so, so that a test still reports them.

    Args:
        clips_per_shard: videos of the data set for each shard, in its order.
        root, fold: as for `open_manifest`.
        workers: processes; each holds some videos in memory.
        progress: is told how many videos are dealt with, and how many there are.

    Raises:
        InputError: it is no data set, no video of it decodes, or the folder holds something else or cannot be written.
        Unreachable: a place does not answer.
    """
    check_range(1, math.inf, clips_per_shard=clips_per_shard)
    splits = open_split_manifests(data, root=root, fold=fold)
    _claim(out, splits, config, clips_per_shard)
    if not (out / INDEX_FILE).is_file():
        _write_shards(out, splits, config, clips_per_shard, workers, progress)
        _write_index(out, splits, clips_per_shard)
    if progress:
        progress(videos := sum(len(listing.rows) for listing in splits.values()), videos)
    _remove_index_parts(out)
    return _read_result(out)


def _claim(out: Path, splits: Mapping[str, Manifest], config: TranscodeConfig, clips_per_shard: int) -> None:
    """Says in the folder what it is for, unless it is for something else."""
    settings = {
        **asdict(config),
        "crf": config.effective_crf,
        "clips_per_shard": clips_per_shard,
        "packing": _PACK_VERSION,
    }
    described = {
        "data": {split: {"videos": len(at.rows), "fingerprint": at.fingerprint} for split, at in splits.items()},
        "settings": settings,
    }
    path = out / PACK_FILE
    if path.is_file():
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError:
            found = {}
        for part, what in (("data", "of other data"), ("settings", "with other settings")):
            if found.get(part) != described[part]:
                raise InputError(f"{out} holds packs that were made {what} ({path}); choose another folder with --out")
        return
    if out.exists() and (not out.is_dir() or any(not _ours(each.name) for each in out.iterdir())):
        raise InputError(f"{out} is there and holds no packs; choose another folder with --out")
    try:
        (out / _INDEX_PARTS_DIR).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made ({error.strerror}); choose another folder with --out") from error
    sources = {"sources": {split: str(at.source) for split, at in splits.items()}}
    versions = {"versions": {name: get_package_version(name) for name in ("vidstill", "av")}}
    with atomic_write(path) as file:
        file.write((json.dumps({**described, **sources, **versions}, indent=1) + "\n").encode())


def _ours(name: str) -> bool:
    return name in (_INDEX_PARTS_DIR, PACK_FILE + PARTIAL_SUFFIX) or name.startswith(".")


def _write_shards(
    out: Path,
    splits: Mapping[str, Manifest],
    config: TranscodeConfig,
    clips_per_shard: int,
    workers: int,
    done: Callable[[int, int], None] | None,
) -> None:
    """Writes the shards that are not there yet."""
    total = sum(len(listing.rows) for listing in splits.values())
    dealt = 0
    for split, listing in splits.items():
        spans = _compute_shard_ranges(len(listing.rows), clips_per_shard)
        todo = {n: span for n, span in spans.items() if not _is_shard_complete(out, split, n)}
        dealt += len(listing.rows) - sum(map(len, todo.values()))
        items = [i for span in todo.values() for i in span]
        work = partial(_transcode_row, listing.rows, config)
        results: Any = map_in_workers(work, items, workers=workers)
        with closing(results):
            for n, span in todo.items():
                entries = []
                with atomic_write(_get_shard_path(out, split, n)) as file:
                    shard = ShardWriter(file)
                    for i in span:
                        _, result = next(results)
                        entries.append(
                            _add_to_shard(shard, _get_shard_path(out, split, n).name, split, listing, i, result)
                        )
                        dealt += 1
                        if done:
                            done(dealt, total)
                    shard.close()
                if not any("shard" in entry for entry in entries):
                    _get_shard_path(out, split, n).unlink()  # some readers take an empty one for a fault
                _write_entries(_get_index_part_path(out, split, n), entries)


def _compute_shard_ranges(rows: int, clips_per_shard: int) -> dict[int, range]:
    """The rows of each shard, by its number."""
    starts = range(0, rows, clips_per_shard)
    return {n: range(start, min(start + clips_per_shard, rows)) for n, start in enumerate(starts)}


@dataclass(frozen=True)
class _PackedVideo:
    """A video of the data set: the size of its file, and what became of it, or why nothing did."""

    bytes_before: int
    result: TranscodedVideo | str


def _transcode_row(rows: VideoTable, config: TranscodeConfig, index: int) -> _PackedVideo:
    row = rows[index]
    if row.error:
        return _PackedVideo(0, row.error)
    before = 0
    try:
        here = fetch_source(row.source)
        before = _count_bytes(here)
        return _PackedVideo(before, transcode_video(here, config, row.frame_rate))
    except BrokenVideo as error:
        return _PackedVideo(before, error.reason)
    except OSError as error:
        return _PackedVideo(before, f"cannot be read: {format_error(error)}")


def _count_bytes(here: Path | bytes) -> int:
    if isinstance(here, bytes):
        return len(here)
    return sum(each.stat().st_size for each in here.iterdir()) if here.is_dir() else here.stat().st_size


def _add_to_shard(
    shard: ShardWriter, shard_name: str, split: str, listing: Manifest, index: int, result: _PackedVideo | LostTask
) -> dict[str, Any]:
    """A video's line of the index, and its files in the shard, if it has any."""
    row = listing.rows[index]
    entry: dict[str, Any] = {"path": row.name}
    entry |= labels_to_dict(row, listing.classes)
    if split != _NO_SPLIT:
        entry["split"] = split
    if isinstance(result, LostTask):
        return {**entry, "bytes": 0, "wrong": result.reason}
    video = result.result
    if isinstance(video, str):
        return {**entry, "bytes": result.bytes_before, "wrong": video}
    entry |= {"frames": video.num_frames, "rate": video.frame_rate, "width": video.width, "height": video.height}
    key = f"{index:09d}"  # never the user's path: it may hold dots, and lead anywhere
    offset = shard.add_file(f"{key}.{video.suffix}", video.data)
    shard.add_file(f"{key}.json", json.dumps(entry).encode())
    if len(row.labels) == 1:  # readers of .cls take one number; several stand in the .json
        shard.add_file(f"{key}.cls", str(row.label).encode())
    where = {"shard": shard_name, "offset": offset, "bytes": len(video.data)}
    return {**entry, "codec": video.codec, **where, "bytes_before": result.bytes_before}


def _write_index(out: Path, splits: Mapping[str, Manifest], clips_per_shard: int) -> None:
    """Joins the parts of the index, which comes last."""
    parts = [
        _get_index_part_path(out, split, n)
        for split, listing in splits.items()
        for n in _compute_shard_ranges(len(listing.rows), clips_per_shard)
    ]
    left_out = [entry for part in parts for entry in _read_entries(part) if "wrong" in entry]
    videos = sum(len(listing.rows) for listing in splits.values())
    if len(left_out) == videos:
        raise InputError(f"none of {videos} videos decodes, first {left_out[0]['path']} {left_out[0]['wrong']}")
    classes = next(iter(splits.values())).classes
    if classes:
        with atomic_write(out / "classes.txt") as file:
            file.write("".join(f"{name}\n" for name in classes).encode(errors="replace"))
    if left_out:
        _write_entries(out / SKIPPED_FILE, left_out)
    with atomic_write(out / INDEX_FILE) as file:
        for part in parts:
            for entry in _read_entries(part):
                if "wrong" not in entry or entry.get("split") == "val":
                    file.write(_encode_entry(entry))


def _remove_index_parts(out: Path) -> None:
    """The parts are in the index."""
    parts = out / _INDEX_PARTS_DIR
    if parts.is_dir():
        for part in parts.iterdir():
            part.unlink()
        parts.rmdir()


def _read_result(out: Path) -> PackResult:
    listed = _read_entries(out / SKIPPED_FILE) if (out / SKIPPED_FILE).is_file() else iter(())
    left_out = tuple(f"{entry['path']} {entry['wrong']}" for entry in listed)
    videos = before = after = 0
    for entry in _read_entries(out / INDEX_FILE):
        if "wrong" not in entry:
            videos, before, after = videos + 1, before + entry["bytes_before"], after + entry["bytes"]
    return PackResult(num_videos=videos, bytes_before=before, bytes_after=after, skipped=left_out)


def _get_shard_path(out: Path, split: str, number: int) -> Path:
    return out / f"{split}-{number:06d}.tar"


def _is_shard_complete(out: Path, split: str, number: int) -> bool:
    """Whether a shard is written, or would hold nothing."""
    part = _get_index_part_path(out, split, number)
    return part.is_file() and (
        _get_shard_path(out, split, number).is_file() or all("wrong" in each for each in _read_entries(part))
    )


def _get_index_part_path(out: Path, split: str, number: int) -> Path:
    return out / _INDEX_PARTS_DIR / f"{split}-{number:06d}.jsonl"


def _write_entries(path: Path, entries: list[dict[str, Any]]) -> None:
    with atomic_write(path) as file:
        file.writelines(map(_encode_entry, entries))


def _encode_entry(entry: dict[str, Any]) -> bytes:
    return (json.dumps(entry) + "\n").encode()


def _read_entries(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
