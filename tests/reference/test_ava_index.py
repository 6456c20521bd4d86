"""AVA's files become the key frames, boxes and actions that PySlowFast makes of them."""

from pathlib import Path

import pytest
from reference_cases import cases

from vidstill.data.ava.box_table import read_included_timestamps
from vidstill.data.ava.clip_reader import KeyframeVideo
from vidstill.data.ava.keyframes import KeyframeBuilder, Keyframes, PersonBoxesConfig
from vidstill.data.ava.label_map import LabelMap
from vidstill.data.ava.proposals import read_annotations, read_person_boxes
from vidstill.data.ava.video_files import read_frame_list

pytestmark = pytest.mark.reference

RATE, BEGINS = 30.0, 900.0  # of the frames that PySlowFast reads


def frames_of(case, mode: str) -> Keyframes:
    """The key frames that we make for one of a case's modes."""
    files = {name: case.path.parent / file for name, file in case.json["files"].items()}
    threshold = case.json["modes"][mode]["score_threshold"]
    films = [KeyframeVideo(name, Path(name), "frames", BEGINS, RATE) for name in case.json["video_names"]]
    actions = LabelMap({number: f"action {number}" for number in range(1, 81)}, frozenset(range(1, 81)))
    seconds = (
        read_included_timestamps(files["included_timestamps"]) if "included_timestamps" in files else range(902, 1799)
    )
    persons = read_person_boxes(files["person_boxes"])
    builder = KeyframeBuilder(actions, films, seconds)
    if not mode.startswith("train"):
        return builder.build_test(persons.select(persons.second % 4 == 0) if "fourth" in mode else persons, threshold)
    config = PersonBoxesConfig(min_score=threshold) if "person_boxes" in mode else None
    return builder.build_train(read_annotations(files["groundtruth"]), persons, config)


def to_foreign(frames: Keyframes) -> list[dict]:
    """Our key frames as the cases list them; a box's actions ascend, and one without any has -1."""
    found: list[dict] = []
    for place in range(len(frames)):
        frame, film = frames[place], int(frames.video_index[place])
        labels = [[frames.label_map.action_ids[a] for a in row.nonzero()[0]] or [-1] for row in frame.labels]
        found.append(
            {
                "video": frame.video.name,
                "video_index": film,
                "index_in_video": sum(each["video_index"] == film for each in found),
                "timestamp": frame.second,
                "centre_frame": (frame.second - frame.video.start_second) * frame.video.frame_rate,
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
        assert to_foreign(frames) == expected, mode
        assert len(frames.boxes) == theirs["boxes_used"], mode


@pytest.mark.parametrize("case", cases(kind="annotation_index", method="ava"))
def test_the_list_of_frames_names_the_videos_and_how_many_frames_each_has(case):
    listed = read_frame_list(case.path.parent / case.json["files"]["frame_list"])
    assert list(listed) == case.json["video_names"]
    assert [each.last_line - each.first_line + 1 for each in listed.values()] == case.json["frames_per_video"]
