"""AVA's score: its rules one by one, its published numbers, and a plain loop that comes to the same."""

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

from vidstill.data.ava.box_table import BoxScores, BoxTable, read_box_csv, write_box_csv
from vidstill.data.ava.label_map import LabelMap
from vidstill.tasks.metrics.ava_map import FrameMAP, argsort_descending, compute_frame_map, format_frame_map

RULES = ("score_order_top50", "score_order", "file_order")
SCRIPT = importlib.util.spec_from_file_location("ava_scoring", SCRIPTS / "ava_scoring.py")
LOOP = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(LOOP)

Row = tuple[str, int, Sequence[float], int, float]
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def rows(several: Sequence[Row]) -> BoxTable:
    names = list(dict.fromkeys(name for name, *_ in several))
    video = np.array([names.index(name) for name, *_ in several], np.int32)
    second, action = (np.array([row[place] for row in several], np.int32) for place in (1, 3))
    box = np.array([row[2] for row in several], np.float64).reshape(-1, 4)
    score = np.array([row[4] for row in several], np.float64)
    return BoxTable(
        Path("rows"), tuple(names), video, second, box, action, score, np.arange(len(several), dtype=np.int32)
    )


def actions(*numbers: int) -> LabelMap:
    return LabelMap({number: f"action {number}" for number in numbers}, frozenset(numbers))


def scored(truth: Sequence[Row], found: Sequence[Row], *numbers: int, **asked: object) -> FrameMAP:
    return compute_frame_map(rows(truth), rows(found), actions(*numbers), **asked)


def truth(second: int, box: Sequence[float], action: int = 1, video: str = "a") -> Row:
    return video, second, box, action, 1.0


def found(second: int, box: Sequence[float], score: float, action: int = 1, video: str = "a") -> Row:
    return video, second, box, action, score


@pytest.mark.parametrize("rule", RULES)
def test_perfect_detections_score_1(rule):
    boxes = [truth(second, box, action) for second in range(9) for box in (LEFT, RIGHT) for action in (1, 2)]
    result = scored(boxes, boxes, 1, 2, matching=rule)
    assert result.mean == 1
    assert [each.average_precision for each in result.actions] == [1, 1]


@pytest.mark.parametrize("rule", RULES)
def test_three_detections_as_counted_by_hand(rule):
    boxes = [truth(1, LEFT), truth(1, RIGHT), truth(2, LEFT)]
    result = scored(boxes, [found(1, LEFT, 0.9), found(2, RIGHT, 0.8), found(1, RIGHT, 0.7)], 1, matching=rule)
    assert result.mean == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3, abs=1e-12)  # hit, miss, hit; one is never found
    curve = result.get_curve(1)
    assert curve.precision.tolist() == [1, 2 / 3]
    assert curve.recall == pytest.approx([1 / 3, 2 / 3])
    assert curve.score.tolist() == [0.9, 0.7]


def test_a_precision_counts_as_the_best_one_at_a_higher_recall():
    boxes = [truth(second, LEFT) for second in range(4)]
    order = [found(9, LEFT, 0.9), *(found(second, LEFT, 0.8 - second / 10) for second in range(3))]
    assert scored(boxes, order, 1).mean == pytest.approx(3 / 4 * 3 / 4)


def test_a_second_box_on_the_same_person_is_a_miss():
    twice = [found(1, LEFT, 0.9), found(1, LEFT, 0.8), found(2, LEFT, 0.7)]
    result = scored([truth(1, LEFT), truth(2, LEFT)], twice, 1)
    assert result.mean == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert len(result.actions[0].true_positives.rank) == 2


def test_an_overlap_of_exactly_one_half_hits_and_a_smaller_one_does_not():
    whole = (0.0, 0.0, 1.0, 1.0)
    assert scored([truth(1, whole)], [found(1, (0, 0, 1, 0.5), 1)], 1).mean == 1
    assert scored([truth(1, whole)], [found(1, (0, 0, 0.5, 1), 1)], 1).mean == 1
    assert scored([truth(1, whole)], [found(1, (0, 0, 1, np.nextafter(0.5, 0)), 1)], 1).mean == 0
    assert scored([truth(1, whole)], [found(1, (0, 0, 1, 0.8), 1)], 1, iou=0.81).mean == 0


