"""Rows of boxes become boxes: those that are wanted, each once with all its actions; a detector's ones by overlap."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from vidstill.data.ava.box_table import BoxRows
from vidstill.data.ava.clip_reader import Film
from vidstill.data.ava.csv_reader import NO_ACTION
from vidstill.data.ava.label_map import Actions
from vidstill.data.storage.filesystem import last_name
from vidstill.utils.text import counted
from vidstill.utils.types import InputError

OUTSIDE = 1e-3
"""So far, in frames, a box may reach over the edge before it is said: files state three decimals."""

_TABLES = (".json", ".npz", ".pickle", ".pkl")  # suffixes of files whose boxes are counted, as they have no lines

log = logging.getLogger("vidstill")

Moments = Collection[tuple[str, int]]
"""Of videos, by name, the seconds."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of key frames as columns.

    Args:
        film: a place among the films.
        owner, place: pair by pair, which of the boxes has which action.
    """

    film: Int64[np.ndarray, "m"]
    second: Int64[np.ndarray, "m"]
    box: Float64[np.ndarray, "m 4"]
    score: Float64[np.ndarray, "m"]
    owner: Int64[np.ndarray, "p"]
    place: Int64[np.ndarray, "p"]

    def __len__(self) -> int:
        return len(self.film)

    @property
    def moment(self) -> Int64[np.ndarray, "m"]:
        """One number for each key frame, in the order of films and seconds."""
        return moments_of(self.film, self.second)

    def of(self, chosen: Bool[np.ndarray, "m"]) -> "Boxes":
        """Those that are chosen."""
        kept = chosen[self.owner]
        renumbered = np.cumsum(chosen) - 1
        return self.at(np.flatnonzero(chosen), renumbered[self.owner[kept]], self.place[kept])

    def at(self, rows: Int64[np.ndarray, "k"], owner: Int64[np.ndarray, "q"], place: Int64[np.ndarray, "q"]) -> "Boxes":
        """Some of them with other actions."""
        return Boxes(self.film[rows], self.second[rows], self.box[rows], self.score[rows], owner, place)

    def and_then(self, other: "Boxes") -> "Boxes":
        """These, and the other ones after them."""
        ours = (self.film, self.second, self.box, self.score, self.owner, self.place)
        theirs = (other.film, other.second, other.box, other.score, other.owner + len(self), other.place)
        return Boxes(*(np.concatenate(pair) for pair in zip(ours, theirs, strict=True)))


def moments_of(film: Int64[np.ndarray, "m"], second: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "m"]:
    return (film << 32) + second


def line_of(rows: BoxRows, row: int) -> str:
    """`line 3 of train.csv`, as messages say it."""
    return f"{'box' if last_name(rows.source).endswith(_TABLES) else 'line'} {rows.line[row]} of {rows.source}"


def wanted(
    rows: BoxRows,
    films: Sequence[Film],
    actions: Actions,
    *,
    keep: Callable[[Int64[np.ndarray, "n"]], Bool[np.ndarray, "n"]],
    excluded: Moments,
    least: float | None = None,
    annotated: bool = True,
    labelled: bool = True,
) -> Boxes:
    """The rows of films that are there, each as a box of its own. What is wrong with them is counted and logged.

    Args:
        keep: of seconds, which are wanted.
        least: the score that a row has at least.
        annotated: a video that is not among the films is a mistake; else its rows are left out.
        labelled: the rows' actions are wanted.

    Raises:
        InputError: such a video; its file and line are named.
    """
    places = {film.name: place for place, film in enumerate(films)}
    strange = np.array([name not in places for name in rows.videos], bool)[rows.video]
    chosen = np.ones(len(rows), bool) if least is None else rows.score >= least
    if annotated and strange.any():
        row = int(strange.argmax())
        raise InputError(
            f"{line_of(rows, row)} names the video {rows.videos[rows.video[row]]!r}, which is not among the data's "
            f"{len(films)}; add it or take the line out"
        )
    _say(rows, strange & chosen, "of videos that the annotations do not name, which are left out")
    film = np.array([places.get(name, len(films)) for name in rows.videos], np.int64)[rows.video]
    second = rows.second.astype(np.int64)
    chosen &= np.array([*(each.place is not None for each in films), False])[film] & keep(second)
    if excluded:
        none = np.array([(places[name], when) for name, when in excluded if name in places], np.int64).reshape(-1, 2)
        chosen &= ~np.isin(moments_of(film, second), moments_of(none[:, 0], none[:, 1]))
    chosen &= ~_without_area(rows, chosen)
    place = _places(rows, actions, chosen) if labelled else np.full(len(rows), -1)
    pairs = np.flatnonzero(place[chosen] >= 0)
    return Boxes(film[chosen], second[chosen], rows.box[chosen], rows.score[chosen], pairs, place[chosen][pairs])


def merged(boxes: Boxes) -> Boxes:
    """Boxes of the same coordinates become one with all their actions and the first one's score.

    They come in the order of films and seconds, those of a key frame in the order in which they are first met.
    """
    columns = boxes.moment, *boxes.box.T
    order = np.lexsort(columns[::-1])  # is stable: of equal ones the first stays first
    new = np.zeros(len(boxes), bool)
    new[:1] = True
    for column in columns:
        new[1:] |= column[order][1:] != column[order][:-1]
    first = order[new]
    arranged = np.lexsort((first, boxes.moment[first]))
    rank, whose = np.empty_like(arranged), np.empty_like(order)
    rank[arranged] = np.arange(len(arranged))
    whose[order] = rank[np.cumsum(new) - 1]
    return boxes.at(first[arranged], whose[boxes.owner], boxes.place)


def labelled_by_overlap(detected: Boxes, annotated: Boxes, iou: float, most: int | None) -> Boxes:
    """The detected boxes of annotated key frames, with the actions of what they overlap most; both are merged ones.

    Args:
        iou: they have actions if their overlap, intersection over union, is so much or more.
        most: so many of a key frame's that have actions are kept, those of the highest scores; None: all.
    """
    there = annotated.moment
    detected = detected.of(np.isin(detected.moment, there))
    start = np.searchsorted(there, detected.moment, "left")
    which, other = _spread(start, np.searchsorted(there, detected.moment, "right") - start)
    overlap = _overlap(detected.box[which], annotated.box[other])
    best = np.lexsort((other, -overlap, which))  # of each the one that it overlaps most, of equal ones the first
    best = best[np.unique(which[best], return_index=True)[1]]
    found = overlap[best] >= iou
    kept = np.ones(len(detected), bool)
    if most is not None:
        order = np.lexsort((-detected.score, detected.moment, ~found))[: found.sum()]
        starts = np.unique(detected.moment[order], return_index=True)[1]
        place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        kept[order[place >= most]] = False
    sorted_pairs = np.argsort(annotated.owner, kind="stable")
    owner, source = annotated.owner[sorted_pairs], other[best]
    start = np.searchsorted(owner, source, "left")
    count = np.where(found, np.searchsorted(owner, source, "right") - start, 0)
    mine, pair = _spread(start, count)
    everyone = np.arange(len(detected))
    return detected.at(everyone, mine, annotated.place[sorted_pairs[pair]]).of(kept)


def _spread(
    start: Int64[np.ndarray, "m"], count: Int64[np.ndarray, "m"]
) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]]:
    """Pairs of each row and every number of its range."""
    which = np.repeat(np.arange(len(start)), count)
    before = np.cumsum(count) - count
    return which, np.arange(len(which)) - before[which] + start[which]


def _overlap(one: Float64[np.ndarray, "m 4"], other: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "m"]:
    """Intersection over union."""
    size = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = size.clip(0).prod(1)
    return shared / ((one[:, 2:] - one[:, :2]).prod(1) + (other[:, 2:] - other[:, :2]).prod(1) - shared)


def _without_area(rows: BoxRows, chosen: Bool[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Those that have none inside of the frame; they and those that reach over its edge are said."""
    inside = rows.box.clip(0, 1)
    none = np.any(inside[:, 2:] <= inside[:, :2], axis=1)
    over = np.any(np.abs(rows.box - inside) > OUTSIDE, axis=1)
    _say(rows, chosen & none, "with a box without area in the frame, which are left out")
    _say(rows, chosen & over & ~none, "with a box that reaches out of the frame, of which what is inside counts")
    return none


def _places(rows: BoxRows, actions: Actions, chosen: Bool[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """The actions' places, -1 where a row has none, or one that is not in the list."""
    numbers, which = np.unique(rows.action, return_inverse=True)
    place = np.array([actions.places.get(int(number), -1) for number in numbers], np.int64)[which]
    unknown = chosen & (place < 0) & (rows.action != NO_ACTION)
    some = rows.action[unknown.argmax()] if unknown.any() else NO_ACTION
    _say(rows, unknown, f"with an action that the list of actions lacks, such as {some}; their boxes stay without it")
    return place


def _say(rows: BoxRows, which: Bool[np.ndarray, "n"], what: str) -> None:
    """Warns of rows, by how many there are and the first of them."""
    if count := int(which.sum()):
        first = line_of(rows, int(which.argmax()))
        log.warning("%s has %s %s; the first is %s", rows.source, counted(count, "row"), what, first)
