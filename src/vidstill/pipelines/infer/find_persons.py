"""Boxes of the persons in key frames, found by a detector: each process finds its share, the first writes the file."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torchvision.ops import box_iou

from vidstill.data.ava.clip_reader import Film, FilmReader
from vidstill.data.ava.dataset import BoxSplit, find_boxes
from vidstill.data.ava.frame_sampling import nearest
from vidstill.data.decode.images import Picture, is_picture
from vidstill.data.decode.probe import count_frames, frame_rate
from vidstill.data.decode.stream import USUAL_RATE
from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.open import read_listing, splits_of
from vidstill.data.manifest.table import Row
from vidstill.data.storage.fetch import BrokenVideo, Piece, Place
from vidstill.data.storage.filesystem import files_in, folders_in, is_folder, last_name
from vidstill.engine.distributed import Runtime
from vidstill.parallel.pool import Crew, Lost, in_order, in_workers
from vidstill.pipelines.infer.journal import Kept, MomentKey
from vidstill.pipelines.infer.person_detector import PersonDetector, Persons
from vidstill.utils.text import counted
from vidstill.utils.types import InputError, within

Tell = Callable[[float, float], None]

MATCHED = 0.5
"""An annotated box is found if a box overlaps it by so much (intersection over union)."""

SURE = 0.8
"""The score from which the recipes of VideoMAE's detection code ask about a box."""


@dataclass(frozen=True)
class Boxes:
    """What was found.

    Args:
        without: key frames in which no person was found.
        annotated: boxes of persons that are annotated in these key frames; 0 where there are no annotations.
        recall: the share of these that was found; `sure` by boxes with a score of `SURE` or more.
        broken: a sentence for each film that could not be read, or not all of it.
    """

    out: Path
    key_frames: int
    boxes: int
    without: int
    annotated: int
    recall: float | None
    sure: float | None
    broken: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}


class _Work(NamedTuple):
    """Some of a film's key frames, which are read and looked at together."""

    film: Film
    seconds: tuple[int, ...]


@dataclass(frozen=True)
class Moments:
    """MomentKey frames in the order of their films and seconds.

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


def find_boxes_of_persons(
    detector: PersonDetector,
    moments: Moments,
    out: Path,
    *,
    runtime: Runtime,
    batch: int = 8,
    workers: int = 0,
    done: Tell | None = None,
) -> Boxes:
    """Finds the persons in all key frames, and writes `video,second,x1,y1,x2,y2,,score`, as PySlowFast reads it.

    What is found is kept in `OUT.begun` until the file is whole, so that the same call goes on where it was stopped.

    Args:
        batch: key frames of one film that go through the detector at once.
        workers: processes that decode; 0: this one does.
        done: is told how many key frames of this process's share are done, and of how many.

    Raises:
        InputError: `out` is there, or cannot be written; not one key frame can be read.
    """
    within(1, math.inf, batch=batch)
    about = {"detector": detector.name, "weights": detector.weights, "score": detector.score, "most": detector.most}
    kept = Kept.beside(out, about, moments.films)
    known = runtime.first(lambda: kept.begin(out))
    works = [
        _Work(film, tuple(lacking[first : first + batch]))
        for film, seconds in zip(moments.films, moments.seconds, strict=True)
        if (lacking := [second for second in seconds if MomentKey(film.name, second) not in known])
        for first in range(0, len(lacking), batch)
    ]
    tell = done or (lambda number, of: None)
    found, broken = _found(detector, kept, runtime, works[runtime.rank :: runtime.world], workers, tell)
    for theirs, their_broken in runtime.gathered((found, broken)):
        found |= theirs
        broken |= their_broken
    found |= known
    sentences = (*moments.left_out, *(broken[film.name] for film in moments.films if film.name in broken))
    keys = [
        key
        for film, seconds in zip(moments.films, moments.seconds, strict=True)
        for second in seconds
        if (key := MomentKey(film.name, second)) in found
    ]
    boxes = runtime.first(lambda: kept.finish(out, keys, found, sentences))
    recalls = _recalls(moments, {key: found[key] for key in keys})
    return Boxes(
        out=out,
        key_frames=len(keys),
        boxes=boxes,
        without=sum(not len(found[key].scores) for key in keys),
        **recalls,
        broken=sentences,
    )


def _found(
    detector: PersonDetector, kept: Kept, runtime: Runtime, works: Sequence[_Work], workers: int, tell: Tell
) -> tuple[dict[MomentKey, Persons], dict[str, str]]:
    """The persons of this process's key frames, and by film why some of its could not be read."""
    found: dict[MomentKey, Persons] = {}
    broken: dict[str, str] = {}
    passed, of = 0, sum(len(work.seconds) for work in works)
    tell(passed, of)
    for work, pictures, why in _read(works, workers):
        if why:
            broken.setdefault(work.film.name, why)
        persons = detector(list(pictures.values())) if pictures else []
        now = {MomentKey(work.film.name, second): each for second, each in zip(pictures, persons, strict=True)}
        kept.note(runtime.rank, now)
        found |= now
        passed += len(work.seconds)
        tell(passed, of)
    return found, broken


def _read(works: Sequence[_Work], workers: int) -> Iterator[tuple[_Work, Mapping[int, Picture], str]]:
    """The pictures of each work by their seconds, and why some are not there."""
    read_one = partial(_pictures, FilmReader())
    if workers < 1 or not works:
        yield from ((work, *read_one(work)) for work in works)
        return
    ahead = 2 * workers
    with Crew(read_one, workers=workers, ahead=ahead, depth=1) as crew:
        for work, read in zip(works, in_order(crew.give, crew.take, works, ahead), strict=True):
            if isinstance(read, Lost):
                read = {}, f"{work.film.place}: reading its second {work.seconds[0]} or one soon after {read.why}"
            yield work, *read


def _pictures(reader: FilmReader, work: _Work) -> tuple[dict[int, Picture], str]:
    return pictures_at(reader, work.film, work.seconds)


def _recalls(moments: Moments, found: Mapping[MomentKey, Persons]) -> dict[str, Any]:
    """How many persons are annotated in the key frames that were looked at, and which share of them was found."""
    annotated, any_score, sure = 0, 0, 0
    for key, persons in found.items():
        theirs = moments.annotated.get((key.film, key.second))
        if theirs is None or not len(theirs):
            continue
        annotated += len(theirs)
        met = box_iou(torch.from_numpy(theirs), torch.from_numpy(persons.boxes)).numpy() >= MATCHED
        any_score += int(met.any(axis=1).sum())
        sure += int(met[:, persons.scores >= SURE].any(axis=1).sum())
    recall, surely = (any_score / annotated, sure / annotated) if annotated else (None, None)
    return {"annotated": annotated, "recall": recall, "sure": surely}


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