def test_the_box_that_is_overlapped_most_is_chosen_and_no_other_then():
    near = (0.0, 0.0, 0.5, 0.95)
    result = scored([truth(1, LEFT), truth(1, near)], [found(1, LEFT, 0.9), found(1, LEFT, 0.8)], 1)
    assert len(result.actions[0].true_positives.rank) == 1
    same = scored([truth(1, LEFT), truth(1, LEFT)], [found(1, LEFT, 0.9), found(1, LEFT, 0.8)], 1)
    assert len(same.actions[0].true_positives.rank) == 1  # of equal ones the first


def test_who_chooses_first_is_a_matter_of_the_rule():
    worse_first = [found(1, LEFT, 0.3), found(1, LEFT, 0.9)]
    assert scored([truth(1, LEFT)], worse_first, 1, matching="score_order").mean == 1
    assert scored([truth(1, LEFT)], worse_first, 1, matching="file_order").mean == 0.5


def test_an_excluded_key_frame_takes_no_part_on_either_side():
    boxes = [truth(1, LEFT), truth(2, LEFT), truth(2, LEFT, video="b")]
    detected = [found(1, LEFT, 0.5), found(2, RIGHT, 0.9), found(2, LEFT, 0.4, video="b")]
    result = scored(boxes, detected, 1, excluded={("a", 2), ("nobody", 1)})
    assert result.mean == 1
    assert (result.actions[0].num_ground_truth, result.actions[0].num_detections) == (2, 2)
    assert result.num_ignored["in excluded key frames"] == 1


def test_an_action_that_is_not_annotated_has_no_precision_and_one_that_is_not_found_has_0():
    result = scored([truth(1, LEFT, 1), truth(1, LEFT, 3)], [found(1, LEFT, 1, 1), found(1, LEFT, 1, 2)], 1, 2, 3)
    assert [each.average_precision for each in result.actions] == [1, None, 0]
    assert result.mean == 0.5


def test_without_detections_it_is_0_and_without_annotations_there_is_none():
    assert scored([truth(1, LEFT)], [], 1).mean == 0
    assert scored([], [found(1, LEFT, 1)], 1).mean is None
    assert scored([], [], 1).mean is None


def test_boxes_where_nothing_is_annotated_are_misses_also_in_unknown_videos():
    detected = [found(1, LEFT, 0.5), found(2, LEFT, 0.9), found(1, LEFT, 0.8, video="b")]
    result = scored([truth(1, LEFT)], detected, 1)
    assert result.mean == pytest.approx(1 / 3)
    assert result.num_unannotated == 2


def test_other_actions_and_boxes_without_area_take_no_part():
    inside_out, flat = (0.5, 0, 0.2, 1), (0.2, 0.5, 0.8, 0.5)
    detected = [found(1, inside_out, 0.9), found(1, flat, 0.8), found(1, LEFT, 0.7, 5), found(1, LEFT, 0.1)]
    result = scored([truth(1, LEFT), truth(1, RIGHT, 5), truth(1, flat)], detected, 1)
    assert result.mean == pytest.approx(1 / 2)  # an annotated box without area is one that nobody finds
    assert result.actions[0].num_detections == 1
    assert result.num_ignored["of other actions"] == 1
    assert result.num_ignored["without area"] == 2


def test_the_50_best_rows_of_a_key_frame_count_boxes_without_area_among_them():
    many = [found(1, RIGHT, 0.9, 2)] * 30 + [found(1, (0.5, 0, 0.2, 1), 0.8, 2)] * 19
    detected = [found(1, LEFT, 0.5, 1), *many, found(1, LEFT, 0.4, 1), found(2, LEFT, 0.1, 1)]
    boxes = [truth(1, LEFT, 1), truth(2, LEFT, 1)]
    assert [each.num_detections for each in scored(boxes, detected, 1, 2).actions] == [2, 30]
    assert [each.num_detections for each in scored(boxes, detected, 1, 2, matching="score_order").actions] == [3, 30]


