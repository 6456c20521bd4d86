"""Key frames: the moments of videos at which persons have boxes, and what they do there."""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from vidstill.data.ava.box_columns import Boxes, Moments, labelled_by_overlap, merged, wanted
from vidstill.data.ava.box_table import BoxRows
from vidstill.data.ava.clip_reader import Film
from vidstill.data.ava.label_map import Actions
from vidstill.data.storage.fetch import Place
from vidstill.data.storage.filesystem import last_name
from vidstill.utils.types import InputError, within


@dataclass(frozen=True)
class KeyFrame:
    """One of them.

    Args:
        boxes: x1, y1, x2, y2 as fractions of the frame's width and height.
        labels: what each person does, by the actions' places.
        scores: of whoever found the boxes; 1 where they are annotated.
    """

    film: Film
    second: int
    boxes: Float64[np.ndarray, "m 4"]
    labels: Bool[np.ndarray, "m a"]
    scores: Float64[np.ndarray, "m"]

    @property
    def name(self) -> str:
        """The key by which AVA's files know it."""
        return f"{self.film.name},{self.second:04d}"


@dataclass(frozen=True)
class KeyFrames:
    """Key frames in the order of their videos and seconds, as columns.

    Args:
        film: whose each is, a place among the films.
        ends: where each one's boxes end among all of them, after a 0.
        kind: in words, what the data were taken for.
        fingerprint: of all that is here, and of the films' paths.
    """

    films: tuple[Film, ...]
    film: Int32[np.ndarray, "n"]
    second: Int32[np.ndarray, "n"]
    ends: Int64[np.ndarray, "n+1"]
    boxes: Float64[np.ndarray, "m 4"]
    labels: Bool[np.ndarray, "m a"]
    scores: Float64[np.ndarray, "m"]
    actions: Actions
    source: Place
    kind: str
    fingerprint: str

    def __len__(self) -> int:
        return len(self.film)

    def __getitem__(self, place: int) -> KeyFrame:
        own = slice(self.ends[place], self.ends[place + 1])
        return KeyFrame(
            self.films[self.film[place]],
            int(self.second[place]),
            self.boxes[own],
            self.labels[own],
            self.scores[own],
        )

    @property
    def most_boxes(self) -> int:
        """That one of them has."""
        return int(np.diff(self.ends).max(initial=0))


@dataclass(frozen=True, kw_only=True)
class PersonBoxes:
    """Boxes that a detector found, which join the annotated ones in training.

    Args:
        score: those with this score or more.
        iou: a box has the actions of the annotated box that it overlaps most, if by this much or more; None: those that
            its file states. One that has no actions is a negative: all of them are to be told as absent.
        most: of a key frame's boxes that have actions by `iou`, beside the annotated ones; None: all.
    """

    score: float = 0.9
    iou: float | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        within(0, 1, score=self.score, iou=self.iou)
        within(0, math.inf, most=self.most)


def frames_to_train(
    annotated: BoxRows,
    actions: Actions,
    films: Sequence[Film],
    *,
    persons: BoxRows | None = None,
    config: PersonBoxes | None = None,
    seconds: Collection[int] | None = None,
    excluded: Moments = frozenset(),
    kind: str = "boxes",
) -> KeyFrames:
    """The key frames that are trained on; those of films that are not there are left out.

    Rows of one key frame with the same coordinates are one box with several actions; one without any is a negative.

    Args:
        persons, config: boxes that a detector found and how they join the annotated ones; without a config none do. A
            key frame that has no annotated boxes is one by what a detector found only where the file states the
            actions.
        seconds: those that count; None: all.
        excluded: moments that do not.
        kind: in words, what the data were taken for.

    Raises:
        InputError: a row names a video that is not among the films, the persons' boxes are missing, or nothing is left.
    """
    keep = _among(seconds)
    boxes = wanted(annotated, films, actions, keep=keep, excluded=excluded)
    of = "annotated"
    if config is not None:
        if persons is None:
            raise InputError(
                f"this training joins a detector's boxes to those of {annotated.source}, and no file of them is there; "
                "make one with `vidstill detect boxes`, or train without them: --clips.persons None"
            )
        by_overlap = config.iou is not None
        found = wanted(
            persons,
            films,
            actions,
            keep=keep,
            excluded=excluded,
            least=config.score,
            annotated=False,
            labelled=not by_overlap,
        )
        if config.iou is not None:
            boxes = merged(boxes)
            found = labelled_by_overlap(merged(found), boxes, config.iou, config.most)
        boxes = boxes.and_then(found)
        of = f"annotated, or found by a detector with a score of {config.score:g} or more"
    if not len(boxes):
        raise InputError(f"none of the {len(annotated):,} rows of {annotated.source} is left to train on; {_LEFT_OUT}")
    return _key_frames(merged(boxes), films, actions, annotated.source, kind, of)


