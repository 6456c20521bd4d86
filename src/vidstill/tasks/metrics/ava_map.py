"""AVA's score: the mean over actions of the average precision of boxes, at an overlap of one half."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from vidstill.data.ava.box_table import BoxScores, BoxTable
from vidstill.data.ava.label_map import LabelMap
from vidstill.tasks.results import format_csv
from vidstill.utils.terminal import format_key_values
from vidstill.utils.text import format_one_line, pluralize

MatchingOrder = Literal["score_order_top50", "score_order", "file_order"]
"""In which order a key frame's detections choose their annotated boxes: by score, the 50 best rows alone (the data
set's own script); by score; or as they are stated (PySlowFast's copy of that script)."""

_MAX_ROWS_PER_KEYFRAME = 50  # rows of a key frame, of all actions together


class PrecisionRecallCurve(NamedTuple):
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


class TruePositives(NamedTuple):
    """The detections of an action that hit an annotated box, the best one first.

    Args:
        rank: among all detections of the action, from 1.
    """

    rank: Int64[np.ndarray, "h"]
    score: Float[np.ndarray, "h"]


@dataclass(frozen=True)
class ActionResult:
    """One action's detections.

    Args:
        num_ground_truth: how many boxes have it.
        num_detections: how many detections of it there are.
    """

    action_id: int
    name: str
    num_ground_truth: int
    num_detections: int
    true_positives: TruePositives

    @cached_property
    def curve(self) -> PrecisionRecallCurve:
        number = np.arange(1, len(self.true_positives.rank) + 1, dtype=np.float64)
        return PrecisionRecallCurve(
            number / self.true_positives.rank, number / max(1, self.num_ground_truth), self.true_positives.score
        )

    @cached_property
    def average_precision(self) -> float | None:
        """In [0, 1]; None: it is not annotated, so that it has none."""
        if not self.num_ground_truth:
            return None
        return float((np.diff(self.curve.recall, prepend=0) * self.curve.envelope).sum())


@dataclass(frozen=True)
class FrameMAP:
    """A score, and what it is made of.

    Args:
        actions: every evaluated action, by number.
        num_keyframes: key frames that have annotations which count.
        num_ignored: how many detections took no part, by the reason.
        num_unannotated: how many count and are in key frames in which nothing is annotated.
    """

    actions: tuple[ActionResult, ...]
    matching: MatchingOrder
    iou: float
    num_keyframes: int
    num_ignored: dict[str, int]
    num_unannotated: int

    @cached_property
    def mean(self) -> float | None:
        """In [0, 1], over the actions that are annotated; None: none is."""
        each = [found.average_precision for found in self.actions if found.average_precision is not None]
        return float(np.mean(each)) if each else None

    def get_curve(self, action_id: int) -> PrecisionRecallCurve:
        """Of an evaluated action."""
        return next(found.curve for found in self.actions if found.action_id == action_id)

    def to_dict(self) -> dict[str, Any]:
        """Every number, as JSON has it: under the names of AVA's own script as shares, under ours in percent."""
        at = f"@{self.iou}IOU"
        official: dict[str, Any] = {f"PascalBoxes_Precision/mAP{at}": self.mean}
        for found in self.actions:
            official[f"PascalBoxes_PerformanceByCategory/AP{at}/{found.name}"] = found.average_precision
        return {
            "mean_average_precision": _to_percent(self.mean),
            "matching": self.matching,
            "iou": self.iou,
            "key_frames": self.num_keyframes,
            "annotated": sum(found.num_ground_truth for found in self.actions),
            "detected": sum(found.num_detections for found in self.actions),
            "hits": sum(len(found.true_positives.rank) for found in self.actions),
            "left_out": self.num_ignored,
            "in_unannotated_key_frames": self.num_unannotated,
            "actions": [_action_to_dict(found) for found in self.actions],
            **official,
        }

    def format_classes_csv(self) -> Iterator[bytes]:
        """Each action with its average precision in percent, and what it is made of."""
        words = ("number", "name", "average_precision", "annotated", "detected", "hits")
        return format_csv([[*words], *([_action_to_dict(found)[word] for word in words] for found in self.actions)])


