"""Rows of boxes become key frames: each box once with all its actions, and a detector's boxes beside the annotated."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidstill.data.ava.box_table import BoxTable, read_box_csv
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.keyframes import KeyframeBuilder, Keyframes, PersonBoxesConfig
from vidstill.data.ava.label_map import LabelMap
from vidstill.utils.types import InputError

ACTIONS = LabelMap({1: "walk", 3: "run", 7: "talk"}, frozenset({1, 3}))
FILMS = KeyframeVideo("b", Path("b.mp4")), KeyframeVideo("a", Path("a.mp4")), KeyframeVideo("gone", None)
BUILDER = KeyframeBuilder(ACTIONS, FILMS)


@pytest.fixture
def rows(tmp_path):
    """Reads rows of text, so that messages have a file and lines."""

    def read(text: str, *, scored: bool = False, name: str = "") -> BoxTable:
        path = tmp_path / (name or ("persons.csv" if scored else "train.csv"))
        path.write_text(text)
        return read_box_csv(path, has_scores=scored)

    return read


def plain(frames: Keyframes) -> list[tuple]:
    """Each key frame with its boxes and the numbers of their actions."""
    keyframe_boxes = []
    for index in range(len(frames)):
        frame = frames[index]
        actions = [{ACTIONS.action_ids[a] for a in row.nonzero()[0]} for row in frame.labels]
        keyframe_boxes.append((frame.key, list(zip(map(tuple, frame.boxes.tolist()), actions, strict=True))))
    return keyframe_boxes


ONE, TWO, THREE = (0.1, 0.1, 0.5, 0.9), (0.6, 0.1, 0.9, 0.9), (0.11, 0.1, 0.5, 0.9)


def text(box: tuple) -> str:
    return ",".join(map(str, box))


def test_rows_of_one_box_are_merged_in_the_order_of_videos_seconds_and_rows(rows):
    annotated = rows(
        f"a,0904,{text(TWO)},1,0\na,0904,{text(ONE)},3,1\nb,0903,{text(ONE)},7,0\na,0902,{text(ONE)},1,0\n"
        f"a,0904,0.60,0.100,0.9,0.9,7,0\na,904,{text(TWO)},1,0\n"
    )
    frames = BUILDER.build_train(annotated)
    assert plain(frames) == [
        ("b,0903", [(ONE, {7})]),
        ("a,0902", [(ONE, {1})]),
        ("a,0904", [(TWO, {1, 7}), (ONE, {3})]),
    ]
    assert frames.box_offsets.tolist() == [0, 1, 2, 4]
    assert frames.max_boxes == 2
    assert (frames.scores == 1).all()
    assert frames.source == annotated.source
    assert "3 key frames with 4 boxes, annotated" in frames.description


def test_detected_boxes_above_the_threshold_follow_the_annotated_with_the_actions_of_their_file(rows):
    annotated = rows(f"b,0902,{text(ONE)},1,0\n")
    persons = rows(
        f"b,0902,{text(TWO)},3,0.9\nb,0902,{text(TWO)},7,0.9\nb,0902,{text(THREE)},3,0.89\nb,0902,{text(ONE)},7,0.95\n"
        f"b,0903,{text(ONE)},,0.99\n",
        scored=True,
    )
    frames = BUILDER.build_train(annotated, person_boxes=persons, config=PersonBoxesConfig(min_score=0.9))
    assert plain(frames) == [("b,0902", [(ONE, {1, 7}), (TWO, {3, 7})]), ("b,0903", [(ONE, set())])]
    assert frames.scores.tolist() == [1, 0.9, 0.99]
    assert plain(BUILDER.build_train(annotated, person_boxes=persons)) == [("b,0902", [(ONE, {1})])]


def test_the_number_of_detected_boxes_with_actions_is_limited_by_score(rows):
    annotated = rows(f"b,0902,{text(ONE)},1,0\nb,0903,{text(ONE)},1,0\n")
    boxes = [(0.1, 0.1, 0.5, round(0.9 + 0.001 * n, 3)) for n in range(1, 6)]
    scores = [0.91, 0.95, 0.93, 0.95, 0.92]
    lines = [f"b,0902,{text(box)},,{score}\n" for box, score in zip(boxes, scores, strict=True)]
    persons = rows("".join(lines) + f"b,0902,{text(TWO)},,0.9\nb,0903,{text(THREE)},,0.9\n", scored=True)
    config = PersonBoxesConfig(min_score=0.9, min_iou=0.9, max_boxes=2)
    frames = BUILDER.build_train(annotated, persons, config)
    first, second = plain(frames)
    assert first[1] == [(ONE, {1}), (boxes[1], {1}), (boxes[3], {1}), (TWO, set())]
    assert second[1] == [(ONE, {1}), (THREE, {1})]


coordinates = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]
spans = st.sampled_from([(low, high) for low in coordinates for high in coordinates if low < high])
sides = st.tuples(spans, spans).map(lambda pair: (pair[0][0], pair[1][0], pair[0][1], pair[1][1]))
annotated_rows = st.tuples(st.integers(0, 1), st.integers(902, 905), sides, st.sampled_from([-1, 1, 3, 7]))
detected_rows = st.tuples(annotated_rows, st.sampled_from([0.5, 0.8, 0.9, 1.0]))


def make_table(entries: list[tuple], scores: list[float] | None = None) -> BoxTable:
    video, second, box, action = zip(*entries, strict=True) if entries else ((), (), (), ())
    return BoxTable(
        Path("made.csv"),
        ("a", "b"),
        np.array(video, np.int32),
        np.array(second, np.int32),
        np.array(box, np.float64).reshape(-1, 4),
        np.array(action, np.int32),
        np.array([1.0] * len(entries) if scores is None else scores, np.float64),
        np.arange(1, len(entries) + 1, dtype=np.int32),
    )


@given(st.lists(annotated_rows, min_size=1), st.lists(detected_rows), st.booleans())
def test_key_frames_equal_those_of_a_plain_loop(annotated, detected, by_overlap):
    persons = make_table([each for each, _ in detected], [score for _, score in detected])
    config = PersonBoxesConfig(min_score=0.8, min_iou=0.5 if by_overlap else None)
    frames = BUILDER.build_train(make_table(annotated), person_boxes=persons, config=config)

    expected: dict[tuple, dict[tuple, set]] = {}
    for video, second, box, action in annotated:
        expected.setdefault((video, second), {}).setdefault(box, set()).update({action} - {-1})
    before = {moment: dict(boxes) for moment, boxes in expected.items()}
    for (video, second, box, action), score in detected:
        if score < 0.8 or (by_overlap and (video, second) not in before):
            continue
        actions = {action} - {-1}
        if by_overlap:
            overlaps = {other: overlap(box, other) for other in before[video, second]}
            most = max(overlaps.values())
            best = next(other for other, value in overlaps.items() if value == most)
            actions = set(before[video, second][best]) if most >= 0.5 else set()
        expected.setdefault((video, second), {}).setdefault(box, set()).update(actions)
    order = sorted(expected, key=lambda moment: (-moment[0], moment[1]))  # the film b is the first
    assert plain(frames) == [(f"{'ab'[v]},{s:04d}", list(expected[v, s].items())) for v, s in order]


def overlap(one: tuple, other: tuple) -> float:
    size = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(size.clip(0).prod())
    areas = [float(np.subtract(box[2:], box[:2]).prod()) for box in (one, other)]
    return shared / (areas[0] + areas[1] - shared)


# ---- tests ----------------------------------------------------------------------------------------------------------


def test_a_test_scores_the_detected_boxes_above_the_threshold(rows):
    persons = rows(
        f"b,0904,{text(ONE)},,0.8\nb,0904,{text(TWO)},,0.7999\nb,0905,{text(ONE)},1,0.9\na,0908,{text(ONE)},,1\n",
        scored=True,
    )
    frames = BUILDER.build_test(persons, min_score=0.8)
    assert [name for name, _ in plain(frames)] == ["b,0904", "b,0905", "a,0908"]
    assert frames.scores.tolist() == [0.8, 0.9, 1]
    assert "detected with a score of 0.8 or more" in frames.description


def test_a_test_of_annotated_boxes_is_described_as_such(rows):
    frames = BUILDER.build_test(rows(f"b,0904,{text(ONE)},1,0\n"), min_score=None)
    assert plain(frames) == [("b,0904", [(ONE, {1})])]
    assert frames.description.endswith("as annotated")


# ---- what is left out, and what is wrong ----------------------------------------------------------------------------


def test_missing_videos_other_seconds_and_excluded_key_frames_are_left_out(rows):
    annotated = rows(
        f"gone,0902,{text(ONE)},1,0\nb,0901,{text(ONE)},1,0\nb,0902,{text(ONE)},1,0\nb,0903,{text(ONE)},1,0\n"
        f"a,0903,{text(ONE)},1,0\n"
    )
    excluded = {("b", 903), ("unknown", 902), ("a", 902)}
    builder = replace(BUILDER, keyframe_seconds=range(902, 1799), excluded_keyframes=excluded)
    frames = builder.build_train(annotated)
    assert [name for name, _ in plain(frames)] == ["b,0902", "a,0903"]


def test_an_unknown_video_is_named_with_file_and_line(rows):
    annotated = rows(f"b,0902,{text(ONE)},1,0\nwho,0902,{text(ONE)},1,0\n")
    with pytest.raises(InputError, match=rf"line 2 of {annotated.source} names the video 'who'"):
        BUILDER.build_train(annotated)


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_detected_boxes_of_unannotated_videos_are_dropped_and_counted(rows, caplog):
    persons = rows(
        f"b,0902,{text(ONE)},,0.9\nx,0902,{text(ONE)},,0.9\ny,0902,{text(ONE)},,0.9\nz,0902,{text(ONE)},,0.1\n",
        scored=True,
    )
    assert len(BUILDER.build_test(persons, min_score=0.8).boxes) == 1
    (message,) = warnings_of(caplog)
    assert "has 2 rows of videos that the annotations do not name" in message
    assert f"line 2 of {persons.source}" in message


def test_unknown_actions_are_counted_and_their_boxes_stay(rows, caplog):
    annotated = rows(f"b,0902,{text(ONE)},1,0\nb,0902,{text(ONE)},80,0\nb,0902,{text(TWO)},2,0\n")
    assert plain(BUILDER.build_train(annotated)) == [("b,0902", [(ONE, {1}), (TWO, set())])]
    (message,) = warnings_of(caplog)
    assert "has 2 rows with an action that the label map lacks, such as 80" in message
    assert f"line 2 of {annotated.source}" in message


def test_boxes_without_area_are_dropped_and_boxes_outside_the_frame_are_reported(rows, caplog):
    annotated = rows(
        f"b,0902,{text(ONE)},1,0\nb,0902,0.5,0.5,0.5,0.9,1,0\nb,0902,-0.2,0.1,0.5,0.9,1,0\n"
        "b,0902,1.1,0.1,1.5,0.9,1,0\nb,0902,0.5,0.1,1.0005,0.9,1,0\n"
    )
    frames = BUILDER.build_train(annotated)
    assert frames.boxes[:, 0].tolist() == [0.1, -0.2, 0.5]
    none, over = warnings_of(caplog)
    assert "has 2 rows with a box without area" in none
    assert f"line 2 of {annotated.source}" in none
    assert "has 1 row with a box that reaches out of the frame" in over
    assert f"line 3 of {annotated.source}" in over


def test_an_empty_set_of_key_frames_is_refused_with_the_reason(rows):
    annotated = rows(f"gone,0902,{text(ONE)},1,0\n")
    with pytest.raises(InputError, match=r"none of the 1 rows of .*train.csv can be used in training; the videos may"):
        BUILDER.build_train(annotated)
    persons = rows(f"b,0902,{text(ONE)},,0.5\n", scored=True)
    with pytest.raises(InputError, match=r"persons.csv can be tested; none has a score of 0.8 or more; lower"):
        BUILDER.build_test(persons, min_score=0.8)
    with pytest.raises(InputError, match="can be tested"):
        BUILDER.build_test(rows("", scored=True), min_score=0.8)


def test_training_that_needs_person_boxes_is_refused_without_them(rows):
    with pytest.raises(InputError, match="there is no file of them; make one with `vidstill detect boxes`"):
        BUILDER.build_train(rows(f"b,0902,{text(ONE)},1,0\n"), config=PersonBoxesConfig())


def test_the_fingerprint_changes_with_whatever_is_trained_on_and_not_with_the_folder(rows):
    annotated = rows(f"b,0902,{text(ONE)},1,0\n")
    mark = BUILDER.build_train(annotated).fingerprint
    moved = [replace(film, path=film.path and Path("/elsewhere") / film.path) for film in FILMS]
    assert replace(BUILDER, videos=moved).build_train(annotated).fingerprint == mark
    others = {
        BUILDER.build_train(rows(f"b,0902,{text(TWO)},1,0\n")).fingerprint,
        BUILDER.build_train(rows(f"b,0902,{text(ONE)},3,0\n")).fingerprint,
        BUILDER.build_train(rows(f"b,0903,{text(ONE)},1,0\n")).fingerprint,
        replace(BUILDER, label_map=replace(ACTIONS, evaluated_ids=frozenset({1}))).build_train(annotated).fingerprint,
        replace(BUILDER, videos=[replace(FILMS[0], start_second=900.0), *FILMS[1:]]).build_train(annotated).fingerprint,
    }
    assert len(others | {mark}) == 6
