"""Persons' boxes are read in each known format, told by what is in the file, and a pickle runs nothing."""

import json
import os
import pickle
import subprocess
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from vidstill.data.ava.box_table import NO_ACTION, BoxTable
from vidstill.data.ava.proposals import read_annotations, read_person_boxes
from vidstill.utils.types import InputError

BOXES = {
    "one": {902: [(0.125, 0.25, 0.5, 0.75, 0.875), (0.5, 0.25, 1.0, 1.0, 0.5)], 1798: [(0.0, 0.0, 0.5, 1.0, 1.0)]},
    "other,1": {7: [(0.25, 0.125, 0.375, 0.5, 0.25)]},
}
IMAGES = [
    {"id": 902, "movie": "one", "timestamp": 902, "width": 640, "height": 480},
    {"id": 1798, "movie": "one", "timestamp": "1798", "width": 640, "height": 480},
    {"id": 10007, "movie": "other,1", "timestamp": 7, "width": 320, "height": 240},
    {"id": 10008, "movie": "other,1", "timestamp": 8, "width": 320, "height": 240},
]


SHARED = np.full((20_000, 5), 0.5)


def plain(rows: BoxTable) -> dict[str, dict[int, list[tuple]]]:
    boxes_by_video: dict[str, dict[int, list[tuple]]] = {}
    for video, second, box, score in zip(rows.video_index, rows.second, rows.box, rows.score, strict=True):
        boxes_by_video.setdefault(rows.video_names[video], {}).setdefault(int(second), []).append(
            (*box.tolist(), float(score))
        )
    return boxes_by_video


def by_moment() -> dict[str, np.ndarray]:
    return {f"{name},{s:04d}": np.array(boxes) for name, moments in BOXES.items() for s, boxes in moments.items()}


def in_pixels() -> list[dict]:
    boxes_by_video = []
    for image in IMAGES:
        wide, high = image["width"], image["height"]
        for x1, y1, x2, y2, score in BOXES[image["movie"]].get(int(image["timestamp"]), []):
            bbox = [x1 * wide, y1 * high, (x2 - x1) * wide, (y2 - y1) * high]
            boxes_by_video.append({"image_id": image["id"], "bbox": bbox, "score": score, "category_id": 1})
    return boxes_by_video


def as_csv() -> str:
    lines = []
    for name, moments in BOXES.items():
        named = f'"{name}"' if "," in name else name
        lines += [
            f"{named},{s:04d},{','.join(map(str, box[:4]))},,{box[4]}\n"
            for s, boxes in moments.items()
            for box in boxes
        ]
    return "".join(lines)


def write(folder: Path, form: str) -> Path:
    """A file of the boxes; nothing in its name says what is in it."""
    path = folder / "boxes"
    if form == "rows":
        path.write_text(as_csv())
    elif form == "list":
        path.write_text(json.dumps(in_pixels()))
        (folder / "annotations.json").write_text(json.dumps({"categories": [], "images": IMAGES, "annotations": []}))
    elif form == "json":
        path.write_text(json.dumps({key: boxes.tolist() for key, boxes in by_moment().items()}))
    elif form == "npz":
        with path.open("wb") as file:
            np.savez(file, **by_moment())
    else:
        path.write_bytes(pickle.dumps(by_moment(), protocol=int(form)))
    return path


FORMS = ["rows", "list", "json", "npz", "0", "2", "3", "4", "5"]


@pytest.mark.parametrize("form", FORMS)
def test_every_format_is_recognised_by_its_content_and_gives_the_same_boxes(tmp_path, form):
    rows = read_person_boxes(write(tmp_path, form))
    assert plain(rows) == BOXES
    assert (rows.action_id == NO_ACTION).all()


