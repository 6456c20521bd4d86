"""Finds the videos that annotations name: files, directories of frames or of one-second files, and where they begin."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from vidstill.data.ava.clip_reader import VideoFormat
from vidstill.data.decode.images import is_image_file
from vidstill.data.decode.reader import VIDEO_EXTENSIONS, count_frames, read_stream_metadata
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.storage.addresses import check_listed_path
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_directory, is_file, list_directories, list_files, read_lines
from vidstill.utils.types import InputError

TRIMMED_START_SECOND = 900.0
"""Second of a movie at which its copies of 15 minutes begin."""

VIDEO_DIRS = ("videos", "trainval", "videos_15min", "frames", "clips", "")
_SPLIT_DIRS = ("", "trainval", "train", "val", "test")  # subdirectories of these
_MAX_TRIMMED_SECONDS = 960.0  # copies of 15 minutes are a little longer
_SECOND_FILE_PATTERN = re.compile(r"\d+\.mp4")
_FRAME_PATH_PATTERN = re.compile(r"(.+)/([^/]*?)(\d+)(\.\w+)")


class FrameListEntry(NamedTuple):
    """A video of a list of frames."""

    frame_dir: str  # relative to the directory of all videos
    first_line: int  # of the list
    last_line: int
    end_frames: tuple[str, str]  # paths of the first and the last one


def read_frame_list(path: PathOrUrl) -> dict[str, FrameListEntry]:
    """Read PySlowFast's list of frames, by video: a header, then `video number frame path labels` for each frame.

    Raises:
        InputError: A line cannot be read, or a frame is missing between two others; the line is named.
    """
    entries: dict[str, FrameListEntry] = {}
    name, frame_format, number = "", "", 0
    for line, text in read_lines(path):
        fields = text.split()
        if not name and fields[0] == "original_vido_id":
            continue
        frame = fields[3] if len(fields) > 3 else ""
        if fields[0] != name:
            parts = _FRAME_PATH_PATTERN.fullmatch(frame)
            if parts is None:
                raise InputError(
                    f"line {line} of {path} is not a frame; write `video number frame path labels`, "
                    "with a path such as `video/video_000001.jpg`"
                )
            check_listed_path(parts[1], f"line {line} of {path}", is_confined=isinstance(path, str))
            if fields[0] in entries:
                raise InputError(f"line {line} of {path} returns to the video {fields[0]!r}; keep its lines together")
            name, number = fields[0], int(parts[3])
            frame_format = f"{parts[1]}/{parts[2]}".replace("%", "%%") + f"%0{len(parts[3])}d{parts[4]}"
            first = FrameListEntry(parts[1], line, line, (frame, frame))
        if frame != frame_format % number:
            raise InputError(f"line {line} of {path} is the frame {frame!r}; the next one is {frame_format % number!r}")
        number += 1
        entries[name] = first._replace(last_line=line, end_frames=(first.end_frames[0], frame))
    return entries


@dataclass(frozen=True)
class VideoDir:
    """A directory that videos may be in; its files by their names, with a suffix and without."""

    path: PathOrUrl
    is_trimmed: bool  # copies of 15 minutes are in it
    files: Mapping[str, str]
    subdirs: frozenset[str]


class VideoLocation(NamedTuple):
    """Where a video is."""

    path: PathOrUrl
    format: VideoFormat
    is_trimmed: bool


def scan_video_dirs(root: PathOrUrl) -> Iterator[VideoDir]:
    """Yield the directories that exist of those that videos may be in."""
    for parent in VIDEO_DIRS:
        for child in _SPLIT_DIRS:
            path = join_path(root, "/".join(filter(None, (parent, child)))) if parent or child else root
            if is_directory(path):
                names = [name for name in list_files(path) if has_suffix(name, VIDEO_EXTENSIONS)]
                files = {key: name for name in reversed(names) for key in (name, name.rpartition(".")[0])}
                yield VideoDir(path, parent == "videos_15min", files, frozenset(list_directories(path)))


def locate_video(directories: list[VideoDir], name: str) -> VideoLocation | None:
    """Find a video: a file, or a directory of its frames or of its one-second files."""
    for directory in directories:
        if name in directory.files:
            return VideoLocation(join_path(directory.path, directory.files[name]), "file", directory.is_trimmed)
        if name in directory.subdirs:
            files = list_files(path := join_path(directory.path, name))
            if any(map(is_image_file, files)):
                return VideoLocation(path, "frames", directory.is_trimmed)
            if any(map(_SECOND_FILE_PATTERN.fullmatch, files)):
                return VideoLocation(path, "seconds", directory.is_trimmed)
    return None


def locate_frames(
    directories: list[VideoDir], entry: FrameListEntry, frame_list: PathOrUrl | None
) -> VideoLocation | None:
    """Find the directory of listed frames; an InputError is raised if the first or the last frame is missing."""
    for directory in directories:
        if is_directory(path := join_path(directory.path, entry.frame_dir)):
            for line, frame in zip((entry.first_line, entry.last_line), entry.end_frames, strict=True):
                if not is_file(file := join_path(directory.path, frame)):
                    raise InputError(f"line {line} of {frame_list} lists the frame {frame}, and {file} does not exist")
            return VideoLocation(path, "frames", directory.is_trimmed)
    return None


def infer_start_second(
    location: VideoLocation, official: bool, frame_rate: float, seconds: Int32[np.ndarray, "n"]
) -> float:
    """Return 900 for a copy of 15 minutes: all is annotated after second 900, and the video is too short for it."""
    if location.is_trimmed or (official and location.format == "frames"):
        return TRIMMED_START_SECOND
    if not len(seconds) or seconds.min() < TRIMMED_START_SECOND:
        return 0.0
    try:
        if location.format == "file":
            duration = read_stream_metadata(location.path).duration_seconds
        else:
            duration = count_frames(location.path) / frame_rate
    except BrokenVideo:  # reported when a clip is read
        return 0.0
    is_short = duration is not None and duration < min(int(seconds.max()), _MAX_TRIMMED_SECONDS)
    return TRIMMED_START_SECOND if is_short else 0.0
