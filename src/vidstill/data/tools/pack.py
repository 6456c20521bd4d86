"""Packs a data set: its videos made small and quick to decode, in tar shards, with a list of where each one lies."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vidstill.data.manifest.jsonl import stated_labels
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.open import INDEX
from vidstill.data.manifest.table import Rows
from vidstill.data.storage.fetch import BrokenVideo, Place, fetched, name_of, reason
from vidstill.data.storage.tar_writer import Shard
from vidstill.data.tools.inspect import listings_of
from vidstill.data.tools.transcode import RecodeConfig, Recoded, recoded
from vidstill.parallel.pool import Lost, in_workers
from vidstill.utils.files import HALF, version_of, written_whole
from vidstill.utils.types import InputError, within

PACK_FILE = "pack.json"
LEFT_OUT = "left_out.jsonl"
"""Lists the videos that are in no shard, and why."""

CLIPS_PER_SHARD = 256
"""At about 1 MB a clip: much to read in one go, and little to do again after a kill."""

_PACKING = 1  # to be raised when the same videos and settings give other packs
_PARTS = "unfinished"  # folder of the index's parts, one for each shard that is there
_WHOLE = "all"  # what a data set without splits is called in the names of shards


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What is in packs.

    Args:
        before, after: bytes of the videos' files.
        left_out: the videos that are in no shard, each with the reason.
    """

    videos: int
    before: int
    after: int
    left_out: tuple[str, ...]


def pack(
    data: Place,
    out: Path,
    config: RecodeConfig,
    *,
    clips_per_shard: int = CLIPS_PER_SHARD,
    root: Place | None = None,
    fold: int = 1,
    workers: int = 1,
    done: Callable[[int, int], None] | None = None,
) -> Packed:
    """Packs every split of a data set into a folder, which is a data set then; what is already there is kept.

    A shard is whole or absent, and the index, which makes the folder a data set, comes last; so the same call goes on
    wherever it was stopped, and ends with the same bytes. Videos that do not decode are left out; those of the val
    split stay in the index as rows that say so, so that a test still reports them.

    Args:
        clips_per_shard: videos of the data set for each shard, in its order.
        root, fold: as for `read_listing`.
        workers: processes; each holds some videos in memory.
        done: is told how many videos are dealt with, and how many there are.

    Raises:
        InputError: it is no data set, no video of it decodes, or the folder holds something else or cannot be written.
        Unreachable: a place does not answer.
    """
    within(1, math.inf, clips_per_shard=clips_per_shard)
    splits = listings_of(data, root=root, fold=fold)
    _claim(out, splits, config, clips_per_shard)
    if not (out / INDEX).is_file():
        _pack_all(out, splits, config, clips_per_shard, workers, done)
        _write_index(out, splits, clips_per_shard)
    if done:
        done(videos := sum(len(listing.rows) for listing in splits.values()), videos)
    _tidy(out)
    return _read_back(out)


