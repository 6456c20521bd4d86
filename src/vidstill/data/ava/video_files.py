"""Finds the videos that annotations name: files, folders of frames, folders of one-second files; where they begin."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from vidstill.data.ava.box_table import BoxTable
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.decode.images import is_image_file
from vidstill.data.decode.probe import count_frames, read_stream_metadata
from vidstill.data.decode.stream import VIDEO_EXTENSIONS
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_directory, is_file, list_directories, list_files, read_lines
from vidstill.utils.types import InputError

TRIMMED_START_SECOND = 900.0
"""The second of a film at which its copies of 15 minutes begin."""

_VIDEO_DIRS = ("videos", "trainval", "videos_15min", "frames", "clips", "")
_SPLIT_DIRS = ("", "trainval", "train", "val", "test")  # folders in these
_MAX_TRIMMED_SECONDS = 960.0  # seconds: copies of 15 minutes have a little more
_SECOND_FILE_PATTERN = re.compile(r"\d+\.mp4")
_FRAME_PATH_PATTERN = re.compile(r"(.+)/([^/]*?)(\d+)(\.\w+)")

VideoFormat = Literal["file", "frames", "seconds"]


class FrameListEntry(NamedTuple):
    """A video of a list of frames.

    Args:
        frame_dir: of its frames, relative to that of all.
        first, last: the lines of its first frame and its last one.
        end_frames: the paths of these two.
    """

    name: str
    frame_dir: str
    first_line: int
    last_line: int
    end_frames: tuple[str, str]


def read_frame_list(path: PathOrUrl) -> dict[str, FrameListEntry]:
    """PySlowFast's list of frames by videos: a header, then `video number frame path labels` for each frame.

    Raises:
        InputError: a line cannot be read, or a frame is missing between two others; it is named by its number.
    """
    found: dict[str, FrameListEntry] = {}
    name, form, number = "", "", 0
    for line, text in read_lines(path):
        fields = text.split()
        if not name and fields[0] == "original_vido_id":
            continue
        frame = fields[3] if len(fields) > 3 else ""
        if fields[0] != name:
            if (parts := _FRAME_PATH_PATTERN.fullmatch(frame)) is None:
                raise InputError(
                    f"line {line} of {path} is no frame; a line reads `video number frame path labels`, and the path "
                    "is as `video/video_000001.jpg`"
                )
            if fields[0] in found:
                raise InputError(f"line {line} of {path} goes back to the video {fields[0]!r}; keep its lines together")
            name, number = fields[0], int(parts[3])
            form = f"{parts[1]}/{parts[2]}".replace("%", "%%") + f"%0{len(parts[3])}d{parts[4]}"
            first = FrameListEntry(name, parts[1], line, line, (frame, frame))
        if frame != form % number:
            raise InputError(f"line {line} of {path} names the frame {frame!r}, and the next one is {form % number!r}")
        number += 1
        found[name] = FrameListEntry(name, first.frame_dir, first.first_line, line, (first.end_frames[0], frame))
    return found


class VideoSearchResult(NamedTuple):
    """
    Args:
        num_missing: how many that are named are not there.
        num_trimmed: how many begin at second 900.
    """

    videos: tuple[KeyframeVideo, ...]
    num_missing: int
    num_trimmed: int


def find_annotated_videos(
    annotations: BoxTable,
    root: PathOrUrl,
    *,
    official: bool,
    start_second: float | None,
    frame_rate: float,
    frame_list: PathOrUrl | None,
) -> VideoSearchResult:
    """The videos that annotations name, in the order of the list of frames, or else in their own.

    Args:
        official: videos that are not there are left without a place.
        start_second: the second at which files and folders of frames begin; None: it is found, 0 or 900.
        frame_rate: frames per second of folders of frames.

    Raises:
        InputError: a video of one's own is not there (its file and line are named), or a frame that is listed.
    """
    listed = {} if frame_list is None else read_frame_list(frame_list)
    seconds, rooms = _compute_second_ranges(annotations), _scan_video_dirs(root)
    films, missing = [], 0
    for name in dict.fromkeys((*listed, *annotations.video_names)):
        found = _locate_video(rooms, name) if name not in listed else _locate_frames(rooms, listed[name], frame_list)
        if found is None and not official:
            raise _make_missing_error(name, root, annotations, listed, frame_list)
        if found is None:
            missing += 1
            films.append(KeyframeVideo(name, None))
            continue
        begins = 0.0
        if found.format != "seconds":
            begins = (
                _infer_start_second(found, official, frame_rate, *seconds.get(name, (0, 0)))
                if start_second is None
                else start_second
            )
        films.append(KeyframeVideo(name, found.path, found.format, begins, frame_rate))
    return VideoSearchResult(tuple(films), missing, sum(film.start_second == TRIMMED_START_SECOND for film in films))


class _VideoLocation(NamedTuple):
    """
    Args:
        is_trimmed: it lies where copies of 15 minutes are kept.
    """

    path: PathOrUrl
    format: VideoFormat
    is_trimmed: bool


class _VideoDir(NamedTuple):
    """A folder that videos may lie in; its files by their names, with a suffix and without."""

    path: PathOrUrl
    is_trimmed: bool
    files: Mapping[str, str]
    subdirs: frozenset[str]


def _scan_video_dirs(root: PathOrUrl) -> list[_VideoDir]:
    found = []
    for within in _VIDEO_DIRS:
        for deeper in _SPLIT_DIRS:
            place = join_path(root, "/".join(filter(None, (within, deeper)))) if within or deeper else root
            if is_directory(place):
                videos = [name for name in list_files(place) if has_suffix(name, VIDEO_EXTENSIONS)]
                files = {each: name for name in reversed(videos) for each in (name, name.rpartition(".")[0])}
                found.append(_VideoDir(place, within == "videos_15min", files, frozenset(list_directories(place))))
    return found


def _locate_video(rooms: Sequence[_VideoDir], name: str) -> _VideoLocation | None:
    for room in rooms:
        if name in room.files:
            return _VideoLocation(join_path(room.path, room.files[name]), "file", room.is_trimmed)
        if name in room.subdirs and (form := _detect_format(folder := join_path(room.path, name))):
            return _VideoLocation(folder, form, room.is_trimmed)
    return None


def _detect_format(folder: PathOrUrl) -> VideoFormat | None:
    """What a video's folder holds; None: nothing that is known."""
    names = list_files(folder)
    if any(map(is_image_file, names)):
        return "frames"
    return "seconds" if any(map(_SECOND_FILE_PATTERN.fullmatch, names)) else None


