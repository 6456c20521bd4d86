"""The videos that a benchmark reads: its own, or some of a data set's, each in a file of this machine."""

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vidstill.data.decode.images import is_picture, pictures_of
from vidstill.data.decode.stream import decoded
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.open import read_listing
from vidstill.data.manifest.table import Row
from vidstill.data.storage.fetch import BrokenVideo, Place, fetched, name_of
from vidstill.engine.distributed import cores
from vidstill.parallel.pool import Lost, in_workers
from vidstill.synthetic.footage import Footage, filmed
from vidstill.utils.rng import numpy_chance, sample_seed
from vidstill.utils.terminal import progress_bar
from vidstill.utils.types import InputError

log = logging.getLogger("vidstill")


@dataclass(frozen=True)
class Video:
    """A file and the number of its frames, all of which decode."""

    path: Path
    frames: int


def own_videos(folder: Path, videos: int, footage: Footage, seed: int) -> list[Video]:
    """Films them, on all cores."""
    found = []
    with progress_bar("filming") as done:
        for _, video in in_workers(partial(_film_into, folder, footage, seed), range(videos), workers=cores()):
            if isinstance(video, Lost):
                raise InputError(f"a video could not be filmed: its process {video.why}; try it again with more memory")
            found.append(video)
            done(len(found), videos)
    return found


def _film_into(folder: Path, footage: Footage, seed: int, number: int) -> Video:
    path = folder / f"{number:04d}.mp4"
    path.write_bytes(filmed(footage, sample_seed(seed, 0, number)))
    return Video(path, footage.frames)


def drawn_videos(data: Place, folder: Path, videos: int, seed: int) -> list[Video]:
    """Some of a data set's, or all that it has if they are fewer; what is no file of this machine is copied.

    Raises:
        InputError: there is no such data, or no video in it that decodes.
    """
    rows = read_listing(data).rows
    found: list[Video] = []
    with progress_bar("looking for videos that decode") as done:
        for place in numpy_chance(seed, "videos").permutation(len(rows)):
            if len(found) == min(videos, len(rows)):
                break
            video = _good(rows[int(place)], folder / f"{len(found):04d}")
            found += [video] if video else []
            done(len(found), min(videos, len(rows)))
    if not found:
        raise InputError(f"{data} has no video that decodes; `vidstill data scan {data}` says what is wrong with each")
    return found


def _good(row: Row, copy: Path) -> Video | None:
    """The row's video; None if it does not decode to its end, or is a picture, or a folder of pictures."""
    if is_picture(row.name) or row.wrong:
        return None
    try:
        here = fetched(row.source)
        if pictures_of(here) is not None:
            return None
        sizes = [frame.shape for frame in decoded(here)]
        if len(set(sizes)) > 1:
            raise BrokenVideo(f"{name_of(here)} changes its size")
    except BrokenVideo as error:
        log.warning("%s: %s; it is not measured", row.name, error)
        return None
    if isinstance(here, bytes):
        copy = copy.with_suffix(Path(row.name).suffix)
        copy.write_bytes(here)
    return Video(here if isinstance(here, Path) else copy, len(sizes))


def listed(videos: list[Video], path: Path) -> Listing:
    """A data set of these videos, whose list is written to this path."""
    rows = [{"path": str(video.path.absolute()), "frames": video.frames} for video in videos]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return read_listing(path)
