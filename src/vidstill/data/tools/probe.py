"""Decodes one video whole: what it is, how many frames it really has, what it looks like, and what is wrong with it."""

import hashlib
import stat
from pathlib import Path
from typing import Any

from vidstill.data.decode.images import pictures_of
from vidstill.data.decode.probe import facts
from vidstill.data.decode.stream import decoded
from vidstill.data.storage.fetch import BrokenVideo, Piece, Source, fetched, name_of, reason
from vidstill.data.tools.near_duplicates import Sketch
from vidstill.parallel.heartbeat import beat

_BLOCK = 2**20  # bytes that are read at a time

Found = dict[str, Any]
"""What a list in JSON lines states of a video, but for its place and its class; what is not known is left out.

`frames` (that decode), `rate` (per second), `bytes`, `width` and `height` (upright), `codec`, `pixels` (their format),
`seconds`, `stated` (frames in the header, where these are others), `modified` (the file's time, in nanoseconds),
`sha256` (of the bytes), `looks` (a `Sketch`), `wrong`.
"""

FOUND = (
    *("frames", "rate", "bytes", "width", "height", "codec", "pixels", "seconds", "stated", "modified"),
    *("sha256", "looks", "wrong"),
)
"""In this order."""


def scanned(source: Source) -> Found:
    """What there is of a video; where it is broken, of its good frames.

    Raises:
        Unreachable: its place does not answer.
    """
    found, name = unseen(source), name_of(source)
    try:
        here = fetched(source)
        name = name_of(here)
        found["sha256"], found["bytes"] = _digest(here)
        _decode(here, found)
    except BrokenVideo as error:
        found["wrong"] = str(error).removeprefix(name).strip()
    except OSError as error:
        found["wrong"] = f"cannot be read: {reason(error)}"
    return found


def unseen(source: Source) -> Found:
    """What there is of a video that was not decoded."""
    size, modified = stamp(source) or (source.size if isinstance(source, Piece) else 0, None)
    return {"frames": 0, "bytes": size} | ({} if modified is None else {"modified": modified})


def stamp(source: Source) -> tuple[int, int | None] | None:
    """A file's size in bytes and its time, by which it is known again; a folder's size is not looked up.

    No time for what is not there, None for what lies behind an address.
    """
    place = source.shard if isinstance(source, Piece) else source
    if not isinstance(place, Path):
        return None
    try:
        of = place.stat()
    except OSError:
        return 0, None
    size = source.size if isinstance(source, Piece) else 0 if stat.S_ISDIR(of.st_mode) else of.st_size
    return size, of.st_mtime_ns


def _digest(here: Path | bytes) -> tuple[str, int]:
    """The SHA-256 of a video's bytes, and how many there are; of a folder's pictures, one after the other."""
    if isinstance(here, bytes):
        return hashlib.sha256(here).hexdigest(), len(here)
    files = pictures_of(here) if here.is_dir() else [here]
    digest, size = hashlib.sha256(), 0
    for path in files or []:
        assert isinstance(path, Path)
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
                beat()
    return digest.hexdigest(), size


def _decode(here: Path | bytes, found: Found) -> None:
    """Adds what the header states and what the frames show, up to the last good one.

    Raises:
        BrokenVideo: something is wrong behind it.
    """
    header = facts(here)
    _state(found, codec=header.codec, pixels=header.pixels, rate=header.rate, seconds=header.seconds)
    sketch, name = Sketch(), name_of(here)
    try:
        for picture in decoded(here):
            height, width = picture.shape[:2]
            if (width, height) != (found.setdefault("width", width), found.setdefault("height", height)):
                raise BrokenVideo(f"{name} changes its size to {width}x{height} at frame {found['frames']}")
            sketch.show(picture)
            found["frames"] += 1
            beat()
    except (BrokenVideo, OSError):
        raise
    except Exception as error:  # whatever else a library does with a damaged file is that file's fault
        raise BrokenVideo(f"{name} breaks after {found['frames']} frames: {reason(error)}") from error
    finally:
        _state(found, looks=sketch.text())
        if header.frames not in (None, found["frames"]):
            found["stated"] = header.frames
        if header.rate and ("stated" in found or not header.seconds):
            found["seconds"] = found["frames"] / header.rate
    if not found["frames"]:
        raise BrokenVideo(f"{name} holds no frame that decodes")


def _state(found: Found, **facts: str | float | None) -> None:
    found |= {key: value for key, value in facts.items() if value}
