"""The videos of a benchmark: synthetic ones or a sample of a data set, each in a local file."""

import json
import logging
from functools import partial
from pathlib import Path

from vidstill.data.decode.images import is_image_file, list_frame_images
from vidstill.data.decode.reader import iter_frames
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.open import open_manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, fetch_source
from vidstill.engine.cpu import count_cores
from vidstill.parallel.pool import LostTask, map_in_workers
from vidstill.synthetic.footage import FootageConfig, encode_footage
from vidstill.utils.rng import derive_sample_seed, numpy_rng
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import InputError

log = logging.getLogger("vidstill")

Video = tuple[Path, int]
"""A local file and its number of frames, all of which decode."""


def collect_videos(
    data: PathOrUrl | None, folder: Path, num_videos: int, footage: FootageConfig, seed: int
) -> tuple[Manifest, list[int]]:
    """Render synthetic videos, or draw videos of a data set that decode (all if there are fewer), and list them.

    Args:
        data: None renders synthetic videos.
        folder: Where rendered videos, copies of remote ones and the list `raw.jsonl` are written.
        num_videos: How many.
        footage: What is rendered.
        seed: Random seed of the videos or of the sample.

    Returns:
        The data set of these videos, and the number of frames of each, all of which decode.

    Raises:
        InputError: There is no such data, or none of its videos decodes.
    """
    if data is None:
        videos = _render_videos(folder, num_videos, footage, seed)
    else:
        videos = _sample_videos(data, folder, num_videos, seed)
    rows = [{"path": str(path.absolute()), "frames": num_frames} for path, num_frames in videos]
    (folder / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return open_manifest(folder / "raw.jsonl"), [num_frames for _, num_frames in videos]


def _render_videos(folder: Path, num_videos: int, footage: FootageConfig, seed: int) -> list[Video]:
    """Render on all cores."""
    videos = []
    render = partial(_render_video, folder, footage, seed)
    with show_progress_bar("rendering") as report_progress:
        for _, video in map_in_workers(render, range(num_videos), workers=count_cores()):
            if isinstance(video, LostTask):
                raise InputError(f"a video could not be rendered: its process {video.reason}; retry with more memory")
            videos.append(video)
            report_progress(len(videos), num_videos)
    return videos


def _render_video(folder: Path, footage: FootageConfig, seed: int, number: int) -> Video:
    path = folder / f"{number:04d}.mp4"
    path.write_bytes(encode_footage(footage, derive_sample_seed(seed, 0, number)))
    return path, footage.frames


def _sample_videos(data: PathOrUrl, folder: Path, num_videos: int, seed: int) -> list[Video]:
    rows = open_manifest(data).rows
    videos: list[Video] = []
    count = min(num_videos, len(rows))
    with show_progress_bar("sampling videos") as report_progress:
        for index in numpy_rng(seed, "videos").permutation(len(rows)):
            if len(videos) == count:
                break
            video = _prepare_video(rows[int(index)], folder / f"{len(videos):04d}")
            videos += [video] if video else []
            report_progress(len(videos), count)
    if not videos:
        raise InputError(f"{data} has no video that decodes; `vidstill data scan {data}` names the errors of each")
    return videos


def _prepare_video(row: VideoRow, copy: Path) -> Video | None:
    """Return the row's video; None if it does not decode to its end, or is an image or a directory of images."""
    if is_image_file(row.name) or row.error:
        return None
    try:
        file = fetch_source(row.source)
        if list_frame_images(file) is not None:
            return None
        sizes = [frame.shape for frame in iter_frames(file)]
        if len(set(sizes)) > 1:
            raise BrokenVideo(file, "changes its size")
    except BrokenVideo as error:
        log.warning("%s: %s; it is not measured", row.name, error)
        return None
    if isinstance(file, Path):
        return file, len(sizes)
    copy = copy.with_suffix(Path(row.name).suffix)
    copy.write_bytes(file)
    return copy, len(sizes)
