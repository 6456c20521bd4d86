"""AVA's frame mAP: its rules one by one, its published numbers, and a plain loop with the same results."""

import csv
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import SCRIPTS

from vidstill.data.ava.box_table import BoxScores, BoxTable, format_box_csv, read_box_csv
from vidstill.data.ava.label_map import LabelMap
from vidstill.tasks.metrics.ava_map import FrameMAP, compute_frame_map, format_frame_map
from vidstill.utils.files import write_bytes

RULES = ("score_order_top50", "score_order", "file_order")
SCRIPT = importlib.util.spec_from_file_location("ava_scoring", SCRIPTS / "ava_scoring.py")
LOOP = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(LOOP)

Row = tuple[str, int, Sequence[float], int, float]
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def build_table(rows: Sequence[Row]) -> BoxTable:
    names = list(dict.fromkeys(name for name, *_ in rows))
    video = np.array([names.index(name) for name, *_ in rows], np.int32)
    second, action = (np.array([row[column] for row in rows], np.int32) for column in (1, 3))
    box = np.array([row[2] for row in rows], np.float64).reshape(-1, 4)
    score = np.array([row[4] for row in rows], np.float64)
    return BoxTable(Path("rows"), tuple(names), video, second, box, action, score, np.arange(len(rows), dtype=np.int32))


def build_labels(*numbers: int) -> LabelMap:
    return LabelMap({number: f"action {number}" for number in numbers}, frozenset(numbers))


def score(annotated: Sequence[Row], detected: Sequence[Row], *action_ids: int, **options: object) -> FrameMAP:
    return compute_frame_map(build_table(annotated), build_table(detected), build_labels(*action_ids), **options)


def annotation(second: int, box: Sequence[float], action: int = 1, video: str = "a") -> Row:
    return video, second, box, action, 1.0


def detection(second: int, box: Sequence[float], score: float, action: int = 1, video: str = "a") -> Row:
    return video, second, box, action, score


@pytest.mark.parametrize("rule", RULES)
def test_perfect_detections_score_1_and_three_detections_as_counted_by_hand(rule):
    boxes = [annotation(second, box, action) for second in range(9) for box in (LEFT, RIGHT) for action in (1, 2)]
    result = score(boxes, boxes, 1, 2, matching=rule)
    assert result.mean == 1
    assert [each.average_precision for each in result.actions] == [1, 1]
    boxes = [annotation(1, LEFT), annotation(1, RIGHT), annotation(2, LEFT)]
    detected = [detection(1, LEFT, 0.9), detection(2, RIGHT, 0.8), detection(1, RIGHT, 0.7)]
    result = score(boxes, detected, 1, matching=rule)  # correct, wrong, correct; one box is missed
    assert result.mean == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3, abs=1e-12)
    assert result.actions[0].curve.precision.tolist() == [1, 2 / 3]
    assert result.actions[0].curve.recall == pytest.approx([1 / 3, 2 / 3])


