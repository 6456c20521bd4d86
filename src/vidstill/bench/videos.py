"""The videos that a benchmark reads: its own, or some of a data set's, each in a file of this machine."""

import json
import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vidstill.data.decode.images import is_image_file, list_frame_images
from vidstill.data.decode.stream import iter_frames
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, fetch_source, source_name
from vidstill.engine.distributed import count_cores
from vidstill.parallel.pool import LostTask, map_in_workers
from vidstill.synthetic.footage import FootageConfig, encode_footage
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError

log = logging.getLogger("vidstill")


@dataclass(frozen=True)
class BenchmarkVideo:
    """A file and the number of its frames, all of which decode."""

    path: Path
    num_frames: int


def render_videos(folder: Path, num_videos: int, footage: FootageConfig, seed: int) -> list[BenchmarkVideo]:
    """Films them, on all cores."""
    found = []
    with show_progress_bar("filming") as done:
        for _, video in map_in_workers(
            partial(_render_video, folder, footage, seed), range(num_videos), workers=count_cores()
        ):
            if isinstance(video, LostTask):
                raise InputError(
                    f"a video could not be filmed: its process {video.reason}; try it again with more memory"
                )
            found.append(video)
            done(len(found), num_videos)
    return found


def _render_video(folder: Path, footage: FootageConfig, seed: int, number: int) -> BenchmarkVideo:
    path = folder / f"{number:04d}.mp4"
    path.write_bytes(encode_footage(footage, derive_sample_seed(seed, 0, number)))
    return BenchmarkVideo(path, footage.frames)


def sample_videos(data: PathOrUrl, folder: Path, num_videos: int, seed: int) -> list[BenchmarkVideo]:
    """Some of a data set's, or all that it has if they are fewer; what is no file of this machine is copied.

    Raises:
        InputError: there is no such data, or no video in it that decodes.
    """
    rows = open_manifest(data).rows
    found: list[BenchmarkVideo] = []
    with show_progress_bar("looking for videos that decode") as done:
        for place in numpy_rng(seed, "videos").permutation(len(rows)):
            if len(found) == min(num_videos, len(rows)):
                break
            video = _prepare_video(rows[int(place)], folder / f"{len(found):04d}")
            found += [video] if video else []
            done(len(found), min(num_videos, len(rows)))
    if not found:
        raise InputError(f"{data} has no video that decodes; `vidstill data scan {data}` says what is wrong with each")
    return found


def _prepare_video(row: VideoRow, copy: Path) -> BenchmarkVideo | None:
    """The row's video; None if it does not decode to its end, or is a picture, or a folder of pictures."""
    if is_image_file(row.name) or row.error:
        return None
    try:
        here = fetch_source(row.source)
        if list_frame_images(here) is not None:
            return None
        sizes = [frame.shape for frame in iter_frames(here)]
        if len(set(sizes)) > 1:
            raise BrokenVideo(f"{source_name(here)} changes its size")
    except BrokenVideo as error:
        log.warning("%s: %s; it is not measured", row.name, error)
        return None
    if isinstance(here, bytes):
        copy = copy.with_suffix(Path(row.name).suffix)
        copy.write_bytes(here)
    return BenchmarkVideo(here if isinstance(here, Path) else copy, len(sizes))


def write_video_manifest(videos: list[BenchmarkVideo], path: Path) -> Manifest:
    """A data set of these videos, whose list is written to this path."""
    rows = [{"path": str(video.path.absolute()), "frames": video.num_frames} for video in videos]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return open_manifest(path)
