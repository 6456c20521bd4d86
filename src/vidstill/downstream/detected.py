"""Which detections take part in AVA's score, by action: rows of a file, or boxes with a score for each action."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from vidstill.data.boxes.rows import BoxRows, BoxScores
from vidstill.downstream.matched import best_cells, best_rows

Taken = Iterator[tuple[Int64[np.ndarray, "n"], Float[np.ndarray, "n"]]]
"""Of each action in turn the boxes of its detections, in their order, and their scores."""


def taken_rows(
    detected: BoxRows,
    numbers: Int64[np.ndarray, "a"],
    frame: Int[np.ndarray, "m"],
    allowed: Bool[np.ndarray, "m"],
    most: int | None,
) -> tuple[Taken, dict[str, int]]:
    """
    Args:
        numbers: of the actions, ascending.
        frame: each row's key frame.
        allowed: those whose key frame is not excluded.
        most: of a key frame's rows, the best ones alone; one without area may be among them.

    Returns:
        Them, and how many rows take no part, by the reason.
    """
    known = np.isin(detected.action, numbers)
    taken = np.flatnonzero(known & allowed)
    left_out = {"of other actions": int((~known).sum()), "in excluded key frames": int((known & ~allowed).sum())}
    if most is not None:
        best = taken[best_rows(frame[taken], detected.score[taken], most)]
        left_out[_beyond(most)] = len(taken) - len(best)
        taken = best
    whole = taken[_have_area(detected.box)[taken]]
    left_out["without area"] = len(taken) - len(whole)
    return _split(
        np.searchsorted(numbers, detected.action[whole]), whole, detected.score[whole], len(numbers)
    ), left_out


def taken_scores(
    detected: BoxScores,
    numbers: Int64[np.ndarray, "a"],
    frame: Int[np.ndarray, "m"],
    allowed: Bool[np.ndarray, "m"],
    most: int | None,
) -> tuple[Taken, dict[str, int]]:
    """As `taken_rows`; a detection is a box and one of its scores.

    Raises:
        ValueError: a score is no finite number.
    """
    _check(detected)
    places = {number: place for place, number in enumerate(detected.numbers)}
    columns = np.array([places.get(number, -1) for number in numbers.tolist()], np.int64)  # -1: it has none
    scored = np.flatnonzero(columns >= 0)
    boxes = np.flatnonzero(allowed)
    area = _have_area(detected.box)
    left_out = {
        "of other actions": len(detected) * (len(places) - len(scored)),
        "in excluded key frames": (len(detected) - len(boxes)) * len(scored),
    }
    if most is None:
        whole = boxes[area[boxes]]
        left_out["without area"] = (len(boxes) - len(whole)) * len(scored)
        return _columns(detected.scores, whole, columns.tolist()), left_out
    box, cell = best_cells(frame, boxes, detected.scores, columns[scored], most)
    left_out[_beyond(most)] = len(boxes) * len(scored) - len(box)
    whole = area[box]
    left_out["without area"] = len(box) - int(whole.sum())
    order = np.sort(scored[cell[whole]] * len(detected) + box[whole])
    action, box = np.divmod(order, max(1, len(detected)))
    return _split(action, box, detected.scores[box, columns[action]], len(numbers)), left_out


def _split(
    action: Int64[np.ndarray, "n"], box: Int64[np.ndarray, "n"], score: Float[np.ndarray, "n"], actions: int
) -> Taken:
    order = np.argsort(action.astype(np.min_scalar_type(actions)), kind="stable")  # of small numbers it is fast
    ends = np.searchsorted(action[order], np.arange(actions + 1))
    for begin, end in pairwise(ends):
        own = order[begin:end]
        yield box[own], score[own]


def _columns(scores: Float[np.ndarray, "m c"], boxes: Int64[np.ndarray, "n"], columns: list[int]) -> Taken:
    for column in columns:
        if column < 0:
            yield boxes[:0], scores[:0, 0]
        else:
            yield boxes, scores[boxes, column]


def _beyond(most: int) -> str:
    return f"beyond the {most} best of their key frame"


def _have_area(box: Float[np.ndarray, "m 4"]) -> Bool[np.ndarray, "m"]:
    return (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])


def _check(detected: BoxScores) -> None:
    sound = np.isfinite(detected.scores).all(axis=1) & np.isfinite(detected.box).all(axis=1)
    if not sound.all():
        place = int(sound.argmin())
        name, second = detected.videos[detected.video[place]], detected.second[place]
        raise ValueError(f"a box of {name} at second {second} or a score of it is no finite number; leave it out")