@pytest.mark.parametrize(
    ("rule", "each", "mean"),
    [
        ("score_order", (0.348667441, 0.318015482, 0.334649469), 0.333777464),
        ("file_order", (0.252570759, 0.248512120, 0.227685856), 0.242922912),
    ],
)
def test_the_published_evaluations_of_made_up_boxes(rule, each, mean):
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
            boxes += [truth(second, turned(y1x1y2x2), action) for action in (1, 3, 4) if u() < 0.5]
            for _ in range(2):
                near = [round(side + round(0.12 * (u() - 0.5), 3), 3) for side in y1x1y2x2]
                detected += [found(second, turned(near), round(u(), 5), action) for action in (1, 3, 4, 5)]
    assert (len(boxes), len(detected)) == (123, 664)
    result = scored(boxes, detected, 1, 3, 4, 5, excluded={("a", 905)}, matching=rule)
    *three, last = (one.average_precision for one in result.actions)
    assert three == pytest.approx(each, abs=1e-9)
    assert last is None
    assert result.mean == pytest.approx(mean, abs=1e-9)


def turned(box: Sequence[float]) -> Sequence[float]:
    return box[1], box[0], box[3], box[2]


places = st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.5, 0.8, 1.0])
boxes = st.tuples(places, places, places, places)
moments = st.tuples(st.sampled_from("ab"), st.integers(1, 3))
stated = st.tuples(moments, boxes, st.integers(1, 4)).map(lambda each: (*each[0], *each[1:], 1.0))


