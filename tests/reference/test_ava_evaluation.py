"""AVA's score under each rule, held to what the published evaluation gives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_cases import Case, cases

from vidstill.data.ava.box_table import BoxScores, BoxTable, format_box_csv, read_box_csv, read_excluded_timestamps
from vidstill.data.ava.label_map import LabelMap, read_label_map
from vidstill.tasks.metrics.ava_map import FrameMAP, compute_frame_map
from vidstill.utils.files import write_bytes

pytestmark = pytest.mark.reference

RULES = ("file_order", "score_order", "score_order_top50")


def truth_of(case: Case) -> tuple[BoxTable, LabelMap, set[tuple[str, int]]]:
    files = {name: case.path.parent / file for name, file in case.json["files"].items()}
    excluded = read_excluded_timestamps(files["excluded"]) if "excluded" in files else set()
    return read_box_csv(files["groundtruth"], has_scores=False), read_label_map(files["labelmap"]), excluded


def hold(case: Case, found: FrameMAP, theirs: dict[str, Any]) -> None:
    """Each action's counts are the same, its average precision too or within what equal scores leave open."""
    atol = case.json["tolerance"]["ap"]["atol"]
    ours = {str(each.action_id): each for each in found.actions}
    assert ours.keys() == theirs["per_class"].keys()
    for number, their in theirs["per_class"].items():
        one = ours[number]
        counts = (one.num_ground_truth, one.num_detections, len(one.true_positives))
        assert counts == (their["num_groundtruth"], their["num_detections"], their["num_true_positives"]), number
        if their["ap"] is None:
            assert one.average_precision is None
            continue
        low, high = their.get("ap_lowest", their["ap"]), their.get("ap_highest", their["ap"])
        assert low - atol <= one.average_precision <= high + atol, number
    low, high = theirs.get("mAP_range_over_ties") or (theirs["mAP"], theirs["mAP"])
    atol = case.json["tolerance"]["mAP"]["atol"]
    if low is None or np.isnan(low):
        assert found.mean is None
    else:
        assert low - atol <= found.mean <= high + atol
    assert found.to_dict()["PascalBoxes_Precision/mAP@0.5IOU"] == found.mean


@pytest.mark.parametrize("case", cases(kind="evaluation", method="ava"))
@pytest.mark.parametrize("rule", RULES)
def test_rows_of_a_file_are_scored_as_the_published_evaluation_does(case, rule):
    if rule not in case.json:
        pytest.skip(f"{case.name} has no numbers for {rule}")
    annotated, actions, excluded = truth_of(case)
    detected = read_box_csv(case.path.parent / case.json["files"]["detections"], has_scores=True)
    iou = case.json["config"]["iou_threshold"]
    found = compute_frame_map(annotated, detected, actions, excluded_keyframes=excluded, matching=rule, min_iou=iou)
    hold(case, found, case.json[rule])


def boxes_of(case: Case) -> BoxScores:
    scores, boxes, about = (case.tensors[f"input/{name}"].numpy() for name in ("scores", "boxes", "metadata"))
    video, second = about.astype(np.int32).T
    box = boxes[:, 1:].astype(np.float64)
    return BoxScores(tuple(case.json["video_names"]), video, second, box, range(1, scores.shape[1] + 1), scores)


@pytest.mark.parametrize("case", cases(kind="evaluation_from_arrays", method="ava"))
@pytest.mark.parametrize("rule", RULES)
def test_boxes_with_a_score_for_each_action_are_scored_as_the_published_evaluation_does(case, rule):
    if rule not in case.json:
        pytest.skip(f"{case.name} has no numbers for {rule}")
    annotated, actions, excluded = truth_of(case)
    for part, theirs in case.json[rule].items():
        rows = annotated.second % 4 == 0 if part == "every_fourth_second" else np.ones(len(annotated), bool)
        some = replace(annotated, **{name: getattr(annotated, name)[rows] for name in PER_ROW})
        hold(case, compute_frame_map(some, boxes_of(case), actions, excluded_keyframes=excluded, matching=rule), theirs)


PER_ROW = ("video_index", "second", "box", "action_id", "score", "line_number")


@pytest.mark.parametrize("case", cases(kind="evaluation_from_arrays", method="ava"))
def test_what_a_model_gives_is_written_as_the_published_code_writes_it(case, tmp_path: Path):
    theirs = (case.path.parent / case.json["files"]["written_detections"]).read_text().splitlines()
    _, actions, _ = truth_of(case)
    write_bytes(
        tmp_path / "written.csv", format_box_csv(boxes_of(case), action_ids=actions.evaluated_ids, decimals=(3, 4))
    )
    assert (tmp_path / "written.csv").read_text().splitlines() == theirs
