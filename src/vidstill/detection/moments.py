"""Key frames that persons are looked for in: those of a data set with boxes, or regular ones of any videos."""

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Float64

from vidstill.data.annotations import Split, read_listing, splits_of
from vidstill.data.boxes.films import Film, FilmReader
from vidstill.data.boxes.layout import BoxSplit, find_boxes
from vidstill.data.boxes.timing import nearest
from vidstill.data.pictures import Picture, is_picture
from vidstill.data.places import files_in, folders_in, is_folder, last_name
from vidstill.data.rows import Row
from vidstill.data.sources import BrokenVideo, Piece, Place
from vidstill.data.video import USUAL_RATE, count_frames, frame_rate
from vidstill.data.words import counted
from vidstill.data.workers import Lost, in_workers
from vidstill.types import InputError, within


@dataclass(frozen=True)
class Moments:
    """Key frames in the order of their films and seconds.

    Args:
        seconds: of each film, ascending.
        kind: in words, what they are of.
        annotated: the boxes of persons by film and second, each once; nothing where there are no annotations.
        left_out: a sentence for each film that nothing can be read of.
    """

    films: tuple[Film, ...]
    seconds: tuple[tuple[int, ...], ...]
    kind: str = "key frames"
    annotated: Mapping[tuple[str, int], Float64[np.ndarray, "m 4"]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.seconds))


def find_moments(data: Place, *, split: Split = "val", every: int | None = None, workers: int = 1) -> Moments:
    """A data set's own key frames, or regular ones of videos.

    Args:
        split: of a data set with boxes.
        every: seconds between two key frames of videos; None: 1.

    Raises:
        InputError: there are none.
    """
    if not _has_boxes(data):
        return regular_moments(data, every=1 if every is None else every, workers=workers)
    if every is not None:
        raise InputError(f"{data} has key frames of its own; leave --every out, or give a folder of videos alone")
    return moments_of_boxes(find_boxes(data).split(split))


def moments_of_boxes(split: BoxSplit) -> Moments:
    """The key frames of annotations; of AVA's videos all that it has, whether persons are annotated there or not.

    Those of videos that are not there are left out, as are those that no score counts.
    """
    key_frames = split.to_test(0.0, annotated=True)
    annotated: dict[tuple[str, int], Float64[np.ndarray, "m 4"]] = {}
    own: dict[str, list[int]] = {}
    for place in range(len(key_frames)):
        each = key_frames[place]
        annotated[each.film.name, each.second] = each.boxes
        own.setdefault(each.film.name, []).append(each.second)
    every = sorted(split.data.seconds or ()) if split.data.name else None
    seconds = {
        film: tuple(
            second
            for second in (own.get(film.name, []) if every is None else every)
            if (film.name, second) not in split.excluded
        )
        for film in split.films
        if film.place is not None
    }
    return Moments(tuple(seconds), tuple(seconds.values()), split.kind, annotated)


def _has_boxes(data: Place) -> bool:
    """Whether a folder holds annotations, or something that looks like them."""
    if not is_folder(data):
        return False
    return "annotations" in folders_in(data) or any(
        name.startswith("ava_") for name in (*files_in(data), *folders_in(data))
    )


def regular_moments(data: Place, *, every: int = 1, workers: int = 1) -> Moments:
    """A key frame of any videos each `every` seconds, from their start to their end.

    Args:
        data: a video, a folder of videos or a list of them; a video's name is its path without its suffix.

    Raises:
        InputError: there are none, or two have one name.
    """
    within(1, math.inf, every=every)
    rows = [row for split in splits_of(data) or (None,) for row in read_listing(data, split=split).rows]
    films = _films(data, rows)
    seconds, left_out = {}, []
    for place, found in in_workers(partial(_regular, every=every), films, workers=workers):
        if isinstance(found, tuple):
            seconds[films[place]] = found
        else:
            left_out.append(f"{films[place].place} {found.why}" if isinstance(found, Lost) else found)
    kind = f"{counted(len(films), 'video')} of {data}, a key frame every {counted(every, 'second')}"
    return Moments(tuple(seconds), tuple(seconds.values()), kind, left_out=tuple(left_out))


def pictures_at(reader: FilmReader, film: Film, seconds: Sequence[int]) -> tuple[dict[int, Picture], str]:
    """The frames at these seconds, and why some are not there."""
    with suppress(BrokenVideo):
        return dict(zip(seconds, reader.at(film, seconds), strict=True)), ""
    pictures: dict[int, Picture] = {}
    wrong = ""
    for second in seconds:
        try:
            pictures[second] = reader.at(film, [second])[0]
        except BrokenVideo as error:
            wrong = wrong or str(error)
    return pictures, wrong


def _films(data: Place, rows: Sequence[Row]) -> list[Film]:
    films: dict[str, Film] = {}
    for row in rows:
        if isinstance(row.source, Piece) or is_picture(row.name):
            raise InputError(f"{data} holds {row.name}, which is packed or a picture; give videos, as files or folders")
        name = os.path.splitext(row.name)[0]
        if name in films:
            raise InputError(
                f"{data} has two videos called {name}, {last_name(films[name].place or '')} and "
                f"{last_name(row.source)}; rename one, as boxes are known by the names"
            )
        frames = is_folder(row.source)
        films[name] = Film(name, row.source, "frames" if frames else "file", rate=row.rate or USUAL_RATE)
    return list(films.values())


def _regular(film: Film, every: int) -> tuple[int, ...] | str:
    """The seconds of its key frames, or why they are not known."""
    assert film.place is not None
    try:
        frames, rate = count_frames(film.place), frame_rate(film.place) or film.rate
    except BrokenVideo as error:
        return str(error)
    return tuple(second for second in range(0, math.ceil(frames / rate), every) if nearest(second * rate) < frames)