@st.composite
def results(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """Annotated rows, and detections with scores of which no two are alike."""
    annotated = draw(st.lists(stated, max_size=12))
    detected = draw(st.lists(stated, max_size=25))
    scores = draw(st.permutations(range(len(detected))))
    detected = [(*row[:4], score / 32) for row, score in zip(detected, scores, strict=True)]
    whole = [row for row in annotated if row[2][0] < row[2][2] and row[2][1] < row[2][3]]
    return whole, detected


@given(results(), st.sampled_from(RULES), st.sets(moments, max_size=2))
@settings(max_examples=150, deadline=None)
def test_a_plain_loop_comes_to_the_same(result, rule, excluded):
    annotated, detected = result
    ours = scored(annotated, detected, 1, 2, 3, matching=rule, excluded=excluded)
    theirs = LOOP.plain_frame_map(annotated, detected, (1, 2, 3), excluded=excluded, matching=rule)
    assert {each.action_id: each.average_precision for each in ours.actions} == pytest.approx(theirs, abs=1e-12)


@given(results(), st.randoms(use_true_random=False), st.sampled_from(RULES[:2]))
@settings(max_examples=60, deadline=None)
def test_by_score_the_order_of_the_rows_does_not_matter(result, chance, rule):
    annotated, detected = result
    shuffled = chance.sample(detected, len(detected))
    one, other = (scored(annotated, each, 1, 2, 3, matching=rule).to_dict() for each in (detected, shuffled))
    assert one == other


def dense(detections: int, seed: int, *, ties: bool = False) -> tuple[BoxTable, BoxScores]:
    """Annotated boxes of 12 actions in 30 key frames, and boxes with scores for 9 of them and another one."""
    chance = np.random.default_rng(seed)
    corner = chance.random((40 + detections, 2)).round(1) * 0.6
    box = np.concatenate([corner, corner + 0.2 + 0.2 * chance.random((len(corner), 2)).round(1)], axis=1)
    box[-3] = box[-3, [2, 1, 0, 3]]
    video, second = (chance.integers(0, top, len(box)).astype(np.int32) for top in (3, 10))
    action = chance.integers(1, 13, 40).astype(np.int32)
    names, line = ("a", "b", "c"), np.arange(40, dtype=np.int32)
    truth = BoxTable(Path("truth"), names, video[:40], second[:40], box[:40], action, np.ones(40), line)
    scores = chance.random((detections, 10)).astype(np.float32)
    scores = scores.round(1) if ties else scores
    return truth, BoxScores(names, video[40:], second[40:], box[40:], (1, 2, 3, 5, 6, 8, 9, 11, 12, 99), scores)


def spread(boxes: BoxScores) -> BoxTable:
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
def test_boxes_with_scores_come_to_the_same_as_their_rows(rule, detections, ties):
    truth, boxes = dense(detections, seed=detections, ties=ties)
    asked = {"excluded": {("a", 3)}, "matching": rule}
    wanted = actions(*range(1, 13))
    one, other = (compute_frame_map(truth, each, wanted, **asked).to_dict() for each in (boxes, spread(boxes)))
    assert one == other
    assert one["detected"] > 0


@pytest.mark.parametrize("rule", RULES)
def test_what_was_written_scores_the_same(rule, tmp_path):
    truth, boxes = dense(200, seed=1)
    write_box_csv(tmp_path / "rows.csv", boxes)
    again = read_box_csv(tmp_path / "rows.csv", has_scores=True)
    one, other = (
        compute_frame_map(truth, each, actions(*range(1, 13)), matching=rule).to_dict() for each in (boxes, again)
    )
    assert one == other
    assert one["hits"] > 0


def test_a_score_that_is_no_number_is_refused():
    truth, boxes = dense(5, seed=0)
    boxes.scores[2, 1] = np.nan
    name = f"{boxes.video_names[boxes.video_index[2]]} at second {boxes.second[2]}"
    with pytest.raises(ValueError, match=f"a box of {name} or a score of it is no finite number"):
        compute_frame_map(truth, boxes, actions(1, 2))


@given(st.lists(st.sampled_from([0.0, -0.0, 0.5, 1e-40, -1e-40, -3.0, 7.5, 1e30, -1e30])))
def test_the_best_come_first_and_of_equal_ones_the_first(scores):
    for kind in (np.float32, np.float64):
        values = np.array(scores, kind)
        assert argsort_descending(values).tolist() == sorted(range(len(scores)), key=lambda place: -values[place])


def test_numbers_stand_under_the_names_of_the_official_script_and_in_percent():
    result = scored([truth(1, LEFT, 1), truth(2, LEFT, 1)], [found(1, LEFT, 1, 1)], 1, 2)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["PascalBoxes_Precision/mAP@0.5IOU"] == 0.5
    assert plain["PascalBoxes_PerformanceByCategory/AP@0.5IOU/action 1"] == 0.5
    assert plain["PascalBoxes_PerformanceByCategory/AP@0.5IOU/action 2"] is None
    assert plain["mean_average_precision"] == 50
    one, two = plain["actions"]
    assert one == {
        **two,
        "number": 1,
        "name": "action 1",
        "average_precision": 50,
        "annotated": 2,
        "detected": 1,
        "hits": 1,
    }
    assert two["average_precision"] is None


def test_a_score_in_words_has_the_mean_and_the_best_action_first():
    boxes = [truth(1, LEFT, 1), truth(2, LEFT, 1), truth(1, LEFT, 3)]
    lines = format_frame_map(
        scored(boxes, [found(1, LEFT, 1, 1), found(1, LEFT, 1, 3)], 1, 2, 3).to_dict()
    ).splitlines()
    assert "75.00 %" in lines[0]
    assert [line[:8] for line in lines[-3:]] == ["action 3", "action 1", "action 2"]
    assert lines[-1].split()[2:] == ["–", "0", "0", "0"]


def test_the_table_has_a_line_for_each_action():
    lines = (
        b"".join(scored([truth(1, LEFT, 1)], [found(1, LEFT, 1, 1)], 1, 2).format_classes_csv()).decode().splitlines()
    )
    head, one, two = csv.reader(lines)
    assert dict(zip(head, one, strict=True))["average_precision"] == "100.0"
    assert dict(zip(head, two, strict=True)) == {
        **dict.fromkeys(("annotated", "detected", "hits"), "0"),
        "number": "2",
        "name": "action 2",
        "average_precision": "",
    }