WHOLE, FLAT, INSIDE_OUT = (0.0, 0.0, 1.0, 1.0), (0.2, 0.5, 0.8, 0.5), (0.5, 0.0, 0.2, 1.0)
ONE = [annotation(1, LEFT)]
WORSE_FIRST = [detection(1, LEFT, 0.3), detection(1, LEFT, 0.9)]
BY_HAND = {  # annotations, detections, options, mean, true positives of action 1
    "the highest precision at this or any higher recall counts": (
        [annotation(second, LEFT) for second in range(4)],
        [detection(9, LEFT, 0.9), *(detection(second, LEFT, 0.8 - second / 10) for second in range(3))],
        {}, 3 / 4 * 3 / 4, 3,
    ),
    "a second detection of a box is a false positive": (
        [annotation(1, LEFT), annotation(2, LEFT)],
        [detection(1, LEFT, 0.9), detection(1, LEFT, 0.8), detection(2, LEFT, 0.7)],
        {}, 1 / 2 + 1 / 2 * 2 / 3, 2,
    ),
    "an IoU of one half matches": ([annotation(1, WHOLE)], [detection(1, (0, 0, 1, 0.5), 1)], {}, 1, 1),
    "in the other direction, too": ([annotation(1, WHOLE)], [detection(1, (0, 0, 0.5, 1), 1)], {}, 1, 1),
    "a lower IoU does not match": (
        [annotation(1, WHOLE)], [detection(1, (0, 0, 1, np.nextafter(0.5, 0)), 1)], {}, 0, 0,
    ),
    "the IoU can be set": ([annotation(1, WHOLE)], [detection(1, (0, 0, 1, 0.8), 1)], {"min_iou": 0.81}, 0, 0),
    "a detection takes the box of the highest IoU and no other": (
        [annotation(1, LEFT), annotation(1, (0.0, 0.0, 0.5, 0.95))],
        [detection(1, LEFT, 0.9), detection(1, LEFT, 0.8)],
        {}, 0.5, 1,
    ),
    "ties go to the first box": ([*ONE, *ONE], [detection(1, LEFT, 0.9), detection(1, LEFT, 0.8)], {}, 0.5, 1),
    "matched by score": (ONE, WORSE_FIRST, {"matching": "score_order"}, 1, 1),
    "matched in file order": (ONE, WORSE_FIRST, {"matching": "file_order"}, 0.5, 1),
    "without detections": (ONE, [], {}, 0, 0),
    "without annotations": ([], [detection(1, LEFT, 1)], {}, None, 0),
    "without both": ([], [], {}, None, 0),
}  # fmt: skip


@pytest.mark.parametrize(("annotated", "detected", "options", "mean", "count"), BY_HAND.values(), ids=BY_HAND)
def test_frame_map_is_as_counted_by_hand(annotated, detected, options, mean, count):
    result = score(annotated, detected, 1, **options)
    assert result.mean == (mean if mean is None else pytest.approx(mean))
    assert len(result.actions[0].true_positives) == count


def test_detections_and_annotations_of_an_excluded_key_frame_are_ignored():
    boxes = [annotation(1, LEFT), annotation(2, LEFT), annotation(2, LEFT, video="b")]
    detected = [detection(1, LEFT, 0.5), detection(2, RIGHT, 0.9), detection(2, LEFT, 0.4, video="b")]
    result = score(boxes, detected, 1, excluded_keyframes={("a", 2), ("nobody", 1)})
    assert result.mean == 1
    assert (result.actions[0].num_ground_truth, result.actions[0].num_detections) == (2, 2)
    assert result.num_ignored["in excluded key frames"] == 1


def test_an_action_without_annotations_has_no_precision_and_one_without_detections_has_0():
    boxes = [annotation(1, LEFT, 1), annotation(1, LEFT, 3)]
    result = score(boxes, [detection(1, LEFT, 1, 1), detection(1, LEFT, 1, 2)], 1, 2, 3)
    assert [each.average_precision for each in result.actions] == [1, None, 0]
    assert result.mean == 0.5


def test_detections_without_annotations_are_false_positives_also_in_unknown_videos():
    detected = [detection(1, LEFT, 0.5), detection(2, LEFT, 0.9), detection(1, LEFT, 0.8, video="b")]
    result = score(ONE, detected, 1)
    assert result.mean == pytest.approx(1 / 3)
    assert result.num_unannotated == 2


def test_other_actions_and_boxes_without_area_are_ignored():
    detected = [(1, INSIDE_OUT, 0.9), (1, FLAT, 0.8), (1, LEFT, 0.7, 5), (1, LEFT, 0.1)]
    boxes = [annotation(1, LEFT), annotation(1, RIGHT, 5), annotation(1, FLAT)]
    result = score(boxes, [detection(*each) for each in detected], 1)
    assert result.mean == pytest.approx(1 / 2)  # an annotated box without area is never matched
    assert result.actions[0].num_detections == 1
    assert (result.num_ignored["of other actions"], result.num_ignored["without area"]) == (1, 2)


def test_the_50_best_rows_of_a_key_frame_include_boxes_without_area():
    others = [detection(1, RIGHT, 0.9, 2)] * 30 + [detection(1, INSIDE_OUT, 0.8, 2)] * 19
    detected = [detection(1, LEFT, 0.5, 1), *others, detection(1, LEFT, 0.4, 1), detection(2, LEFT, 0.1, 1)]
    boxes = [annotation(1, LEFT, 1), annotation(2, LEFT, 1)]
    for rule, counts in (("score_order_top50", [2, 30]), ("score_order", [3, 30])):
        assert [each.num_detections for each in score(boxes, detected, 1, 2, matching=rule).actions] == counts


