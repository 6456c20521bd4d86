"""Select a detector's boxes for AVA's frame mAP, and match them with the annotated ones."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64

from vidstill.data.ava.box_table import BoxScores, BoxTable
from vidstill.data.ava.transforms import find_nonempty_boxes

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
    ignored: dict[str, int] = {}
    if isinstance(detections, BoxTable):
        scores, column_of = detections.score[:, None], dict.fromkeys(action_ids.tolist(), 0)
        selected = np.isin(detections.action_id, action_ids)[:, None]
        ignored["of other actions"] = len(detections) - int(selected.sum())
    else:
        _check_finite(detections)
        ids, _, columns = np.intersect1d(action_ids, list(detections.action_ids), return_indices=True)
        in_order = np.array_equal(columns, np.arange(detections.scores.shape[1]))  # then no copy is made
        scores = detections.scores if in_order else detections.scores[:, columns]
        column_of = {action_id: column for column, action_id in enumerate(ids.tolist())}
        selected = np.ones(scores.shape, dtype=bool)
        ignored["of other actions"] = detections.scores.size - selected.size
    reasons = {"in excluded key frames": ~is_excluded[:, None]}
    if top_k is not None:
        candidates = selected & reasons["in excluded key frames"]
        reasons[f"beyond the {top_k} best of their key frame"] = _mask_top_k(keyframe, scores, candidates, top_k)
    reasons["without area"] = find_nonempty_boxes(detections.box.astype(np.float64, copy=False))[:, None]
    for reason, condition in reasons.items():
        count = int(selected.sum())
        selected = selected & condition
        ignored[reason] = count - int(selected.sum())

    def iterate() -> DetectionsPerAction:
        for action_id in action_ids.tolist():
            column = column_of.get(action_id)
            is_of_action = np.zeros(len(detections), dtype=bool) if column is None else selected[:, column]
            if isinstance(detections, BoxTable):
                is_of_action = is_of_action & (detections.action_id == action_id)
            rows = np.flatnonzero(is_of_action)
            yield rows, scores[rows, column or 0]

    return iterate(), ignored


def _mask_top_k(
    keyframe: Int[np.ndarray, "n"], scores: Float[np.ndarray, "n c"], candidates: Bool[np.ndarray, "n c"], top_k: int
) -> Bool[np.ndarray, "n c"]:
    """Return True at the `top_k` largest scores among the candidates of each key frame; ties go to the first."""
    mask = candidates.copy()
    order = np.argsort(keyframe, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(keyframe[order])) + 1):
        flat = np.where(candidates[rows], scores[rows], -np.inf).ravel()
        if len(flat) > top_k:
            smallest = np.partition(flat, -top_k)[-top_k]
            above, equal = flat > smallest, flat == smallest
            best = above | (equal & (np.cumsum(equal) <= top_k - above.sum()))
            mask[rows] &= best.reshape(len(rows), -1)
    return mask


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
    from torchvision.ops import box_iou

    rank = np.empty(len(score), np.int64)
    rank[np.argsort(-score, kind="stable")] = np.arange(len(score))
    num_boxes = np.bincount(true_keyframe, minlength=int(keyframe.max(initial=-1)) + 1)
    start = np.cumsum(num_boxes) - num_boxes
    # pairs of every detection with every annotated box of its key frame
    count = num_boxes[keyframe]
    detection = np.repeat(np.arange(len(score)), count)
    true = start[keyframe[detection]] + np.arange(len(detection)) - np.repeat(np.cumsum(count) - count, count)
    boxes = (torch.from_numpy(each.astype(np.float64, copy=False)) for each in (box[detection], true_box[true]))
    iou = box_iou(*(each[:, None] for each in boxes))[:, 0, 0].numpy()
    # of each detection the pair with the highest IoU
    order = np.lexsort((true, -iou, detection))
    detection, first = np.unique(detection[order], return_index=True)
    iou, nearest = iou[order[first]], true[order[first]]
    matches = np.flatnonzero(iou >= min_iou)
    if by_score:
        matches = matches[np.argsort(rank[detection[matches]])]
    _, first = np.unique(nearest[matches], return_index=True)
    return np.sort(rank[detection[matches[first]]]) + 1


def _check_finite(detections: BoxScores) -> None:
    is_finite = np.isfinite(detections.scores).all(axis=1) & np.isfinite(detections.box).all(axis=1)
    if not is_finite.all():
        row = int(is_finite.argmin())
        video, second = detections.video_names[detections.video_index[row]], detections.second[row]
        raise ValueError(f"a box of {video} at second {second}, or its score, is not a finite number; remove that row")
