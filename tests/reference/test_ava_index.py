"""AVA's files become the key frames, boxes and actions that PySlowFast makes of them."""

from pathlib import Path

import pytest
from reference_cases import cases

from vidstill.data.ava.box_table import read_seconds
from vidstill.data.ava.clip_reader import Film
from vidstill.data.ava.keyframes import KeyFrames, PersonBoxes, frames_to_test, frames_to_train
from vidstill.data.ava.label_map import Actions
from vidstill.data.ava.proposals import read_annotations, read_persons
from vidstill.data.ava.video_files import read_frame_list

pytestmark = pytest.mark.reference

RATE, BEGINS = 30.0, 900.0  # of the frames that PySlowFast reads


def frames_of(case, mode: str) -> KeyFrames:
    """The key frames that we make for one of a case's modes."""
    files = {name: case.path.parent / file for name, file in case.json["files"].items()}
    threshold = case.json["modes"][mode]["score_threshold"]
    films = [Film(name, Path(name), "frames", BEGINS, RATE) for name in case.json["video_names"]]
    actions = Actions({number: f"action {number}" for number in range(1, 81)}, frozenset(range(1, 81)))
    seconds = read_seconds(files["included_timestamps"]) if "included_timestamps" in files else range(902, 1799)
    persons = read_persons(files["person_boxes"]).rows
    if not mode.startswith("train"):
        every = 4 if "fourth" in mode else 1
        return frames_to_test(persons, actions, films, threshold=threshold, every=every, seconds=seconds)
    config = PersonBoxes(score=threshold) if "person_boxes" in mode else None
    annotated = read_annotations(files["groundtruth"])
    return frames_to_train(annotated, actions, films, persons=persons, config=config, seconds=seconds)


def in_their_words(frames: KeyFrames) -> list[dict]:
    """Our key frames as the cases list them; a box's actions ascend, and one without any has -1."""
    found: list[dict] = []
    for place in range(len(frames)):
        frame, film = frames[place], int(frames.film[place])
        labels = [[frames.actions.numbers[a] for a in row.nonzero()[0]] or [-1] for row in frame.labels]
        found.append(
            {
                "video": frame.film.name,
                "video_index": film,
                "index_in_video": sum(each["video_index"] == film for each in found),
                "timestamp": frame.second,
                "centre_frame": (frame.second - frame.film.start) * frame.film.rate,
                "boxes": frame.boxes.tolist(),
                "labels": labels,
            }
        )
    return found


@pytest.mark.parametrize("case", cases(kind="annotation_index", method="ava"))
def test_each_mode_s_key_frames_boxes_and_actions_are_those_of_pyslowfast(case):
    for mode, theirs in case.json["modes"].items():
        frames = frames_of(case, mode)
        expected = [
            {**frame, "labels": [sorted({*row} - {-1}) or [-1] for row in frame["labels"]]}
            for frame in theirs["keyframes"]
        ]
        assert in_their_words(frames) == expected, mode
        assert len(frames.boxes) == theirs["boxes_used"], mode


@pytest.mark.parametrize("case", cases(kind="annotation_index", method="ava"))
def test_the_list_of_frames_names_the_videos_and_how_many_frames_each_has(case):
    listed = read_frame_list(case.path.parent / case.json["files"]["frame_list"])
    assert list(listed) == case.json["video_names"]
    assert [each.last - each.first + 1 for each in listed.values()] == case.json["frames_per_video"]