def format_frame_map(metrics: dict[str, Any]) -> str:
    """A score, as `FrameMAP.plain` gives it: the mean, then the actions from the best one on."""
    lines = {
        "mAP": _format_percent(metrics["mean_average_precision"])
        + f" at an overlap of {metrics['iou']}, {metrics['matching']}",
        "annotated": f"{pluralize(metrics['annotated'], 'action')} in {pluralize(metrics['key_frames'], 'key frame')}",
        "detected": f"{metrics['detected']:,}, of which {metrics['hits']:,} hit",
    }
    if left := [f"{count:,} {why}" for why, count in metrics["left_out"].items() if count]:
        lines["left out"] = ", ".join(left)
    if metrics["in_unannotated_key_frames"]:
        lines["unannotated"] = (
            f"{metrics['in_unannotated_key_frames']:,} are where nothing is annotated, and count as wrong"
        )
    actions = sorted(metrics["actions"], key=lambda each: -1.0 if (ap := each["average_precision"]) is None else ap)
    width = max((len(format_one_line(each["name"])) for each in actions), default=0)
    table = [f"{'':{width}}  {'AP':>8}  annotated   detected       hits"]
    for each in reversed(actions):
        counts = "".join(f"{each[word]:>11,}" for word in ("annotated", "detected", "hits"))
        table.append(
            f"{format_one_line(each['name']):{width}}  {_format_percent(each['average_precision']):>8}{counts}"
        )
    return "\n".join([format_key_values(lines), "", *table])


def _action_to_dict(found: ActionResult) -> dict[str, Any]:
    return {
        "number": found.action_id,
        "name": found.name,
        "average_precision": _to_percent(found.average_precision),
        "annotated": found.num_ground_truth,
        "detected": found.num_detections,
        "hits": len(found.true_positives.rank),
    }


def _to_percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _format_percent(percent: float | None) -> str:
    return "–" if percent is None else f"{percent:.2f} %"


def compute_frame_map(
    ground_truth: BoxTable,
    detections: BoxTable | BoxScores,
    label_map: LabelMap,
    *,
    excluded_keyframes: AbstractSet[tuple[str, int]] = frozenset(),
    matching: MatchingOrder = "score_order_top50",
    min_iou: float = 0.5,
) -> FrameMAP:
    """The average precision of each evaluated action, as AVA's script has it (github.com/activitynet/ActivityNet).

    A detection of another action or without area takes no part; one where nothing is annotated, or in a video that has
    no annotations, counts as a miss. Of equal scores the one that is stated first is the better one, where the
    script's order is left to chance.

    Args:
        excluded_keyframes: videos and seconds of key frames that take no part.
    """
    numbers = np.array(sorted(label_map.evaluated_ids), np.int64)
    names = {
        name: place for place, name in enumerate(dict.fromkeys((*ground_truth.video_names, *detections.video_names)))
    }
    barred = np.array(
        [_encode_keyframe_id(names[name], second) for name, second in excluded_keyframes if name in names], np.int64
    )
    moments, own = _encode_keyframe_ids(ground_truth, names), _encode_keyframe_ids(detections, names)
    truth = np.flatnonzero(np.isin(ground_truth.action_id, numbers) & ~np.isin(moments, barred))
    truth = truth[np.argsort(ground_truth.action_id[truth], kind="stable")]
    ends = np.append(np.searchsorted(ground_truth.action_id[truth], numbers), len(truth))
    annotated_frames = np.unique(moments[truth])
    frames = np.union1d(annotated_frames, own)
    alone = ~np.isin(frames, annotated_frames)
    frame, truth_frame = np.searchsorted(frames, own), np.searchsorted(frames, moments[truth])
    most = _MAX_ROWS_PER_KEYFRAME if matching == "score_order_top50" else None
    allowed = ~np.isin(own, barred)
    if isinstance(detections, BoxTable):
        taken, left_out = select_table_detections(detections, numbers, frame, allowed, most)
    else:
        taken, left_out = select_score_detections(detections, numbers, frame, allowed, most)
    found, unannotated = [], 0
    for place, (which, score) in enumerate(taken):
        theirs = slice(ends[place], ends[place + 1])
        boxes = group_ground_truth(truth_frame[theirs], ground_truth.box[truth[theirs]], len(frames))
        by_score = matching != "file_order"
        hit = match_detections(frame[which], detections.box, which, score, boxes, min_iou=min_iou, by_score=by_score)
        number = int(numbers[place])
        found.append(ActionResult(number, label_map.names[number], len(boxes.box), len(which), hit))
        unannotated += int(alone[frame[which]].sum())
    return FrameMAP(tuple(found), matching, min_iou, len(annotated_frames), left_out, unannotated)