def _locate_frames(
    rooms: Sequence[_VideoDir], listed: FrameListEntry, frame_list: PathOrUrl | None
) -> _VideoLocation | None:
    """The folder of a list's frames.

    Raises:
        InputError: its first or its last frame is not there.
    """
    for room in rooms:
        if is_directory(folder := join_path(room.path, listed.frame_dir)):
            for line, frame in zip((listed.first_line, listed.last_line), listed.end_frames, strict=True):
                if not is_file(path := join_path(room.path, frame)):
                    raise InputError(f"line {line} of {frame_list} names the frame {frame}, and {path} is not there")
            return _VideoLocation(folder, "frames", room.is_trimmed)
    return None


def _make_missing_error(
    name: str, root: PathOrUrl, rows: BoxTable, listed: Mapping[str, FrameListEntry], frame_list: PathOrUrl | None
) -> InputError:
    if name in rows.video_names:
        where = rows.describe_row(int(np.argmax(rows.video_index == rows.video_names.index(name))))
    else:
        where = f"line {listed[name].first_line} of {frame_list}"
    return InputError(
        f"{where} names the video {name!r}, which is not there; it was looked for in {root} and, below it, in "
        f"{', '.join(filter(None, _VIDEO_DIRS))}: as {name}.mp4 or with another suffix of a video, and as a folder of its "
        "frames or its seconds"
    )


def _compute_second_ranges(rows: BoxTable) -> dict[str, tuple[int, int]]:
    """Of each video the first one and the last one."""
    first, last = np.full(len(rows.video_names), np.iinfo(np.int32).max), np.zeros(len(rows.video_names), np.int32)
    np.minimum.at(first, rows.video_index, rows.second)
    np.maximum.at(last, rows.video_index, rows.second)
    return {name: (int(first[place]), int(last[place])) for place, name in enumerate(rows.video_names)}


def _infer_start_second(found: _VideoLocation, official: bool, rate: float, first: int, last: int) -> float:
    """At 0, or at 900: what is annotated from there on and is not longer than 15 minutes, is a copy of these."""
    if found.is_trimmed or (official and found.format == "frames"):
        return TRIMMED_START_SECOND
    if first < TRIMMED_START_SECOND:
        return 0.0
    try:
        stated = (
            read_stream_metadata(found.path).duration_seconds
            if found.format == "file"
            else count_frames(found.path) / rate
        )
    except BrokenVideo:  # whoever reads it says so
        return 0.0
    return TRIMMED_START_SECOND if stated is not None and stated < min(last, _MAX_TRIMMED_SECONDS) else 0.0
