"""Detected boxes find the annotated boxes that they overlap, of all key frames at once: hits, and where they rank."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

_AT_ONCE = 2**22  # scores that are looked at together


class Hits(NamedTuple):
    """The detections of an action that hit an annotated box, the best one first.

    Args:
        rank: among all detections of the action, from 1.
    """

    rank: Int64[np.ndarray, "h"]
    score: Float[np.ndarray, "h"]


class Annotated(NamedTuple):
    """Annotated boxes of one action, ordered by key frame.

    Args:
        own, first: by key frame, how many are its own, and where they begin.
    """

    box: Float64[np.ndarray, "g 4"]
    own: Int64[np.ndarray, "f"]
    first: Int64[np.ndarray, "f"]


def annotated_boxes(frame: Int[np.ndarray, "g"], box: Float64[np.ndarray, "g 4"], frames: int) -> Annotated:
    """
    Args:
        frame: the key frame of each box, of so many.
    """
    count = np.bincount(frame, minlength=frames)
    return Annotated(box[np.argsort(frame, kind="stable")], count, np.cumsum(count) - count)


def hits(
    frame: Int[np.ndarray, "n"],
    box: Float[np.ndarray, "m 4"],
    which: Int[np.ndarray, "n"],
    score: Float[np.ndarray, "n"],
    annotated: Annotated,
    *,
    iou: float,
    by_score: bool,
) -> Hits:
    """One after the other, a key frame's detections choose the annotated box that they overlap most, of equal ones the
    first; who overlaps it by `iou` and chooses it first hits it.

    Args:
        frame: of each detection of one action.
        which: a detection's box.
        by_score: the detections of a key frame choose by score, of equal ones the first; or else in their order.
    """
    order = best_first(score)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    near = np.flatnonzero(annotated.own[frame])
    overlap, chosen = _chosen(frame[near], box[which[near]].astype(np.float64), annotated)
    enough = overlap >= iou
    choosing, chosen = near[enough], chosen[enough]
    if by_score:
        turn = np.argsort(place[choosing])
        choosing, chosen = choosing[turn], chosen[turn]
    _, first = np.unique(chosen, return_index=True)
    rank = np.sort(place[choosing[first]])
    return Hits(rank + 1, score[order[rank]])


def _chosen(
    frame: Int[np.ndarray, "n"], box: Float64[np.ndarray, "n 4"], annotated: Annotated
) -> tuple[Float64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """The annotated box of its key frame that each box overlaps most, and by how much."""
    best, chosen = np.full(len(frame), -1.0), np.zeros(len(frame), np.int64)
    count, first = annotated.own[frame], annotated.first[frame]
    left = np.arange(len(frame))
    for nth in range(int(count.max(initial=0))):
        left = left[count[left] > nth]
        other = first[left] + nth
        overlap = overlaps(box[left], annotated.box[other])
        better = overlap > best[left]
        best[left[better]], chosen[left[better]] = overlap[better], other[better]
    return best, chosen


def overlaps(one: Float64[np.ndarray, "n 4"], other: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n"]:
    """Each box's intersection with the one in the same row, over their union."""
    inside = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.maximum(inside, 0).prod(axis=1)
    union = _area(one) + _area(other) - shared
    return np.divide(shared, union, out=np.zeros(len(one)), where=shared > 0)


def _area(box: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n"]:
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])


def best_first(score: Float[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Their order, of equal ones the first."""
    order = np.argsort(-score)  # several times as fast as a stable order
    ordered = score[order]
    falls = np.append(True, ordered[1:] != ordered[:-1])
    tied = ~(falls & np.append(falls[1:], True))
    if tied.any():
        some = order[tied]
        order[tied] = some[np.lexsort((some, np.cumsum(falls)[tied]))]
    return order


def best_rows(frame: Int[np.ndarray, "n"], score: Float[np.ndarray, "n"], most: int) -> Bool[np.ndarray, "n"]:
    """So many rows of each key frame, those with the highest scores, of equal ones the first."""
    count = np.bincount(frame)
    kept = count[frame] <= most
    many = np.flatnonzero(~kept)
    order = many[np.lexsort((-score[many], frame[many]))]
    count = np.bincount(frame[many], minlength=len(count))
    nth = np.arange(len(order)) - (np.cumsum(count) - count)[frame[order]]
    kept[order[nth < most]] = True
    return kept


def best_cells(
    frame: Int[np.ndarray, "m"],
    boxes: Int64[np.ndarray, "n"],
    scores: Float[np.ndarray, "m c"],
    columns: Int64[np.ndarray, "a"],
    most: int,
) -> tuple[Int64[np.ndarray, "k"], Int64[np.ndarray, "k"]]:
    """As `best_rows`, where each box has a score in each column; gives boxes, and places among the columns.

    Args:
        frame: of all boxes.
        boxes: those that are looked at, ascending.
        columns: those that are looked at.
    """
    order = boxes[np.argsort(frame[boxes], kind="stable")]
    count = np.bincount(frame[boxes])
    first = np.cumsum(count) - count
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for many in np.unique(count[count > 0]).tolist() if len(columns) else ():
        begins = first[count == many]
        step = max(1, _AT_ONCE // (many * len(columns)))
        for begin in range(0, len(begins), step):
            own = order[begins[begin : begin + step, None] + np.arange(many)]
            row, cell = np.nonzero(_highest(scores[own][..., columns].reshape(len(own), -1), most))
            found.append((own[row, cell // len(columns)], cell % len(columns)))
    box, column = (np.concatenate(each) for each in zip(*found, strict=True))
    return box, column


def _highest(scores: Float[np.ndarray, "r c"], most: int) -> Bool[np.ndarray, "r c"]:
    """So many of each row, of equal ones the first."""
    if scores.shape[1] <= most:
        return np.ones(scores.shape, bool)
    last = np.partition(scores, -most, axis=1)[:, -most, None]
    above, equal = scores > last, scores == last
    return above | (equal & (np.cumsum(equal, axis=1) <= most - above.sum(axis=1, keepdims=True)))