def test_pickled_arrays_of_any_precision_order_and_endianness_are_read(tmp_path):
    boxes = np.array(BOXES["one"][902])
    content = {
        "a,0902": boxes.astype(np.float32),
        "b,0902": np.asfortranarray(boxes),
        "c,0902": boxes.astype(">f8"),
        "d,0902": np.zeros((0, 5)),
        "e,0902": np.zeros(0),
        "f,0902": boxes.tolist(),
    }
    for protocol in (2, 4, 5):
        (tmp_path / "p.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        rows = read_person_boxes(tmp_path / "p.pkl")
        assert plain(rows) == {name: {902: BOXES["one"][902]} for name in "abcf"}


class Runs:
    """What a pickle of it asks to be called when it is read."""

    def __init__(self, call, *args):
        self.call = call, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("position", ["whole", "value", "array"])
def test_a_pickle_that_calls_a_function_is_refused_and_nothing_runs(tmp_path, protocol, position):
    mark = tmp_path / "ran"
    runs = Runs(os.mkdir, str(mark))
    content = {
        "whole": {"a,0902": runs},
        "value": {"a,0902": np.zeros((1, 5)), "b,0902": [runs]},
        "array": {"a,0902": np.array([[runs]], dtype=object)},
    }[position]
    path = tmp_path / "p.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(InputError, match=r"p.pkl is no pickle of plain arrays: it asks for \w+.mkdir; nothing of it"):
        read_person_boxes(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # it does run where it is trusted
    assert mark.exists()


@pytest.mark.parametrize(
    "call",
    [
        Runs(subprocess.Popen, ["true"]),
        Runs(np.load, "x"),
        Runs(np.ndarray, (2**40,)),
        Runs(np.dtype, "O"),
        Runs(eval, "1"),
        Runs(getattr, np.zeros(1), "tofile"),
        Runs(np.ndarray.tofile, np.zeros(1), "x"),
    ],
)
def test_a_pickle_may_hold_nothing_but_arrays_of_numbers(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "p.pkl"
    path.write_bytes(pickle.dumps({"a,0902": call}))
    with pytest.raises(InputError, match=r"p\.pkl"):
        read_person_boxes(path)
    assert [each.name for each in tmp_path.iterdir()] == ["p.pkl"]


def test_a_pickle_of_an_array_of_objects_is_refused(tmp_path):
    path = tmp_path / "p.pkl"
    path.write_bytes(pickle.dumps({"a,0902": np.array([["text", None]], dtype=object)}))
    with pytest.raises(InputError, match=r"an array of (object|other things than numbers); nothing of it"):
        read_person_boxes(path)


def nested(levels: int) -> list:
    value: list = [0.5]
    for _ in range(levels):
        value = [value] * 8
    return value


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a,0902": nested(12)}),  # 68 billion numbers in some 300 bytes
        pickle.dumps({f"a,{second:04d}": SHARED for second in range(5000)}),
        b"\x80\x05}\x8c\x06a,0902\x96" + (2**40).to_bytes(8, "little") + b"s.",
        b"\x80\x04}r\xff\xff\xff\x7f.",
    ],
    ids=["nested lists", "one array many times", "a long byte array", "a high memo index"],
)
def test_a_pickle_that_needs_huge_memory_is_refused_before_it_is_allocated(tmp_path, content):
    path = tmp_path / "p.pkl"
    path.write_bytes(content)
    tracemalloc.start()
    with (
        pytest.raises(InputError, match=r"far more memory|no readable pickle")
        if content[-2:] != b"\x7f."
        else nullcontext()
    ):
        read_person_boxes(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04K", "p is no readable pickle"),
        (pickle.dumps([1, 2]), "holds no boxes by key frame"),
        (pickle.dumps({"a": np.zeros((1, 5))}), "has boxes of 'a'; the key of a key frame is"),
        (pickle.dumps({"a,0902": np.zeros((2, 4))}), "no rows of four coordinates and a score for 'a,0902'"),
        (pickle.dumps({"a,0902": "text"}), "no rows of four coordinates and a score for 'a,0902'"),
        (
            pickle.dumps({"a,1": np.zeros((2, 5)), "a,2": np.full((1, 5), np.nan)}),
            "box 3 of .* has a number that is not finite",
        ),
        (b"PK\x03\x04 and no more", r"no readable \.npz"),
        (b"{cut", "is no readable JSON"),
        (b'[{"image_id": 1}]', "no JSON file beside it says which"),
        (b"a,0902,0.1,0.1,0.2,0.2,,nan", "line 1 of .* has nan for the score"),
    ],
)
def test_an_unreadable_or_missing_file_is_named(tmp_path, content, message):
    with pytest.raises(InputError, match="p does not exist"):
        read_person_boxes(tmp_path / "p")
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_person_boxes(tmp_path / "p")


def test_image_ids_are_those_of_the_named_file_or_of_the_one_beside_it_that_has_most(tmp_path):
    path = tmp_path / "found.json"
    path.write_text(json.dumps(in_pixels()))
    (tmp_path / "a_train.json").write_text(json.dumps({"images": [{**each, "movie": "wrong"} for each in IMAGES[:2]]}))
    (tmp_path / "ava_val.json").write_text(json.dumps({"images": IMAGES}))
    (tmp_path / "list.json").write_text("[1, 2]")
    assert plain(read_person_boxes(path)) == BOXES
    assert plain(read_person_boxes(path, image_file=tmp_path / "ava_val.json")) == BOXES
    with pytest.raises(InputError, match=r"box 4 of .*found.json is of the image 10007"):
        read_person_boxes(path, image_file=tmp_path / "a_train.json")
    with pytest.raises(InputError, match=r"found.json numbers its images, and .*list.json says which"):
        read_person_boxes(path, image_file=tmp_path / "list.json")


def test_annotations_of_videomae_s_code_are_read_as_rows_of_one_action_each(tmp_path):
    path = tmp_path / "ava_train.json"
    annotations = [
        {"image_id": 10007, "bbox": [80, 30, 40, 90], "action_ids": [12, 80], "id": 5},
        {"image_id": 902, "bbox": [0, 0, 640, 480], "action_ids": []},
    ]
    path.write_text(json.dumps({"images": IMAGES, "annotations": annotations}))
    rows = read_annotations(path)
    assert plain(rows) == {"other,1": {7: [(0.25, 0.125, 0.375, 0.5, 1.0)] * 2}, "one": {902: [(0, 0, 1, 1, 1)]}}
    assert rows.action_id.tolist() == [12, 80, NO_ACTION]
    assert rows.line_number.tolist() == [1, 1, 2]
    assert plain(read_person_boxes(path)) == plain(rows)  # given a second time, as persons
    for wrong in ({"image_id": 1, "bbox": [0, 0, 1, 1]}, {"image_id": 902, "bbox": [0, 0, 1]}, "text"):
        path.write_text(json.dumps({"images": IMAGES, "annotations": [annotations[0], wrong]}))
        with pytest.raises(InputError, match=r"box 2 of .*ava_train.json"):
            read_annotations(path)
    path.write_text(json.dumps({"images": [{"id": 3}], "annotations": []}))
    with pytest.raises(InputError, match=r"image 1 of .*ava_train.json .* it needs id, movie, timestamp"):
        read_annotations(path)


def test_annotations_read_as_person_boxes_have_the_persons_number_as_score(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("a,0902,0.1,0.1,0.5,0.9,3,0\na,0902,0.2,0.1,0.5,0.9,3,2\n")
    assert read_person_boxes(path).score.tolist() == [0, 2]
    assert read_annotations(path).score.tolist() == [1, 1]