def _encode_keyframe_id(video: Any, second: Any) -> Any:
    return video << 32 | second


def _encode_keyframe_ids(rows: BoxTable | BoxScores, names: dict[str, int]) -> Int64[np.ndarray, "n"]:
    """A number for each row's video and second."""
    places = np.array([names[name] for name in rows.video_names], np.int64)
    return _encode_keyframe_id(places[rows.video_index], rows.second)


_SCORES_PER_CHUNK = 2**22  # scores that are looked at together


class GroundTruthBoxes(NamedTuple):
    """Annotated boxes of one action, ordered by key frame.

    Args:
        own, first: by key frame, how many are its own, and where they begin.
    """

    box: Float64[np.ndarray, "g 4"]
    num_boxes: Int64[np.ndarray, "f"]
    start: Int64[np.ndarray, "f"]


def group_ground_truth(
    keyframe: Int[np.ndarray, "g"], box: Float64[np.ndarray, "g 4"], num_keyframes: int
) -> GroundTruthBoxes:
    """
    Args:
        keyframe: the key frame of each box, of so many.
    """
    count = np.bincount(keyframe, minlength=num_keyframes)
    return GroundTruthBoxes(box[np.argsort(keyframe, kind="stable")], count, np.cumsum(count) - count)


def match_detections(
    keyframe: Int[np.ndarray, "n"],
    box: Float[np.ndarray, "m 4"],
    box_index: Int[np.ndarray, "n"],
    score: Float[np.ndarray, "n"],
    ground_truth: GroundTruthBoxes,
    *,
    min_iou: float,
    by_score: bool,
) -> TruePositives:
    """One after the other, a key frame's detections choose the annotated box that they overlap most, of equal ones the
    first; who overlaps it by `iou` and chooses it first hits it.

    Args:
        keyframe: of each detection of one action.
        box_index: a detection's box.
        by_score: the detections of a key frame choose by score, of equal ones the first; or else in their order.
    """
    order = argsort_descending(score)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    near = np.flatnonzero(ground_truth.num_boxes[keyframe])
    overlap, chosen = _find_best_matches(keyframe[near], box[box_index[near]].astype(np.float64), ground_truth)
    enough = overlap >= min_iou
    choosing, chosen = near[enough], chosen[enough]
    if by_score:
        turn = np.argsort(place[choosing])
        choosing, chosen = choosing[turn], chosen[turn]
    _, first = np.unique(chosen, return_index=True)
    rank = np.sort(place[choosing[first]])
    return TruePositives(rank + 1, score[order[rank]])


