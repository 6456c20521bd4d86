"""The files of a data set of boxes are found by their names, its videos by theirs, and it is said what was taken."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from tiny_videos import write_images

from vidstill.data.ava.dataset import open_box_dataset
from vidstill.data.ava.keyframes import PersonBoxesConfig
from vidstill.utils.types import InputError

LIST = 'item {\n  name: "sit"\n  id: 1\n}\nitem {\n  name: "rare"\n  id: 2\n}\nitem {\n  name: "run"\n  id: 10\n}\n'
SOME = 'item {\n  name: "sit"\n  id: 1\n}\nitem {\n  name: "run"\n  id: 10\n}\n'
TRAIN = "one,0902,0.1,0.1,0.5,0.9,1,0\none,0902,0.1,0.1,0.5,0.9,10,0\ntwo,1798,0.1,0.1,0.5,0.9,2,0\n"
VAL = "three,0904,0.1,0.1,0.5,0.9,1,0\nthree,0905,0.1,0.1,0.5,0.9,1,0\n"
AVA = {
    "ava_train_v2.2.csv": TRAIN,
    "ava_val_v2.2.csv": VAL,
    "ava_val_excluded_timestamps_v2.2.csv": "three,0905\n",
    "ava_action_list_v2.2.pbtxt": LIST,
    "ava_action_list_v2.2_for_activitynet_2019.pbtxt": SOME,
}
ANNOTATIONS = {f"annotations/{name}": text for name, text in AVA.items()}
OWN = {
    "annotations/train.csv": "a,0,0.1,0.1,0.5,0.9,1,0\nb,3,0.1,0.1,0.5,0.9,2,0\n",
    "annotations/val.csv": "c,1,0.1,0.1,0.5,0.9,1,0\nc,2,0.1,0.1,0.5,0.9,1,0\n",
    "annotations/actions.csv": "1,walks\n2,runs\n",
}
PERSONS = "three,0904,0.1,0.1,0.5,0.9,,0.95\nthree,0906,0.1,0.1,0.5,0.9,,0.85\nthree,0907,0.1,0.1,0.5,0.9,,0.1\n"


@pytest.fixture
def tree(tmp_path):
    """A folder of files by their paths; what has no text is empty."""

    def make(texts: dict[str, str], *files: str, below: str = "") -> Path:
        for name, text in [*((below + name, text) for name, text in texts.items()), *((name, "") for name in files)]:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def film(path: Path, seconds: int) -> None:
    """A video of one frame a second."""
    write_images(path, np.zeros((seconds, 16, 16, 3), np.uint8), "mpeg4", 1)


def locations(split) -> dict[str, tuple]:
    return {each.name: (each.path, each.format, each.start_second) for each in split.videos}


# ---- AVA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "annotations/", "annotations/ava_v2.2/", "ava_v2.2/"])
@pytest.mark.parametrize("version", ["2.2", "2.1"])
def test_ava_is_recognized_by_its_official_names_with_its_splits_actions_and_seconds(tree, below, version):
    year = {"2.2": "2019", "2.1": "2018"}[version]
    names = {name.replace("2.2", version).replace("2019", year): text for name, text in AVA.items()}
    path = tree(names, "videos_15min/one.mkv", "videos_15min/two.mp4", "videos_15min/three.webm", below=below)
    data = open_box_dataset(path)
    assert (data.name, data.description) == (f"AVA v{version}",) * 2
    assert dict(data.label_map.names) == {1: "sit", 2: "rare", 10: "run"}
    assert data.label_map.evaluated_ids == {1, 10}
    assert (min(data.keyframe_seconds), max(data.keyframe_seconds), len(data.keyframe_seconds)) == (902, 1798, 897)
    train, val = data.load_split("train"), data.load_split("val")
    assert locations(train) == {
        "one": (path / "videos_15min/one.mkv", "file", 900),
        "two": (path / "videos_15min/two.mp4", "file", 900),
    }
    assert locations(val) == {"three": (path / "videos_15min/three.webm", "file", 900)}
    assert val.excluded_keyframes == {("three", 905)}
    assert train.excluded_keyframes == frozenset()
    trimmed = "1 video taken for 15 minutes from second 900"
    assert val.description == f"AVA v{version}, val split, 0 of 1 videos missing, {trimmed}"


def test_a_list_of_included_seconds_replaces_avas_own(tree):
    path = tree({**AVA, "ava_included_timestamps_v2.2.txt": "0902\n0904\n"}, "videos_15min/three.mp4")
    assert set(open_box_dataset(path).keyframe_seconds) == {902, 904}


def test_one_of_avas_two_lists_of_actions_is_enough(tree):
    names = [name for name in AVA if "action_list" in name]
    path = tree(AVA)
    (path / names[1]).unlink()
    data = open_box_dataset(path)
    assert data.label_map.evaluated_ids >= {1, 10, 80}
    assert len(data.label_map.evaluated_ids) == 60
    (path / names[1]).write_text(SOME)
    (path / names[0]).unlink()
    data = open_box_dataset(path)
    assert (len(data.label_map), data.label_map.names[10], data.label_map.evaluated_ids) == (80, "run", {1, 10})
    (path / names[1]).unlink()
    with pytest.raises(InputError, match=r"has no list of AVA's actions; put ava_action_list_v2\.2\.pbtxt there"):
        open_box_dataset(path)
    (path / "mine.txt").write_text("sits\nruns\n")
    assert dict(open_box_dataset(path, label_map_path=path / "mine.txt").label_map.names) == {1: "sits", 2: "runs"}


@pytest.mark.parametrize(
    "file",
    [
        "annotations/ava_val_predicted_boxes.csv",
        "annotations/person_box_67091280_iou90/ava_detection_val_boxes_and_labels.csv",
        "person_box_67091280_iou90/ava_detection_val_boxes_and_labels.csv",
    ],
)
def test_person_boxes_of_published_detectors_are_located_and_tested(tree, file):
    path = tree({**ANNOTATIONS, file: PERSONS}, "trainval/three.mp4")
    val = open_box_dataset(path, start_second=0.0).load_split("val")
    assert val.files.person_boxes == path / file
    frames = val.load_test_keyframes(0.8)
    assert [frames[index].key for index in range(len(frames))] == ["three,0904", "three,0906"]
    assert f"with {path / file}" in frames.description


def test_boxes_of_the_highest_threshold_and_of_the_same_version_are_preferred(tree):
    boxes = ["a/person_box_1_iou75/ava_detection_train_boxes_and_labels_include_negative_v2.2.csv"]
    boxes += [boxes[0].replace("iou75", "iou90").replace("_v2.2", version) for version in ("", "_v2.2")]
    path = tree({f"a/{name}": text for name, text in AVA.items()}, *boxes) / "a"
    assert open_box_dataset(path).files["train"].person_boxes == path.parent / boxes[2]


def test_person_boxes_of_videomae_and_mmaction2_are_located(tree):
    path = tree(AVA, "trainval/three.mp4")
    (path / "ava_dense_proposals_val.FAIR.recall_93.9.pkl").write_bytes(
        pickle.dumps({"three,0904": np.array([[0.1, 0.1, 0.5, 0.9, 0.97]]), "three,0906": np.zeros((0, 5))})
    )
    frames = open_box_dataset(path, start_second=0.0).load_split("val").load_test_keyframes(0.9)
    assert frames.scores.tolist() == [0.97]
    assert "ava_dense_proposals_val.FAIR" in frames.description

    (path / "ava_dense_proposals_val.FAIR.recall_93.9.pkl").unlink()
    for name, content in {
        "ava_val_v2.2.json": {
            "images": [{"id": 904, "movie": "three", "timestamp": 904, "width": 100, "height": 200}],
            "annotations": [{"image_id": 904, "bbox": [10, 20, 40, 160], "action_ids": [1, 10]}],
        },
        "ava_val_det_person_bbox.json": [{"image_id": 904, "bbox": [10, 20, 40, 160], "score": 0.9}],
    }.items():
        (path / name).write_text(json.dumps(content))
    (path / "ava_val_v2.2.csv").unlink()
    val = open_box_dataset(path, start_second=0.0).load_split("val")
    assert val.annotations.action_id.tolist() == [1, 10]
    np.testing.assert_allclose(val.load_test_keyframes(0.8).boxes, [[0.1, 0.1, 0.5, 0.9]])


def test_missing_videos_of_ava_are_counted_and_left_out(tree):
    path = tree(AVA, "trainval/two.mp4")
    train = open_box_dataset(path, start_second=0.0).load_split("train")
    assert "1 of 2 videos missing" in train.description
    assert [film.path for film in train.videos] == [None, path / "trainval/two.mp4"]
    frames = train.load_train_keyframes(None)
    assert [frames[index].key for index in range(len(frames))] == ["two,1798"]
    assert train.available_annotations.second.tolist() == [1798]
    assert train.available_annotations.line_number.tolist() == [3]
    assert len(train.annotations) == 3


def test_frames_and_seconds_of_ava_are_located_in_their_folders(tree):
    path = tree(
        ANNOTATIONS,
        *("frames/one/one_000001.jpg", "frames/one/one_000002.jpg"),
        *("clips/trainval/two/1797.mp4", "clips/trainval/two/1798.mp4"),
        "clips/trainval/three/readme.txt",
    )
    data = open_box_dataset(path)
    assert locations(data.load_split("train")) == {
        "one": (path / "frames/one", "frames", 900),
        "two": (path / "clips/trainval/two", "seconds", 0),
    }
    assert data.load_split("val").videos[0].path is None


def test_a_video_shorter_than_its_annotations_begins_at_second_900_and_a_whole_movie_at_0(tree):
    path = tree(ANNOTATIONS, "trainval/three.mp4")  # no video at all
    film(path / "trainval/one.mp4", 901)
    film(path / "trainval/two.mp4", 1800)
    train = open_box_dataset(path).load_split("train")
    assert [each.start_second for each in train.videos] == [900, 0]  # annotated to 902, and to 1798
    assert "1 video taken for 15 minutes" in train.description
    film(path / "trainval/one.mp4", 903)
    film(path / "trainval/two.mp4", 901)
    for start_second, expected in ((None, [0, 900]), (800.0, [800, 800])):
        train = open_box_dataset(path, start_second=start_second).load_split("train")
        assert [each.start_second for each in train.videos] == expected
    assert open_box_dataset(path).load_split("val").videos[0].start_second == 0


# ---- lists of frames ------------------------------------------------------------------------------------------------

HEAD = "original_vido_id video_id frame_id path labels\n"


def frame_list(**videos: int) -> str:
    lines = [
        f'{name} {n} {frame} {name}/{name}_{frame + 1:06d}.jpg ""\n'
        for n, (name, count) in enumerate(videos.items())
        for frame in range(count)
    ]
    return HEAD + "".join(lines)


def test_a_list_of_frames_gives_the_videos_their_order_and_their_folders(tree):
    frames = [f"frames/{name}/{name}_{n:06d}.jpg" for name in ("two", "one") for n in (1, 2, 3)]
    path = tree({**AVA, "frame_lists/train.csv": frame_list(two=3, one=3)}, *frames)
    train = open_box_dataset(path).load_split("train")
    assert locations(train) == {
        "two": (path / "frames/two", "frames", 900),
        "one": (path / "frames/one", "frames", 900),
    }
    assert list(locations(train)) == ["two", "one"]
    (path / "frames/one/one_000003.jpg").unlink()
    with pytest.raises(InputError, match=r"line 7 of .*frame_lists/train.csv lists the frame one/one_000003.jpg, and"):
        _ = open_box_dataset(path).load_split("train").videos
    (path / "frame_lists/train.csv").write_text(frame_list(two=3))
    assert list(locations(open_box_dataset(path).load_split("train"))) == ["two", "one"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (frame_list(one=3).replace("one_000002", "one_000004"), r"line 3 of .*one_000004.jpg'; the next one is "),
        (frame_list(one=2) + frame_list(two=1, one=2).removeprefix(HEAD), r"line 5 of .* returns to the video 'one'"),
        ("one 0 0\n", r"line 1 of .* is not a frame"),
        (HEAD + "one 0 0 one.jpg\n", r"line 2 of .* is not a frame"),
    ],
)
def test_a_missing_frame_or_a_bad_line_of_a_frame_list_is_named(tree, text, message):
    path = tree({**AVA, "frame_lists/train.csv": text}, "frames/one/one_000001.jpg")
    with pytest.raises(InputError, match=message):
        _ = open_box_dataset(path).load_split("train").videos


# ---- one's own ------------------------------------------------------------------------------------------------------


def test_a_custom_dataset_has_videos_beside_its_annotations(tree):
    path = tree(
        {
            **OWN,
            "annotations/val_excluded_timestamps.csv": "c,2\n",
            "annotations/train_persons.csv": "b,3,0.1,0.1,0.5,0.9,1,0.9\nb,4,0.1,0.1,0.5,0.9,,0.9\n",
        },
        *("videos/a.mp4", "videos/b.avi", "videos/c.webm"),
    )
    data = open_box_dataset(path)
    assert (data.name, data.description, data.keyframe_seconds) == ("", "custom boxes", None)
    train, val = data.load_split("train"), data.load_split("val")
    assert locations(train) == {"a": (path / "videos/a.mp4", "file", 0), "b": (path / "videos/b.avi", "file", 0)}
    assert val.excluded_keyframes == {("c", 2)}
    frames = train.load_train_keyframes(PersonBoxesConfig(min_score=0.9))
    assert [frames[index].key for index in range(len(frames))] == ["a,0000", "b,0003", "b,0004"]
    assert frames.labels.tolist() == [[True, False], [True, True], [False, False]]
    tested = val.load_test_keyframes(0.8, use_annotations=True)
    assert [tested[index].key for index in range(len(tested))] == ["c,0001"]
    with pytest.raises(InputError, match=r"no boxes of a person detector for its val split; make them with `vidstill"):
        val.load_test_keyframes(0.8)


@pytest.mark.parametrize("name", ["validation", "test"])
def test_the_val_split_of_one_s_own_may_have_other_names(tree, name):
    files = {f"annotations/{name}.csv": OWN["annotations/val.csv"], f"annotations/{name}_persons.csv": ""}
    path = tree({**files, "annotations/actions.txt": "walks\nruns\n"}, "c.mp4")
    data = open_box_dataset(path)
    assert set(data.files) == {"val"}
    assert data.files["val"].person_boxes == path / f"annotations/{name}_persons.csv"
    assert locations(data.load_split("val")) == {"c": (path / "c.mp4", "file", 0)}
    with pytest.raises(InputError, match=r"no boxes of a train split, only of val; add annotations/train\.csv"):
        data.load_split("train")


def test_a_missing_video_of_a_custom_dataset_is_named_with_file_and_line(tree):
    path = tree(OWN, "videos/a.mp4", "videos/b.txt")
    with pytest.raises(InputError, match=r"line 2 of .*/annotations/train.csv names the video 'b', which does not"):
        _ = open_box_dataset(path).load_split("train").videos


def test_a_directory_without_boxes_is_refused(tree):
    path = tree({"annotations/notes.txt": "x"})
    with pytest.raises(InputError, match=r"has no boxes: neither AVA's files .* nor annotations/train\.csv"):
        open_box_dataset(path)
    with pytest.raises(InputError, match="is not a directory"):
        open_box_dataset(path / "annotations/notes.txt")
    tree({"annotations/train.csv": ""})
    with pytest.raises(InputError, match=r"has no list of actions; add actions\.csv"):
        open_box_dataset(path)
    tree({"annotations/actions.txt": "walks\n"})
    with pytest.raises(InputError, match=r"train\.csv has no rows; write one for each box and action"):
        open_box_dataset(path).load_split("train")
