"""Packs: the videos of a dataset made small and quick to decode, in tar shards, with an index of all of them."""

import io
import json
import logging
import math
import tarfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from vidstill.data.manifest.list_formats import labels_to_dict
from vidstill.data.manifest.made import check_has_files
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_split_manifests
from vidstill.data.manifest.parsed import INDEX_FILE
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, fetch_source, format_error
from vidstill.data.storage.filesystem import stat_source
from vidstill.data.tools.transcode import TranscodeConfig, TranscodedVideo, transcode_video
from vidstill.parallel.pool import LostTask, map_in_workers
from vidstill.utils.checksums import HashingWriter, hash_file, read_checksums, record_checksums, record_digests
from vidstill.utils.files import atomic_write, convert_write_errors, get_package_version, write_bytes
from vidstill.utils.journal import Journal
from vidstill.utils.output_dir import open_output_dir
from vidstill.utils.types import InputError, check_range

PACK_FILE = "pack.json"
SKIPPED_FILE = "skipped.jsonl"
"""Lists the videos that are in no shard, and why."""

CLIPS_PER_SHARD = 256
"""At about 1 MB a clip: much to read in one go, and little to repeat after a kill."""

_PACK_VERSION = 1  # to be raised when the same videos and settings give other packs
_NO_SPLIT = "all"  # stands for the split in the names of shards of a dataset without splits

logger = logging.getLogger("vidstill")


@dataclass(frozen=True, kw_only=True)
class PackResult:
    """The content of a directory of packs."""

    num_videos: int
    bytes_before: int  # size of the packed videos' files
    bytes_after: int
    skipped: tuple[str, ...]  # the videos that are in no shard, each with the reason
    noun: str  # what messages call a video: "image" if all are images


