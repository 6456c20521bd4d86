"""Select a detector's boxes for AVA's frame mAP, and match them with the annotated ones."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64

from vidstill.data.ava.box_table import BoxScores, BoxTable
from vidstill.data.ava.transforms import find_nonempty_boxes

_SCORES_PER_CHUNK = 2**22  # scores that are ranked at once


DetectionsPerAction = Iterator[tuple[Int64[np.ndarray, "n"], Float[np.ndarray, "n"]]]
"""For each action, the rows of its boxes, ascending, and their scores."""


def select_detections(
    detections: BoxTable | BoxScores,
    action_ids: Int64[np.ndarray, "a"],
    keyframe: Int[np.ndarray, "n"],
    is_excluded: Bool[np.ndarray, "n"],
    top_k: int | None,
) -> tuple[DetectionsPerAction, dict[str, int]]:
    """Return each action's detections, and how many detections are ignored for which reason.

    Args:
        detections: A row of a table is one detection; a row of scores is one per action.
        action_ids: The evaluated actions, ascending.
        keyframe: The key frame of each row.
        is_excluded: Rows of excluded key frames.
        top_k: Take only the best detections of each key frame, boxes without area among them; None: all.

    Raises:
        ValueError: A score is not finite.
    """
    column = np.full(len(action_ids), -1)  # of each action's scores; -1: the detector does not know it
    if isinstance(detections, BoxTable):
        rows = np.flatnonzero(np.isin(detections.action_id, action_ids))
        scores, columns = detections.score[:, None], np.zeros(1, np.int64)
        column[:] = 0
        num_other = len(detections) - len(rows)
    else:
        _check_finite(detections)
        _, evaluated, columns = np.intersect1d(action_ids, list(detections.action_ids), return_indices=True)
        rows, scores = np.arange(len(detections)), detections.scores
        column[evaluated] = columns
        num_other = len(detections) * (len(detections.action_ids) - len(columns))
    allowed = rows[~is_excluded[rows]]
    has_area = find_nonempty_boxes(detections.box.astype(np.float64, copy=False))
    ignored = {"of other actions": num_other, "in excluded key frames": (len(rows) - len(allowed)) * len(columns)}
    if top_k is None:
        selected = allowed[has_area[allowed]]
        ignored["without area"] = (len(allowed) - len(selected)) * len(columns)
        if isinstance(detections, BoxScores):  # a copy of all scores would be large: one action at a time
            none = selected[:0]
            return (((selected, scores[selected, c]) if c >= 0 else (none, scores[none, c]) for c in column), ignored)
        nth_column = np.zeros_like(selected)
    else:
        selected, nth_column = select_top_cells(keyframe, allowed, scores, columns, top_k)
        ignored[f"beyond the {top_k} best of their key frame"] = len(allowed) * len(columns) - len(selected)
        is_whole = has_area[selected]
        ignored["without area"] = int((~is_whole).sum())
        selected, nth_column = selected[is_whole], nth_column[is_whole]
    if isinstance(detections, BoxTable):
        action = np.searchsorted(action_ids, detections.action_id[selected])
    else:
        action = evaluated[nth_column]
    action, selected = np.divmod(np.sort(action * len(detections) + selected), max(1, len(detections)))
    score = scores[selected, column[action]]
    bounds = np.searchsorted(action, np.arange(len(action_ids) + 1))
    return ((selected[begin:end], score[begin:end]) for begin, end in pairwise(bounds)), ignored


def select_top_cells(
    keyframe: Int[np.ndarray, "n"],
    rows: Int64[np.ndarray, "r"],
    scores: Float[np.ndarray, "n c"],
    columns: Int64[np.ndarray, "a"],
    top_k: int,
) -> tuple[Int64[np.ndarray, "k"], Int64[np.ndarray, "k"]]:
    """Return the `top_k` scores of each key frame as rows and as indices into `columns`; ties go to the first.

    Args:
        keyframe: The key frame of each row of `scores`.
        rows: Rows to select from, ascending.
        columns: Columns to select from.
    """
    count = np.bincount(keyframe[rows])
    is_whole = count[keyframe[rows]] * len(columns) <= top_k
    parts = [(rows[is_whole].repeat(len(columns)), np.tile(np.arange(len(columns)), int(is_whole.sum())))]
    rows = rows[~is_whole]
    order = rows[np.argsort(keyframe[rows], kind="stable")]
    count = np.bincount(keyframe[rows])
    start = np.cumsum(count) - count
    for num_rows in np.unique(count[count > 0]).tolist():
        starts = start[count == num_rows]
        step = max(1, _SCORES_PER_CHUNK // (num_rows * len(columns)))
        for begin in range(0, len(starts), step):
            own_rows = order[starts[begin : begin + step, None] + np.arange(num_rows)]
            frame, cell = np.nonzero(_mask_top_k(scores[own_rows][..., columns].reshape(len(own_rows), -1), top_k))
            parts.append((own_rows[frame, cell // len(columns)], cell % len(columns)))
    row, nth_column = (np.concatenate(each) for each in zip(*parts, strict=True))
    return row, nth_column


def _mask_top_k(scores: Float[np.ndarray, "r c"], top_k: int) -> Bool[np.ndarray, "r c"]:
    """Return True at the `top_k` largest scores of each row; ties go to the first."""
    smallest = np.partition(scores, -top_k, axis=1)[:, -top_k, None]
    above, equal = scores > smallest, scores == smallest
    return above | (equal & (np.cumsum(equal, axis=1) <= top_k - above.sum(axis=1, keepdims=True)))


def match_detections(
    keyframe: Int[np.ndarray, "n"],
    box: Float[np.ndarray, "n 4"],
    score: Float[np.ndarray, "n"],
    true_keyframe: Int[np.ndarray, "g"],
    true_box: Float64[np.ndarray, "g 4"],
    *,
    min_iou: float,
    by_score: bool,
) -> Int64[np.ndarray, "h"]:
    """Match one action's detections with its annotated boxes, greedily.

    Each detection takes the annotated box of its key frame with the highest IoU, ties go to the first; it is a true
    positive if the IoU reaches `min_iou` and no detection before it took that box.

    Args:
        keyframe: The key frame of each detection.
        true_keyframe: The key frame of each annotated box, ascending.
        by_score: Match in score order, ties in the given order; otherwise in the given order.

    Returns:
        The ranks of the true positives among all detections in score order, from 1.
    """
    rank = np.empty(len(score), np.int64)
    rank[np.argsort(-score, kind="stable")] = np.arange(len(score))
    num_boxes = np.bincount(true_keyframe, minlength=int(keyframe.max(initial=-1)) + 1)
    start = np.cumsum(num_boxes) - num_boxes
    near = np.flatnonzero(num_boxes[keyframe])
    iou, nearest = _find_nearest_boxes(box[near], true_box, start[keyframe[near]], num_boxes[keyframe[near]])
    matches = np.flatnonzero(iou >= min_iou)
    if by_score:
        matches = matches[np.argsort(rank[near[matches]])]
    _, first = np.unique(nearest[matches], return_index=True)
    return np.sort(rank[near[matches[first]]]) + 1


def _find_nearest_boxes(
    box: Float[np.ndarray, "n 4"],
    true_box: Float64[np.ndarray, "g 4"],
    start: Int64[np.ndarray, "n"],
    count: Int64[np.ndarray, "n"],
) -> tuple[Float64[np.ndarray, "n"], Int64[np.ndarray, "n"]]:
    """Return the highest IoU of each box with annotated boxes `start` to `start + count`, and the index of that box."""
    from torchvision.ops import box_iou

    best_iou, nearest = np.full(len(box), -1.0), np.zeros(len(box), np.int64)
    pairs = torch.from_numpy(box.astype(np.float64, copy=False))[:, None], torch.from_numpy(true_box)[:, None]
    rows = np.arange(len(box))
    for nth in range(int(count.max(initial=0))):
        rows = rows[count[rows] > nth]
        other = start[rows] + nth
        iou = box_iou(pairs[0][rows], pairs[1][other])[:, 0, 0].numpy()  # one pair per row
        is_better = iou > best_iou[rows]
        best_iou[rows[is_better]], nearest[rows[is_better]] = iou[is_better], other[is_better]
    return best_iou, nearest


def _check_finite(detections: BoxScores) -> None:
    is_finite = np.isfinite(detections.scores).all(axis=1) & np.isfinite(detections.box).all(axis=1)
    if not is_finite.all():
        row = int(is_finite.argmin())
        video, second = detections.video_names[detections.video_index[row]], detections.second[row]
        raise ValueError(f"a box of {video} at second {second}, or its score, is not a finite number; remove that row")
