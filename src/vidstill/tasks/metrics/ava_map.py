"""AVA's score: the mean over actions of the average precision of boxes, at an overlap of one half."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from vidstill.data.ava.box_table import BoxRows, BoxScores
from vidstill.data.ava.label_map import Actions
from vidstill.tasks.results import csv_lines
from vidstill.utils.terminal import aligned
from vidstill.utils.text import counted, one_line

Matching = Literal["score_order_top50", "score_order", "file_order"]
"""In which order a key frame's detections choose their annotated boxes: by score, the 50 best rows alone (the data
set's own script); by score; or as they are stated (PySlowFast's copy of that script)."""

_MOST = 50  # rows of a key frame, of all actions together


class Curve(NamedTuple):
    """Precision and recall, in [0, 1], of the detections down to each hit, from the best one on.

    Args:
        score: of the hit.
    """

    precision: Float64[np.ndarray, "h"]
    recall: Float64[np.ndarray, "h"]
    score: Float[np.ndarray, "h"]

    @property
    def envelope(self) -> Float64[np.ndarray, "h"]:
        """The best precision at a hit's recall or a higher one."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]


class Hits(NamedTuple):
    """The detections of an action that hit an annotated box, the best one first.

    Args:
        rank: among all detections of the action, from 1.
    """

    rank: Int64[np.ndarray, "h"]
    score: Float[np.ndarray, "h"]


@dataclass(frozen=True)
class ActionFound:
    """One action's detections.

    Args:
        annotated: how many boxes have it.
        detected: how many detections of it there are.
    """

    number: int
    name: str
    annotated: int
    detected: int
    hits: Hits

    @cached_property
    def curve(self) -> Curve:
        number = np.arange(1, len(self.hits.rank) + 1, dtype=np.float64)
        return Curve(number / self.hits.rank, number / max(1, self.annotated), self.hits.score)

    @cached_property
    def average_precision(self) -> float | None:
        """In [0, 1]; None: it is not annotated, so that it has none."""
        if not self.annotated:
            return None
        return float((np.diff(self.curve.recall, prepend=0) * self.curve.envelope).sum())


@dataclass(frozen=True)
class FrameMAP:
    """A score, and what it is made of.

    Args:
        found: every evaluated action, by number.
        frames: key frames that have annotations which count.
        left_out: how many detections took no part, by the reason.
        unannotated: how many count and are in key frames in which nothing is annotated.
    """

    found: tuple[ActionFound, ...]
    matching: Matching
    iou: float
    frames: int
    left_out: dict[str, int]
    unannotated: int

    @cached_property
    def mean(self) -> float | None:
        """In [0, 1], over the actions that are annotated; None: none is."""
        each = [found.average_precision for found in self.found if found.average_precision is not None]
        return float(np.mean(each)) if each else None

    def curve(self, number: int) -> Curve:
        """Of an evaluated action."""
        return next(found.curve for found in self.found if found.number == number)

    def plain(self) -> dict[str, Any]:
        """Every number, as JSON has it: under the names of AVA's own script as shares, under ours in percent."""
        at = f"@{self.iou}IOU"
        official: dict[str, Any] = {f"PascalBoxes_Precision/mAP{at}": self.mean}
        for found in self.found:
            official[f"PascalBoxes_PerformanceByCategory/AP{at}/{found.name}"] = found.average_precision
        return {
            "mean_average_precision": _percent(self.mean),
            "matching": self.matching,
            "iou": self.iou,
            "key_frames": self.frames,
            "annotated": sum(found.annotated for found in self.found),
            "detected": sum(found.detected for found in self.found),
            "hits": sum(len(found.hits.rank) for found in self.found),
            "left_out": self.left_out,
            "in_unannotated_key_frames": self.unannotated,
            "actions": [_plain(found) for found in self.found],
            **official,
        }

    def classes_csv(self) -> Iterator[bytes]:
        """Each action with its average precision in percent, and what it is made of."""
        words = ("number", "name", "average_precision", "annotated", "detected", "hits")
        return csv_lines([[*words], *([_plain(found)[word] for word in words] for found in self.found)])