def pack_dataset(
    data: PathOrUrl,
    out: Path,
    config: TranscodeConfig,
    *,
    clips_per_shard: int = CLIPS_PER_SHARD,
    root: PathOrUrl | None = None,
    fold: int = 1,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PackResult:
    """Pack every split of a dataset into a directory, which is a dataset then.

    A shard is complete or absent, and the index, which makes the directory a dataset, comes last; so the same call
    resumes, and ends with the same bytes. Videos that do not decode are skipped; those of the validation split stay in
    the index with their error, so that an evaluation reports them.

    Args:
        clips_per_shard: Videos of the dataset per shard, in its order.
        root, fold: As for `open_manifest`.
        workers: Processes that decode and encode. A local video is in memory frame by frame, one behind an address
            whole; what it is encoded to waits on the disk, in the journal's directory.
        progress: Called with the number of videos that are done, and of all videos.

    Raises:
        InputError: It is no dataset, no video decodes, or the directory holds something else or cannot be written.
        StorageUnreachable: A URL does not answer.
    """
    check_has_files(data)
    check_range(1, math.inf, clips_per_shard=clips_per_shard)
    manifests = open_split_manifests(data, root=root, fold=fold)
    settings = {**asdict(config), "clips_per_shard": clips_per_shard, "pack_version": _PACK_VERSION}
    datasets = {
        split: {"videos": len(each), "fingerprint": each.fingerprint, "source": str(each.source)}
        for split, each in manifests.items()
    }
    identity = {"settings": settings, "splits": list(manifests), "data": datasets}
    versions = {"versions": {name: get_package_version(name) for name in ("vidstill", "av")}}
    num_videos = sum(map(len, manifests.values()))
    with open_output_dir(out, identity, kind="packed videos", marker=PACK_FILE, metadata=versions):
        journal = Journal(out / INDEX_FILE, identity)
        if (out / INDEX_FILE).is_file():
            _warn_of_changes(out, manifests)
        else:
            shards = {
                out / f"{split}-{first // clips_per_shard:06d}.tar": range(len(each))[first : first + clips_per_shard]
                for split, each in manifests.items()
                for first in range(0, len(each), clips_per_shard)
            }
            with journal:
                entries, digests = _write_shards(manifests, shards, config, workers, journal, progress)
                record_digests(out, digests)
                _write_index(out, manifests, entries)
        journal.remove()
        if INDEX_FILE not in read_checksums(out):
            names = (INDEX_FILE, SKIPPED_FILE, "classes.txt")
            record_checksums(out, [out / name for name in names if (out / name).is_file()])
        progress(num_videos, num_videos)
        return _read_result(out, _get_noun(manifests))


def _write_shards(
    manifests: Mapping[str, Manifest],
    shards: Mapping[Path, range],
    config: TranscodeConfig,
    workers: int,
    journal: Journal,
    progress: Callable[[int, int], None],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Write the missing shards; return the entries of all videos in the dataset's order, and each shard's SHA-256."""
    records, done, digests = journal.done(), dict[Path, list[dict[str, Any]]](), dict[str, str]()
    times = {path: _read_times(manifests[path.name.partition("-")[0]], rows) for path, rows in shards.items()}
    for path in shards:
        is_current = path.name in records and records[path.name].get("modified", times[path]) == times[path]
        entries = records[path.name]["entries"] if is_current else []
        if entries and (path.is_file() or all("error" in entry for entry in entries)):
            done[path] = entries
            if path.is_file():
                digests[path.name] = records[path.name].get("sha256") or hash_file(path)
    num_done, num_videos = sum(map(len, done.values())), sum(map(len, shards.values()))
    todo = {
        path: [(path.name.partition("-")[0], row) for row in rows] for path, rows in shards.items() if path not in done
    }
    items = list(chain.from_iterable(todo.values()))
    results: Any = map_in_workers(
        partial(_transcode_row, manifests, config, journal.directory),
        items,
        workers=workers,
        describe=lambda item: manifests[item[0]].rows[item[1]].name,
    )
    with closing(results):
        for path, rows in todo.items():
            entries = []
            with atomic_write(path) as file:
                writer: Any = HashingWriter(file)
                with tarfile.open(fileobj=writer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                    for row in rows:
                        draft = _draft_path(journal.directory, row)
                        entries.append(_add_to_shard(tar, path.name, manifests, row, next(results)[1], draft))
                        draft.unlink(missing_ok=True)
                        progress(num_done + len(entries), num_videos)
            if any("shard" in entry for entry in entries):
                digests[path.name] = writer.hexdigest()
            else:
                path.unlink()  # some readers take an empty one for a fault
            num_done += len(entries)
            done[path] = entries
            record = {"key": path.name, "entries": entries, "sha256": digests.get(path.name)}
            journal.append({**record, "modified": times[path]})
    return [entry for path in shards for entry in done[path]], digests


def _draft_path(directory: Path, item: tuple[str, int]) -> Path:
    """Return where a transcoded video waits until it is in its shard."""
    split, index = item
    return directory / f"{split}-{index:09d}"


def _read_times(manifest: Manifest, rows: Iterable[int]) -> list[int | None]:
    """Return when each video's file was modified, in nanoseconds; None behind a URL."""
    return [(stat_source(manifest.rows[row].source) or (0, None))[1] for row in rows]


def _warn_of_changes(out: Path, manifests: Mapping[str, Manifest]) -> None:
    """Warn of videos that were modified after their pack was complete."""
    packed_at, changed = (out / INDEX_FILE).stat().st_mtime_ns, list[str]()
    for manifest in manifests.values():
        times = _read_times(manifest, range(len(manifest)))
        changed += [manifest.rows.get_name(row) for row, time in enumerate(times) if time and time > packed_at]
    if changed:
        count = f"{len(changed):,} of {sum(map(len, manifests.values())):,} {_get_noun(manifests)}s"
        logger.warning(
            f"{count} were modified after {out} was complete, first {changed[0]}; if their content is another, pack "
            "them into another directory"
        )


def _transcode_row(
    manifests: Mapping[str, Manifest], config: TranscodeConfig, directory: Path, item: tuple[str, int]
) -> tuple[int, TranscodedVideo | str]:
    """Transcode a video to its draft; return the size of its file, and what the draft holds, or why there is none."""
    split, index = item
    row, bytes_before = manifests[split].rows[index], 0
    if row.error:
        return 0, row.error
    try:
        file = fetch_source(row.source)
        if isinstance(file, bytes):
            bytes_before = len(file)
        else:
            bytes_before = sum(each.stat().st_size for each in (file.iterdir() if file.is_dir() else [file]))
    except BrokenVideo as error:
        return bytes_before, error.reason
    except OSError as error:
        return bytes_before, f"cannot be read: {format_error(error)}"
    path = _draft_path(directory, item)
    with convert_write_errors(path), path.open("w+b") as draft:
        try:
            return bytes_before, transcode_video(file, draft, config, row.frame_rate)
        except BrokenVideo as error:
            return bytes_before, error.reason


def _add_to_shard(
    tar: tarfile.TarFile,
    shard_name: str,
    manifests: Mapping[str, Manifest],
    item: tuple[str, int],
    result: tuple[int, TranscodedVideo | str] | LostTask,
    draft: Path,
) -> dict[str, Any]:
    """Add a video's files to the shard, if it has any, and return its line of the index."""
    split, index = item
    row = manifests[split].rows[index]
    entry: dict[str, Any] = {"path": row.name, **labels_to_dict(row, manifests[split].classes)}
    if split != _NO_SPLIT:
        entry["split"] = split
    bytes_before, video = (0, result.reason) if isinstance(result, LostTask) else result
    if isinstance(video, str):
        return {**entry, "bytes": bytes_before, "error": video}
    entry |= {"frames": video.num_frames, "rate": video.frame_rate, "width": video.width, "height": video.height}
    key = f"{index:09d}"  # not the user's path, which may have dots and lead anywhere
    offset, num_bytes = tar.offset + tarfile.BLOCKSIZE, draft.stat().st_size  # a short name's header is one block
    with draft.open("rb") as file:
        _add_file(tar, f"{key}.{video.suffix}", file, num_bytes)
    texts = {"json": json.dumps(entry)}
    if len(row.labels) == 1:  # readers of .cls take one number; several are in the .json
        texts["cls"] = str(row.label)
    for suffix, text in texts.items():
        _add_file(tar, f"{key}.{suffix}", io.BytesIO(text.encode()), len(text.encode()))
    location = {"shard": shard_name, "offset": offset, "bytes": num_bytes}
    return {**entry, "codec": video.codec, **location, "bytes_before": bytes_before}


def _add_file(tar: tarfile.TarFile, name: str, file: io.BufferedIOBase, num_bytes: int) -> None:
    """Append a file, block by block; the same bytes whenever and whoever writes it."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = num_bytes, 0o644
    tar.addfile(info, file)


def _write_index(out: Path, manifests: Mapping[str, Manifest], entries: list[dict[str, Any]]) -> None:
    skipped = [entry for entry in entries if "error" in entry]
    if len(skipped) == len(entries):
        first = f"{skipped[0]['path']} {skipped[0]['error']}"
        raise InputError(f"none of {len(entries)} {_get_noun(manifests)}s decodes, first {first}")
    if classes := next(iter(manifests.values())).classes:
        write_bytes(out / "classes.txt", "".join(f"{name}\n" for name in classes).encode(errors="replace"))
    indexed = [entry for entry in entries if "error" not in entry or entry.get("split") == "val"]
    for name, lines in ((SKIPPED_FILE, skipped), (INDEX_FILE, indexed)):
        if lines:
            write_bytes(out / name, ((json.dumps(entry) + "\n").encode() for entry in lines))


def _get_noun(manifests: Mapping[str, Manifest]) -> str:
    return "image" if all(each.noun == "image" for each in manifests.values()) else "video"


def _read_result(out: Path, noun: str) -> PackResult:
    indexed, skipped = (
        [json.loads(line) for line in path.read_bytes().splitlines()] if (path := out / name).is_file() else []
        for name in (INDEX_FILE, SKIPPED_FILE)
    )
    packed = [entry for entry in indexed if "error" not in entry]
    before, after = (sum(entry[name] for entry in packed) for name in ("bytes_before", "bytes"))
    reasons = tuple(f"{entry['path']} {entry['error']}" for entry in skipped)
    return PackResult(num_videos=len(packed), bytes_before=before, bytes_after=after, skipped=reasons, noun=noun)