@pytest.mark.parametrize(
    ("rule", "each", "mean"),
    [
        ("score_order", (0.348667441, 0.318015482, 0.334649469), 0.333777464),
        ("file_order", (0.252570759, 0.248512120, 0.227685856), 0.242922912),
    ],
)
def test_made_up_boxes_score_as_in_the_published_evaluations(rule, each, mean):
    """The values of AVA's evaluation and of PySlowFast's unsorted copy, on boxes of a stated generator."""
    state = 7

    def u() -> float:
        nonlocal state
        state = (1103515245 * state + 12345) % 2**31
        return state / 2**31

    boxes, detected = [], []
    for second in range(902, 942):
        for _ in range(1 + int(3 * u())):
            x1, y1 = round(0.6 * u(), 3), round(0.6 * u(), 3)
            w, h = round(0.1 + 0.3 * u(), 3), round(0.1 + 0.3 * u(), 3)
            y1x1y2x2 = (y1, x1, round(y1 + h, 3), round(x1 + w, 3))
            boxes += [annotation(second, turned(y1x1y2x2), action) for action in (1, 3, 4) if u() < 0.5]
            for _ in range(2):
                near = [round(side + round(0.12 * (u() - 0.5), 3), 3) for side in y1x1y2x2]
                detected += [detection(second, turned(near), round(u(), 5), action) for action in (1, 3, 4, 5)]
    assert (len(boxes), len(detected)) == (123, 664)
    result = score(boxes, detected, 1, 3, 4, 5, excluded_keyframes={("a", 905)}, matching=rule)
    *three, last = (one.average_precision for one in result.actions)
    assert three == pytest.approx(each, abs=1e-9)
    assert last is None
    assert result.mean == pytest.approx(mean, abs=1e-9)


def turned(box: Sequence[float]) -> Sequence[float]:
    return box[1], box[0], box[3], box[2]


coordinates = st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.5, 0.8, 1.0])
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates)
keyframes = st.tuples(st.sampled_from("ab"), st.integers(1, 3))
row = st.tuples(keyframes, boxes, st.integers(1, 4)).map(lambda each: (*each[0], *each[1:], 1.0))