def in_words(found: dict[str, Any]) -> str:
    """A score, as `FrameMAP.plain` gives it: the mean, then the actions from the best one on."""
    lines = {
        "mAP": _in_percent(found["mean_average_precision"]) + f" at an overlap of {found['iou']}, {found['matching']}",
        "annotated": f"{counted(found['annotated'], 'action')} in {counted(found['key_frames'], 'key frame')}",
        "detected": f"{found['detected']:,}, of which {found['hits']:,} hit",
    }
    if left := [f"{count:,} {why}" for why, count in found["left_out"].items() if count]:
        lines["left out"] = ", ".join(left)
    if found["in_unannotated_key_frames"]:
        lines["unannotated"] = (
            f"{found['in_unannotated_key_frames']:,} are where nothing is annotated, and count as wrong"
        )
    actions = sorted(found["actions"], key=lambda each: -1.0 if (ap := each["average_precision"]) is None else ap)
    width = max((len(one_line(each["name"])) for each in actions), default=0)
    table = [f"{'':{width}}  {'AP':>8}  annotated   detected       hits"]
    for each in reversed(actions):
        counts = "".join(f"{each[word]:>11,}" for word in ("annotated", "detected", "hits"))
        table.append(f"{one_line(each['name']):{width}}  {_in_percent(each['average_precision']):>8}{counts}")
    return "\n".join([aligned(lines), "", *table])


def _plain(found: ActionFound) -> dict[str, Any]:
    return {
        "number": found.number,
        "name": found.name,
        "average_precision": _percent(found.average_precision),
        "annotated": found.annotated,
        "detected": found.detected,
        "hits": len(found.hits.rank),
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _in_percent(percent: float | None) -> str:
    return "–" if percent is None else f"{percent:.2f} %"


def frame_map(
    annotated: BoxRows,
    detected: BoxRows | BoxScores,
    actions: Actions,
    *,
    excluded: AbstractSet[tuple[str, int]] = frozenset(),
    matching: Matching = "score_order_top50",
    iou: float = 0.5,
) -> FrameMAP:
    """The average precision of each evaluated action, as AVA's script has it (github.com/activitynet/ActivityNet).

    A detection of another action or without area takes no part; one where nothing is annotated, or in a video that has
    no annotations, counts as a miss. Of equal scores the one that is stated first is the better one, where the
    script's order is left to chance.

    Args:
        excluded: videos and seconds of key frames that take no part.
    """
    numbers = np.array(sorted(actions.evaluated), np.int64)
    names = {name: place for place, name in enumerate(dict.fromkeys((*annotated.videos, *detected.videos)))}
    barred = np.array([_moment(names[name], second) for name, second in excluded if name in names], np.int64)
    moments, own = _moments(annotated, names), _moments(detected, names)
    truth = np.flatnonzero(np.isin(annotated.action, numbers) & ~np.isin(moments, barred))
    truth = truth[np.argsort(annotated.action[truth], kind="stable")]
    ends = np.append(np.searchsorted(annotated.action[truth], numbers), len(truth))
    annotated_frames = np.unique(moments[truth])
    frames = np.union1d(annotated_frames, own)
    alone = ~np.isin(frames, annotated_frames)
    frame, truth_frame = np.searchsorted(frames, own), np.searchsorted(frames, moments[truth])
    most = _MOST if matching == "score_order_top50" else None
    allowed = ~np.isin(own, barred)
    if isinstance(detected, BoxRows):
        taken, left_out = taken_rows(detected, numbers, frame, allowed, most)
    else:
        taken, left_out = taken_scores(detected, numbers, frame, allowed, most)
    found, unannotated = [], 0
    for place, (which, score) in enumerate(taken):
        theirs = slice(ends[place], ends[place + 1])
        boxes = annotated_boxes(truth_frame[theirs], annotated.box[truth[theirs]], len(frames))
        by_score = matching != "file_order"
        hit = hits(frame[which], detected.box, which, score, boxes, iou=iou, by_score=by_score)
        number = int(numbers[place])
        found.append(ActionFound(number, actions.names[number], len(boxes.box), len(which), hit))
        unannotated += int(alone[frame[which]].sum())
    return FrameMAP(tuple(found), matching, iou, len(annotated_frames), left_out, unannotated)


def _moment(video: Any, second: Any) -> Any:
    return video << 32 | second


def _moments(rows: BoxRows | BoxScores, names: dict[str, int]) -> Int64[np.ndarray, "n"]:
    """A number for each row's video and second."""
    places = np.array([names[name] for name in rows.videos], np.int64)
    return _moment(places[rows.video], rows.second)


_AT_ONCE = 2**22  # scores that are looked at together


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


Taken = Iterator[tuple[Int64[np.ndarray, "n"], Float[np.ndarray, "n"]]]


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