def frames_to_test(
    boxes: BoxRows,
    actions: Actions,
    films: Sequence[Film],
    *,
    threshold: float | None,
    every: int = 1,
    seconds: Collection[int] | None = None,
    excluded: Moments = frozenset(),
    kind: str = "boxes",
) -> KeyFrames:
    """The boxes that a test asks about; those of films that are not there are left out.

    Args:
        boxes: what a detector of persons found, or the annotated ones.
        threshold: boxes with this score or more are asked about; None: they are annotated ones, and all are.
        every: of the seconds, those that this divides.
        seconds, excluded, kind: as in training.

    Raises:
        InputError: nothing is left to ask about.
    """
    among = _among(seconds)

    def keep(second: Int64[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        return among(second) & (second % every == 0)

    asked = wanted(boxes, films, actions, keep=keep, excluded=excluded, least=threshold, annotated=threshold is None)
    if not len(asked):
        lacking = (
            f"none has a score of {threshold:g} or more; lower the threshold"
            if threshold is not None and len(boxes) and boxes.score.max() < threshold
            else _LEFT_OUT
        )
        raise InputError(f"none of the {len(boxes):,} rows of {boxes.source} is left to ask about; {lacking}")
    of = "as annotated" if threshold is None else f"found by a detector with a score of {threshold:g} or more"
    return _key_frames(merged(asked), films, actions, boxes.source, kind, of)


_LEFT_OUT = "the videos may be missing, or their seconds be excluded"


def _among(seconds: Collection[int] | None) -> Callable[[Int64[np.ndarray, "n"]], Bool[np.ndarray, "n"]]:
    """Whether seconds count."""
    if seconds is None:
        return lambda second: np.ones(len(second), bool)
    known = np.array(sorted(seconds), np.int64)
    return lambda second: np.isin(second, known)


def _key_frames(boxes: Boxes, films: Sequence[Film], actions: Actions, source: Place, kind: str, of: str) -> KeyFrames:
    """Boxes that are merged, by their key frames."""
    _, starts = np.unique(boxes.moment, return_index=True)
    labels = np.zeros((len(boxes), len(actions)), bool)
    labels[boxes.owner, boxes.place] = True
    columns = (
        boxes.film[starts].astype(np.int32),
        boxes.second[starts].astype(np.int32),
        np.append(starts, len(boxes)),
        boxes.box,
        labels,
        boxes.score,
    )
    kind = f"{kind}: {len(starts):,} key frames with {len(boxes):,} boxes, {of}"
    return KeyFrames(tuple(films), *columns, actions, source, kind, _fingerprint(films, actions, columns))


def _fingerprint(films: Sequence[Film], actions: Actions, columns: Sequence[np.ndarray]) -> str:
    paths = [(film.name, film.place and last_name(film.place), film.form, film.start, film.rate) for film in films]
    words = [paths, list(actions.names.items()), sorted(actions.evaluated)]
    digest = hashlib.sha256(json.dumps(words).encode())
    for column in columns:
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()
