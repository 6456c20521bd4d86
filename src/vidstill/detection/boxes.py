"""Boxes of the persons in key frames, found by a detector: each process finds its share, the first writes the file."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torchvision.ops import box_iou

from vidstill.data.boxes.films import Film, FilmReader
from vidstill.data.pictures import Picture
from vidstill.data.workers import Crew, Lost, in_order
from vidstill.detection.kept import Kept, Key
from vidstill.detection.moments import Moments, pictures_at
from vidstill.detection.persons import PersonDetector, Persons
from vidstill.engine.runtime import Runtime
from vidstill.types import within

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
        if (lacking := [second for second in seconds if Key(film.name, second) not in known])
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
        if (key := Key(film.name, second)) in found
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
) -> tuple[dict[Key, Persons], dict[str, str]]:
    """The persons of this process's key frames, and by film why some of its could not be read."""
    found: dict[Key, Persons] = {}
    broken: dict[str, str] = {}
    passed, of = 0, sum(len(work.seconds) for work in works)
    tell(passed, of)
    for work, pictures, why in _read(works, workers):
        if why:
            broken.setdefault(work.film.name, why)
        persons = detector(list(pictures.values())) if pictures else []
        now = {Key(work.film.name, second): each for second, each in zip(pictures, persons, strict=True)}
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


def _recalls(moments: Moments, found: Mapping[Key, Persons]) -> dict[str, Any]:
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
