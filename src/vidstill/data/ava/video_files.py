"""Finds the videos that annotations name: files, folders of frames, folders of one-second files; where they begin."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from vidstill.data.ava.box_columns import line_of
from vidstill.data.ava.box_table import BoxRows
from vidstill.data.ava.clip_reader import Film
from vidstill.data.decode.images import is_picture
from vidstill.data.decode.probe import count_frames, facts
from vidstill.data.decode.stream import VIDEOS
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.storage.fetch import BrokenVideo, Place, below
from vidstill.data.storage.filesystem import files_in, folders_in, is_file, is_folder, lines_of
from vidstill.utils.types import InputError

CUT = 900.0
"""The second of a film at which its copies of 15 minutes begin."""

_WITHIN = ("videos", "trainval", "videos_15min", "frames", "clips", "")
_DEEPER = ("", "trainval", "train", "val", "test")  # folders in these
_LONGEST_CUT = 960.0  # seconds: copies of 15 minutes have a little more
_SECOND = re.compile(r"\d+\.mp4")
_FRAME = re.compile(r"(.+)/([^/]*?)(\d+)(\.\w+)")

Form = Literal["file", "frames", "seconds"]


class Listed(NamedTuple):
    """A video of a list of frames.

    Args:
        folder: of its frames, relative to that of all.
        first, last: the lines of its first frame and its last one.
        ends: the paths of these two.
    """

    name: str
    folder: str
    first: int
    last: int
    ends: tuple[str, str]


def read_frame_list(path: Place) -> dict[str, Listed]:
    """PySlowFast's list of frames by videos: a header, then `video number frame path labels` for each frame.

    Raises:
        InputError: a line cannot be read, or a frame is missing between two others; it is named by its number.
    """
    found: dict[str, Listed] = {}
    name, form, number = "", "", 0
    for line, text in lines_of(path):
        fields = text.split()
        if not name and fields[0] == "original_vido_id":
            continue
        frame = fields[3] if len(fields) > 3 else ""
        if fields[0] != name:
            if (parts := _FRAME.fullmatch(frame)) is None:
                raise InputError(
                    f"line {line} of {path} is no frame; a line reads `video number frame path labels`, and the path "
                    "is as `video/video_000001.jpg`"
                )
            if fields[0] in found:
                raise InputError(f"line {line} of {path} goes back to the video {fields[0]!r}; keep its lines together")
            name, number = fields[0], int(parts[3])
            form = f"{parts[1]}/{parts[2]}".replace("%", "%%") + f"%0{len(parts[3])}d{parts[4]}"
            first = Listed(name, parts[1], line, line, (frame, frame))
        if frame != form % number:
            raise InputError(f"line {line} of {path} names the frame {frame!r}, and the next one is {form % number!r}")
        number += 1
        found[name] = Listed(name, first.folder, first.first, line, (first.ends[0], frame))
    return found


class Films(NamedTuple):
    """
    Args:
        missing: how many that are named are not there.
        cut: how many begin at second 900.
    """

    films: tuple[Film, ...]
    missing: int
    cut: int


def films_of(
    rows: BoxRows,
    root: Place,
    *,
    official: bool,
    start: float | None,
    rate: float,
    frame_list: Place | None,
) -> Films:
    """The videos that annotations name, in the order of the list of frames, or else in their own.

    Args:
        official: videos that are not there are left without a place.
        start: the second at which files and folders of frames begin; None: it is found, 0 or 900.
        rate: frames per second of folders of frames.

    Raises:
        InputError: a video of one's own is not there (its file and line are named), or a frame that is listed.
    """
    listed = {} if frame_list is None else read_frame_list(frame_list)
    seconds, rooms = _annotated_seconds(rows), _rooms(root)
    films, missing = [], 0
    for name in dict.fromkeys((*listed, *rows.videos)):
        found = _found(rooms, name) if name not in listed else _frames_of(rooms, listed[name], frame_list)
        if found is None and not official:
            raise _not_there(name, root, rows, listed, frame_list)
        if found is None:
            missing += 1
            films.append(Film(name, None))
            continue
        begins = 0.0
        if found.form != "seconds":
            begins = _begins(found, official, rate, *seconds.get(name, (0, 0))) if start is None else start
        films.append(Film(name, found.place, found.form, begins, rate))
    return Films(tuple(films), missing, sum(film.start == CUT for film in films))


class _There(NamedTuple):
    """
    Args:
        cut: it lies where copies of 15 minutes are kept.
    """

    place: Place
    form: Form
    cut: bool


class _Room(NamedTuple):
    """A folder that videos may lie in; its files by their names, with a suffix and without."""

    place: Place
    cut: bool
    files: Mapping[str, str]
    folders: frozenset[str]


def _rooms(root: Place) -> list[_Room]:
    found = []
    for within in _WITHIN:
        for deeper in _DEEPER:
            place = below(root, "/".join(filter(None, (within, deeper)))) if within or deeper else root
            if is_folder(place):
                videos = [name for name in files_in(place) if has_suffix(name, VIDEOS)]
                files = {each: name for name in reversed(videos) for each in (name, name.rpartition(".")[0])}
                found.append(_Room(place, within == "videos_15min", files, frozenset(folders_in(place))))
    return found


def _found(rooms: Sequence[_Room], name: str) -> _There | None:
    for room in rooms:
        if name in room.files:
            return _There(below(room.place, room.files[name]), "file", room.cut)
        if name in room.folders and (form := _form(folder := below(room.place, name))):
            return _There(folder, form, room.cut)
    return None


def _form(folder: Place) -> Form | None:
    """What a video's folder holds; None: nothing that is known."""
    names = files_in(folder)
    if any(map(is_picture, names)):
        return "frames"
    return "seconds" if any(map(_SECOND.fullmatch, names)) else None


