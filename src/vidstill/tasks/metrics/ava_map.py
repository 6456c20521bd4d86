"""AVA's frame mAP: the mean over actions of the average precision of boxes at an IoU of 0.5."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from vidstill.data.ava.box_table import BoxScores, BoxTable
from vidstill.data.ava.label_map import LabelMap
from vidstill.tasks.metrics.ava_matching import match_detections, select_detections
from vidstill.tasks.results import format_csv
from vidstill.utils.terminal import format_key_values
from vidstill.utils.text import format_one_line, pluralize

MatchingOrder = Literal["score_order_top50", "score_order", "file_order"]
"""The order in which a key frame's detections are matched: by score, and only the 50 best rows (AVA's own script); by
score; or as they stand in the file (PySlowFast's copy of that script)."""

_MAX_ROWS_PER_KEYFRAME = 50  # over all actions


class PrecisionRecallCurve(NamedTuple):
    """Precision and recall in [0, 1] at each true positive, in score order."""

    precision: Float64[np.ndarray, "h"]
    recall: Float64[np.ndarray, "h"]

    @property
    def envelope(self) -> Float64[np.ndarray, "h"]:
        """The highest precision at this or any higher recall."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]


@dataclass(frozen=True)
class ActionResult:
    """The result of one action."""

    action_id: int
    name: str
    num_ground_truth: int  # annotated boxes with this action
    num_detections: int
    true_positives: Int64[np.ndarray, "h"]  # the ranks of its true positives among the detections, from 1

    @cached_property
    def curve(self) -> PrecisionRecallCurve:
        count = np.arange(1, len(self.true_positives) + 1, dtype=np.float64)
        return PrecisionRecallCurve(count / self.true_positives, count / max(1, self.num_ground_truth))

    @cached_property
    def average_precision(self) -> float | None:
        """In [0, 1]; None if the action is not annotated."""
        if not self.num_ground_truth:
            return None
        return float((np.diff(self.curve.recall, prepend=0) * self.curve.envelope).sum())

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON and CSV; the average precision in percent."""
        return {
            "action_id": self.action_id,
            "name": self.name,
            "average_precision": _to_percent(self.average_precision),
            "ground_truth": self.num_ground_truth,
            "detections": self.num_detections,
            "true_positives": len(self.true_positives),
        }


@dataclass(frozen=True)
class FrameMAP:
    """The mean average precision and its parts."""

    actions: tuple[ActionResult, ...]  # every evaluated action, by number
    matching: MatchingOrder
    iou: float
    num_keyframes: int  # key frames with evaluated annotations
    num_ignored: dict[str, int]  # ignored detections by reason
    num_unannotated: int  # detections that count, in key frames without annotations

    @cached_property
    def mean(self) -> float | None:
        """In [0, 1], over the annotated actions; None if there are none."""
        precisions = [each.average_precision for each in self.actions if each.average_precision is not None]
        return float(np.mean(precisions)) if precisions else None

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers for JSON: under the names of AVA's script in [0, 1], under ours in percent."""
        iou = f"@{self.iou}IOU"
        actions = [each.to_dict() for each in self.actions]
        return {
            "mean_average_precision": _to_percent(self.mean),
            "matching": self.matching,
            "iou": self.iou,
            "keyframes": self.num_keyframes,
            **{key: sum(each[key] for each in actions) for key in ("ground_truth", "detections", "true_positives")},
            "ignored": self.num_ignored,
            "unannotated_detections": self.num_unannotated,
            "actions": actions,
            f"PascalBoxes_Precision/mAP{iou}": self.mean,
            **{
                f"PascalBoxes_PerformanceByCategory/AP{iou}/{each.name}": each.average_precision
                for each in self.actions
            },
        }

    def format_classes_csv(self) -> Iterator[bytes]:
        """Return one line per action, with its average precision in percent and its counts."""
        columns = ["action_id", "name", "average_precision", "ground_truth", "detections", "true_positives"]
        return format_csv([columns, *(list(each.to_dict().values()) for each in self.actions)])


def format_frame_map(metrics: dict[str, Any]) -> str:
    """Return the numbers of `FrameMAP.to_dict` as text: the mean, then the actions, the best first."""
    lines = {
        "mAP": f"{_format_percent(metrics['mean_average_precision'])} at IoU {metrics['iou']}, {metrics['matching']}",
        "ground truth": f"{pluralize(metrics['ground_truth'], 'action')} in "
        f"{pluralize(metrics['keyframes'], 'key frame')}",
        "detections": f"{metrics['detections']:,}, of which {metrics['true_positives']:,} are true positives",
    }
    if ignored := [f"{count:,} {reason}" for reason, count in metrics["ignored"].items() if count]:
        lines["ignored"] = ", ".join(ignored)
    if count := metrics["unannotated_detections"]:
        lines["unannotated"] = f"{count:,} detections in key frames without annotations count as false positives"
    actions = sorted(metrics["actions"], key=lambda each: -1.0 if (ap := each["average_precision"]) is None else ap)
    names = [format_one_line(each["name"]) for each in actions]
    width = max(map(len, names), default=0)
    table = [f"{'':{width}}  {'AP':>8}  ground truth  detections  true positives"]
    for name, each in zip(reversed(names), reversed(actions), strict=True):
        counts = f"{each['ground_truth']:>14,}{each['detections']:>12,}{each['true_positives']:>16,}"
        table.append(f"{name:{width}}  {_format_percent(each['average_precision']):>8}{counts}")
    return "\n".join([format_key_values(lines), "", *table])


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
    """Compute the average precision of each evaluated action as AVA's script does (github.com/activitynet/ActivityNet).

    A detection of another action or without area is ignored; one where nothing is annotated, or in a video without
    annotations, is a false positive. Equal scores rank in file order, which the script leaves open.

    Args:
        excluded_keyframes: Videos and seconds of key frames that are ignored.
    """
    action_ids = np.array(sorted(label_map.evaluated_ids), np.int64)
    names = dict.fromkeys((*ground_truth.video_names, *detections.video_names))
    video_ids = {name: index for index, name in enumerate(names)}
    excluded = np.array(
        [(video_ids[name] << 32) | second for name, second in excluded_keyframes if name in video_ids], np.int64
    )
    true_ids, own_ids = _encode_keyframes(ground_truth, video_ids), _encode_keyframes(detections, video_ids)
    is_true = np.isin(ground_truth.action_id, action_ids) & ~np.isin(true_ids, excluded)
    annotated_ids = np.unique(true_ids[is_true])
    keyframe_ids = np.union1d(annotated_ids, own_ids)
    keyframe, true_keyframe = np.searchsorted(keyframe_ids, own_ids), np.searchsorted(keyframe_ids, true_ids)
    truth = np.flatnonzero(is_true)
    truth = truth[np.lexsort((true_keyframe[truth], ground_truth.action_id[truth]))]
    bounds = np.append(np.searchsorted(ground_truth.action_id[truth], action_ids), len(truth))
    is_unannotated = ~np.isin(keyframe_ids, annotated_ids)
    top_k = _MAX_ROWS_PER_KEYFRAME if matching == "score_order_top50" else None
    selected, ignored = select_detections(detections, action_ids, keyframe, np.isin(own_ids, excluded), top_k)
    results, num_unannotated = [], 0
    for nth, (rows, score) in enumerate(selected):
        true_rows = truth[bounds[nth] : bounds[nth + 1]]
        true_positives = match_detections(
            keyframe[rows],
            detections.box[rows],
            score,
            true_keyframe[true_rows],
            ground_truth.box[true_rows],
            min_iou=min_iou,
            by_score=matching != "file_order",
        )
        action_id = int(action_ids[nth])
        results.append(ActionResult(action_id, label_map.names[action_id], len(true_rows), len(rows), true_positives))
        num_unannotated += int(is_unannotated[keyframe[rows]].sum())
    return FrameMAP(tuple(results), matching, min_iou, len(annotated_ids), ignored, num_unannotated)


def _encode_keyframes(rows: BoxTable | BoxScores, video_ids: dict[str, int]) -> Int64[np.ndarray, "n"]:
    """Return one number per row's video and second."""
    own_ids = np.array([video_ids[name] for name in rows.video_names], np.int64)
    return (own_ids[rows.video_index] << 32) | rows.second