@st.composite
def results(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Annotated rows, and detections with scores that all differ."""
    annotated = draw(st.lists(row, max_size=12))
    detected = draw(st.lists(row, max_size=25))
    scores = draw(st.permutations(range(len(detected))))
    detected = [(*row[:4], score / 32) for row, score in zip(detected, scores, strict=True)]
    whole = [row for row in annotated if row[2][0] < row[2][2] and row[2][1] < row[2][3]]
    return whole, detected


@given(results(), st.sampled_from(RULES), st.sets(keyframes, max_size=2))
@settings(max_examples=150, deadline=None)
def test_a_plain_loop_has_the_same_result(result, rule, excluded):
    annotated, detected = result
    result = score(annotated, detected, 1, 2, 3, matching=rule, excluded_keyframes=excluded)
    expected = LOOP.plain_frame_map(annotated, detected, (1, 2, 3), excluded=excluded, matching=rule)
    assert {each.action_id: each.average_precision for each in result.actions} == pytest.approx(expected, abs=1e-12)


@given(results(), st.randoms(use_true_random=False), st.sampled_from(RULES[:2]))
@settings(max_examples=60, deadline=None)
def test_in_score_order_the_order_of_the_rows_does_not_matter(result, random, rule):
    annotated, detected = result
    shuffled = random.sample(detected, len(detected))
    one, other = (score(annotated, each, 1, 2, 3, matching=rule).to_dict() for each in (detected, shuffled))
    assert one == other


def dense(detections: int, seed: int, *, ties: bool = False) -> tuple[BoxTable, BoxScores]:
    """Annotated boxes of 12 actions in 30 key frames, and boxes with scores for 9 of them and another one."""
    rng = np.random.default_rng(seed)
    corner = rng.random((40 + detections, 2)).round(1) * 0.6
    box = np.concatenate([corner, corner + 0.2 + 0.2 * rng.random((len(corner), 2)).round(1)], axis=1)
    box[-3] = box[-3, [2, 1, 0, 3]]
    video, second = (rng.integers(0, top, len(box)).astype(np.int32) for top in (3, 10))
    action = rng.integers(1, 13, 40).astype(np.int32)
    names, line = ("a", "b", "c"), np.arange(40, dtype=np.int32)
    truth = BoxTable(Path("truth"), names, video[:40], second[:40], box[:40], action, np.ones(40), line)
    scores = rng.random((detections, 10)).astype(np.float32)
    scores = scores.round(1) if ties else scores
    return truth, BoxScores(names, video[40:], second[40:], box[40:], (1, 2, 3, 5, 6, 8, 9, 11, 12, 99), scores)


def to_rows(boxes: BoxScores) -> BoxTable:
    """A row for each box and score."""
    count, columns = boxes.scores.shape
    box = np.repeat(np.arange(count), columns)
    action = np.tile(np.array(boxes.action_ids, np.int32), count)
    score = boxes.scores.reshape(-1).astype(np.float64)
    line = np.arange(len(box), dtype=np.int32)
    return BoxTable(
        Path("x"), boxes.video_names, boxes.video_index[box], boxes.second[box], boxes.box[box], action, score, line
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("detections", [3, 20, 400])
def test_boxes_with_scores_have_the_same_result_as_their_rows_and_a_written_csv(rule, detections, ties, tmp_path):
    truth, boxes = dense(detections, seed=detections, ties=ties)
    write_bytes(tmp_path / "rows.csv", format_box_csv(boxes))
    tables = [boxes, to_rows(boxes), read_box_csv(tmp_path / "rows.csv", has_scores=True)]
    options = {"excluded_keyframes": {("a", 3)}, "matching": rule}
    results = [compute_frame_map(truth, each, build_labels(*range(1, 13)), **options).to_dict() for each in tables]
    assert results[0] == results[1] == results[2]
    assert results[0]["detections"] > 0
    assert results[0]["true_positives"] > 0 or detections < 400


def test_a_score_that_is_not_a_number_is_an_error():
    truth, boxes = dense(5, seed=0)
    boxes.scores[2, 1] = np.nan
    name = f"{boxes.video_names[boxes.video_index[2]]} at second {boxes.second[2]}"
    with pytest.raises(ValueError, match=f"a box of {name}, or its score, is not a finite number"):
        compute_frame_map(truth, boxes, build_labels(1, 2))


def test_the_json_has_the_official_names_and_percentages_and_the_table_a_line_for_each_action():
    result = score([annotation(1, LEFT, 1), annotation(2, LEFT, 1)], [detection(1, LEFT, 1, 1)], 1, 2)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["PascalBoxes_Precision/mAP@0.5IOU"] == 0.5
    assert plain["PascalBoxes_PerformanceByCategory/AP@0.5IOU/action 1"] == 0.5
    assert plain["PascalBoxes_PerformanceByCategory/AP@0.5IOU/action 2"] is None
    assert plain["mean_average_precision"] == 50
    names = ["action_id", "name", "average_precision", "ground_truth", "detections", "true_positives"]
    one, two = plain["actions"]
    assert list(one.items()) == list(zip(names, [1, "action 1", 50, 2, 1, 1], strict=True))
    assert two["average_precision"] is None
    assert list(csv.reader(b"".join(result.format_classes_csv()).decode().splitlines())) == [
        names,
        ["1", "action 1", "50.0", "2", "1", "1"],
        ["2", "action 2", "", "0", "0", "0"],
    ]


def test_the_text_has_the_mean_and_the_best_action_first():
    boxes = [annotation(1, LEFT, 1), annotation(2, LEFT, 1), annotation(1, LEFT, 3)]
    result = score(boxes, [detection(1, LEFT, 1, 1), detection(1, LEFT, 1, 3)], 1, 2, 3)
    lines = format_frame_map(result.to_dict()).splitlines()
    assert "75.00 %" in lines[0]
    assert [line[:8] for line in lines[-3:]] == ["action 3", "action 1", "action 2"]
    assert lines[-1].split()[2:] == ["–", "0", "0", "0"]