def _frames_of(rooms: Sequence[_Room], listed: Listed, frame_list: Place | None) -> _There | None:
    """The folder of a list's frames.

    Raises:
        InputError: its first or its last frame is not there.
    """
    for room in rooms:
        if is_folder(folder := below(room.place, listed.folder)):
            for line, frame in zip((listed.first, listed.last), listed.ends, strict=True):
                if not is_file(path := below(room.place, frame)):
                    raise InputError(f"line {line} of {frame_list} names the frame {frame}, and {path} is not there")
            return _There(folder, "frames", room.cut)
    return None


def _not_there(
    name: str, root: Place, rows: BoxRows, listed: Mapping[str, Listed], frame_list: Place | None
) -> InputError:
    if name in rows.videos:
        where = line_of(rows, int(np.argmax(rows.video == rows.videos.index(name))))
    else:
        where = f"line {listed[name].first} of {frame_list}"
    return InputError(
        f"{where} names the video {name!r}, which is not there; it was looked for in {root} and, below it, in "
        f"{', '.join(filter(None, _WITHIN))}: as {name}.mp4 or with another suffix of a video, and as a folder of its "
        "frames or its seconds"
    )


def _annotated_seconds(rows: BoxRows) -> dict[str, tuple[int, int]]:
    """Of each video the first one and the last one."""
    first, last = np.full(len(rows.videos), np.iinfo(np.int32).max), np.zeros(len(rows.videos), np.int32)
    np.minimum.at(first, rows.video, rows.second)
    np.maximum.at(last, rows.video, rows.second)
    return {name: (int(first[place]), int(last[place])) for place, name in enumerate(rows.videos)}


def _begins(found: _There, official: bool, rate: float, first: int, last: int) -> float:
    """At 0, or at 900: what is annotated from there on and is not longer than 15 minutes, is a copy of these."""
    if found.cut or (official and found.form == "frames"):
        return CUT
    if first < CUT:
        return 0.0
    try:
        stated = facts(found.place).seconds if found.form == "file" else count_frames(found.place) / rate
    except BrokenVideo:  # whoever reads it says so
        return 0.0
    return CUT if stated is not None and stated < min(last, _LONGEST_CUT) else 0.0