def _find_best_matches(
    frame: Int[np.ndarray, "n"], box: Float64[np.ndarray, "n 4"], annotated: GroundTruthBoxes
) -> tuple[Float64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """The annotated box of its key frame that each box overlaps most, and by how much."""
    best, chosen = np.full(len(frame), -1.0), np.zeros(len(frame), np.int64)
    count, first = annotated.num_boxes[frame], annotated.start[frame]
    left = np.arange(len(frame))
    for nth in range(int(count.max(initial=0))):
        left = left[count[left] > nth]
        other = first[left] + nth
        overlap = compute_paired_iou(box[left], annotated.box[other])
        better = overlap > best[left]
        best[left[better]], chosen[left[better]] = overlap[better], other[better]
    return best, chosen


def compute_paired_iou(one: Float64[np.ndarray, "n 4"], other: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n"]:
    """Each box's intersection with the one in the same row, over their union."""
    inside = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.maximum(inside, 0).prod(axis=1)
    union = _compute_area(one) + _compute_area(other) - shared
    return np.divide(shared, union, out=np.zeros(len(one)), where=shared > 0)


def _compute_area(box: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n"]:
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])


def argsort_descending(score: Float[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Their order, of equal ones the first."""
    order = np.argsort(-score)  # several times as fast as a stable order
    ordered = score[order]
    falls = np.append(True, ordered[1:] != ordered[:-1])
    tied = ~(falls & np.append(falls[1:], True))
    if tied.any():
        some = order[tied]
        order[tied] = some[np.lexsort((some, np.cumsum(falls)[tied]))]
    return order


def select_top_rows(keyframe: Int[np.ndarray, "n"], score: Float[np.ndarray, "n"], top_k: int) -> Bool[np.ndarray, "n"]:
    """So many rows of each key frame, those with the highest scores, of equal ones the first."""
    count = np.bincount(keyframe)
    kept = count[keyframe] <= top_k
    many = np.flatnonzero(~kept)
    order = many[np.lexsort((-score[many], keyframe[many]))]
    count = np.bincount(keyframe[many], minlength=len(count))
    nth = np.arange(len(order)) - (np.cumsum(count) - count)[keyframe[order]]
    kept[order[nth < top_k]] = True
    return kept


def select_top_cells(
    keyframe: Int[np.ndarray, "m"],
    boxes: Int64[np.ndarray, "n"],
    scores: Float[np.ndarray, "m c"],
    columns: Int64[np.ndarray, "a"],
    top_k: int,
) -> tuple[Int64[np.ndarray, "k"], Int64[np.ndarray, "k"]]:
    """As `select_top_rows`, where each box has a score in each column; gives boxes, and places among the columns.

    Args:
        keyframe: of all boxes.
        boxes: those that are looked at, ascending.
        columns: those that are looked at.
    """
    order = boxes[np.argsort(keyframe[boxes], kind="stable")]
    count = np.bincount(keyframe[boxes])
    first = np.cumsum(count) - count
    found = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for many in np.unique(count[count > 0]).tolist() if len(columns) else ():
        begins = first[count == many]
        step = max(1, _SCORES_PER_CHUNK // (many * len(columns)))
        for begin in range(0, len(begins), step):
            own = order[begins[begin : begin + step, None] + np.arange(many)]
            row, cell = np.nonzero(_mask_top_k(scores[own][..., columns].reshape(len(own), -1), top_k))
            found.append((own[row, cell // len(columns)], cell % len(columns)))
    box, column = (np.concatenate(each) for each in zip(*found, strict=True))
    return box, column


def _mask_top_k(scores: Float[np.ndarray, "r c"], most: int) -> Bool[np.ndarray, "r c"]:
    """So many of each row, of equal ones the first."""
    if scores.shape[1] <= most:
        return np.ones(scores.shape, bool)
    last = np.partition(scores, -most, axis=1)[:, -most, None]
    above, equal = scores > last, scores == last
    return above | (equal & (np.cumsum(equal, axis=1) <= most - above.sum(axis=1, keepdims=True)))


DetectionsPerAction = Iterator[tuple[Int64[np.ndarray, "n"], Float[np.ndarray, "n"]]]


def select_table_detections(
    detections: BoxTable,
    action_ids: Int64[np.ndarray, "a"],
    keyframe: Int[np.ndarray, "m"],
    mask: Bool[np.ndarray, "m"],
    top_k: int | None,
) -> tuple[DetectionsPerAction, dict[str, int]]:
    """
    Args:
        action_ids: of the actions, ascending.
        keyframe: each row's key frame.
        mask: those whose key frame is not excluded.
        top_k: of a key frame's rows, the best ones alone; one without area may be among them.

    Returns:
        Them, and how many rows take no part, by the reason.
    """
    known = np.isin(detections.action_id, action_ids)
    taken = np.flatnonzero(known & mask)
    left_out = {"of other actions": int((~known).sum()), "in excluded key frames": int((known & ~mask).sum())}
    if top_k is not None:
        best = taken[select_top_rows(keyframe[taken], detections.score[taken], top_k)]
        left_out[_format_top_k_reason(top_k)] = len(taken) - len(best)
        taken = best
    whole = taken[_find_nonempty_boxes(detections.box)[taken]]
    left_out["without area"] = len(taken) - len(whole)
    return _split_by_action(
        np.searchsorted(action_ids, detections.action_id[whole]), whole, detections.score[whole], len(action_ids)
    ), left_out


def select_score_detections(
    detections: BoxScores,
    action_ids: Int64[np.ndarray, "a"],
    keyframe: Int[np.ndarray, "m"],
    mask: Bool[np.ndarray, "m"],
    top_k: int | None,
) -> tuple[DetectionsPerAction, dict[str, int]]:
    """As `select_table_detections`; a detection is a box and one of its scores.

    Raises:
        ValueError: a score is no finite number.
    """
    _check_finite(detections)
    places = {number: place for place, number in enumerate(detections.action_ids)}
    columns = np.array([places.get(number, -1) for number in action_ids.tolist()], np.int64)  # -1: it has none
    scored = np.flatnonzero(columns >= 0)
    boxes = np.flatnonzero(mask)
    area = _find_nonempty_boxes(detections.box)
    left_out = {
        "of other actions": len(detections) * (len(places) - len(scored)),
        "in excluded key frames": (len(detections) - len(boxes)) * len(scored),
    }
    if top_k is None:
        whole = boxes[area[boxes]]
        left_out["without area"] = (len(boxes) - len(whole)) * len(scored)
        return _split_by_column(detections.scores, whole, columns.tolist()), left_out
    box, cell = select_top_cells(keyframe, boxes, detections.scores, columns[scored], top_k)
    left_out[_format_top_k_reason(top_k)] = len(boxes) * len(scored) - len(box)
    whole = area[box]
    left_out["without area"] = len(box) - int(whole.sum())
    order = np.sort(scored[cell[whole]] * len(detections) + box[whole])
    action, box = np.divmod(order, max(1, len(detections)))
    return _split_by_action(action, box, detections.scores[box, columns[action]], len(action_ids)), left_out


def _split_by_action(
    action: Int64[np.ndarray, "n"], box: Int64[np.ndarray, "n"], score: Float[np.ndarray, "n"], actions: int
) -> DetectionsPerAction:
    order = np.argsort(action.astype(np.min_scalar_type(actions)), kind="stable")  # of small numbers it is fast
    ends = np.searchsorted(action[order], np.arange(actions + 1))
    for begin, end in pairwise(ends):
        own = order[begin:end]
        yield box[own], score[own]


def _split_by_column(
    scores: Float[np.ndarray, "m c"], boxes: Int64[np.ndarray, "n"], columns: list[int]
) -> DetectionsPerAction:
    for column in columns:
        if column < 0:
            yield boxes[:0], scores[:0, 0]
        else:
            yield boxes, scores[boxes, column]


def _format_top_k_reason(most: int) -> str:
    return f"beyond the {most} best of their key frame"


def _find_nonempty_boxes(box: Float[np.ndarray, "m 4"]) -> Bool[np.ndarray, "m"]:
    return (box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])


def _check_finite(detected: BoxScores) -> None:
    sound = np.isfinite(detected.scores).all(axis=1) & np.isfinite(detected.box).all(axis=1)
    if not sound.all():
        place = int(sound.argmin())
        name, second = detected.video_names[detected.video_index[place]], detected.second[place]
        raise ValueError(f"a box of {name} at second {second} or a score of it is no finite number; leave it out")