def _claim(out: Path, splits: Mapping[str, Listing], config: RecodeConfig, clips_per_shard: int) -> None:
    """Says in the folder what it is for, unless it is for something else."""
    settings = {**asdict(config), "crf": config.coarseness, "clips_per_shard": clips_per_shard, "packing": _PACKING}
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
        (out / _PARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be made ({error.strerror}); choose another folder with --out") from error
    sources = {"sources": {split: str(at.source) for split, at in splits.items()}}
    versions = {"versions": {name: version_of(name) for name in ("vidstill", "av")}}
    with written_whole(path) as file:
        file.write((json.dumps({**described, **sources, **versions}, indent=1) + "\n").encode())


def _ours(name: str) -> bool:
    return name in (_PARTS, PACK_FILE + HALF) or name.startswith(".")


def _pack_all(
    out: Path,
    splits: Mapping[str, Listing],
    config: RecodeConfig,
    clips_per_shard: int,
    workers: int,
    done: Callable[[int, int], None] | None,
) -> None:
    """Writes the shards that are not there yet."""
    total = sum(len(listing.rows) for listing in splits.values())
    dealt = 0
    for split, listing in splits.items():
        spans = _spans(len(listing.rows), clips_per_shard)
        todo = {n: span for n, span in spans.items() if not _is_there(out, split, n)}
        dealt += len(listing.rows) - sum(map(len, todo.values()))
        items = [i for span in todo.values() for i in span]
        work = partial(_packed_video, listing.rows, config)
        results: Any = in_workers(work, items, workers=workers)
        with closing(results):
            for n, span in todo.items():
                entries = []
                with written_whole(_shard(out, split, n)) as file:
                    shard = Shard(file)
                    for i in span:
                        _, result = next(results)
                        entries.append(_entry(shard, _shard(out, split, n).name, split, listing, i, result))
                        dealt += 1
                        if done:
                            done(dealt, total)
                    shard.close()
                if not any("shard" in entry for entry in entries):
                    _shard(out, split, n).unlink()  # some readers take an empty one for a fault
                _write_lines(_part(out, split, n), entries)


def _spans(rows: int, clips_per_shard: int) -> dict[int, range]:
    """The rows of each shard, by its number."""
    starts = range(0, rows, clips_per_shard)
    return {n: range(start, min(start + clips_per_shard, rows)) for n, start in enumerate(starts)}


@dataclass(frozen=True)
class _Video:
    """A video of the data set: the size of its file, and what became of it, or why nothing did."""

    before: int
    packed: Recoded | str


def _packed_video(rows: Rows, config: RecodeConfig, index: int) -> _Video:
    row = rows[index]
    if row.wrong:
        return _Video(0, row.wrong)
    before, name = 0, name_of(row.source)
    try:
        here = fetched(row.source)
        before, name = _bytes_of(here), name_of(here)
        return _Video(before, recoded(here, config, row.rate))
    except BrokenVideo as error:
        return _Video(before, str(error).removeprefix(name).strip())
    except OSError as error:
        return _Video(before, f"cannot be read: {reason(error)}")


def _bytes_of(here: Path | bytes) -> int:
    if isinstance(here, bytes):
        return len(here)
    return sum(each.stat().st_size for each in here.iterdir()) if here.is_dir() else here.stat().st_size


def _entry(
    shard: Shard, shard_name: str, split: str, listing: Listing, index: int, result: _Video | Lost
) -> dict[str, Any]:
    """A video's line of the index, and its files in the shard, if it has any."""
    row = listing.rows[index]
    entry: dict[str, Any] = {"path": row.name}
    entry |= stated_labels(row, listing.classes)
    if split != _WHOLE:
        entry["split"] = split
    if isinstance(result, Lost):
        return {**entry, "bytes": 0, "wrong": result.why}
    video = result.packed
    if isinstance(video, str):
        return {**entry, "bytes": result.before, "wrong": video}
    entry |= {"frames": video.frames, "rate": video.rate, "width": video.width, "height": video.height}
    key = f"{index:09d}"  # never the user's path: it may hold dots, and lead anywhere
    offset = shard.add(f"{key}.{video.suffix}", video.data)
    shard.add(f"{key}.json", json.dumps(entry).encode())
    if len(row.labels) == 1:  # readers of .cls take one number; several stand in the .json
        shard.add(f"{key}.cls", str(row.label).encode())
    where = {"shard": shard_name, "offset": offset, "bytes": len(video.data)}
    return {**entry, "codec": video.codec, **where, "bytes_before": result.before}


def _write_index(out: Path, splits: Mapping[str, Listing], clips_per_shard: int) -> None:
    """Joins the parts of the index, which comes last."""
    parts = [
        _part(out, split, n) for split, listing in splits.items() for n in _spans(len(listing.rows), clips_per_shard)
    ]
    left_out = [entry for part in parts for entry in _lines(part) if "wrong" in entry]
    videos = sum(len(listing.rows) for listing in splits.values())
    if len(left_out) == videos:
        raise InputError(f"none of {videos} videos decodes, first {left_out[0]['path']} {left_out[0]['wrong']}")
    classes = next(iter(splits.values())).classes
    if classes:
        with written_whole(out / "classes.txt") as file:
            file.write("".join(f"{name}\n" for name in classes).encode(errors="replace"))
    if left_out:
        _write_lines(out / LEFT_OUT, left_out)
    with written_whole(out / INDEX) as file:
        for part in parts:
            for entry in _lines(part):
                if "wrong" not in entry or entry.get("split") == "val":
                    file.write(_line(entry))


def _tidy(out: Path) -> None:
    """The parts are in the index."""
    parts = out / _PARTS
    if parts.is_dir():
        for part in parts.iterdir():
            part.unlink()
        parts.rmdir()


def _read_back(out: Path) -> Packed:
    listed = _lines(out / LEFT_OUT) if (out / LEFT_OUT).is_file() else iter(())
    left_out = tuple(f"{entry['path']} {entry['wrong']}" for entry in listed)
    videos = before = after = 0
    for entry in _lines(out / INDEX):
        if "wrong" not in entry:
            videos, before, after = videos + 1, before + entry["bytes_before"], after + entry["bytes"]
    return Packed(videos=videos, before=before, after=after, left_out=left_out)


def _shard(out: Path, split: str, number: int) -> Path:
    return out / f"{split}-{number:06d}.tar"


def _is_there(out: Path, split: str, number: int) -> bool:
    """Whether a shard is written, or would hold nothing."""
    part = _part(out, split, number)
    return part.is_file() and (_shard(out, split, number).is_file() or all("wrong" in each for each in _lines(part)))


def _part(out: Path, split: str, number: int) -> Path:
    return out / _PARTS / f"{split}-{number:06d}.jsonl"


def _write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    with written_whole(path) as file:
        file.writelines(map(_line, entries))


def _line(entry: dict[str, Any]) -> bytes:
    return (json.dumps(entry) + "\n").encode()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
