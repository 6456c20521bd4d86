"""AVA's score: the mean over actions of the average precision of boxes, at an overlap of one half."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64

from vidstill.data.boxes.actions import Actions
from vidstill.data.boxes.rows import BoxRows, BoxScores
from vidstill.data.words import counted, one_line
from vidstill.downstream.detected import taken_rows, taken_scores
from vidstill.downstream.matched import Hits, annotated_boxes, hits
from vidstill.downstream.tested import csv_lines
from vidstill.terminal import aligned

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
