"""What a test leaves: numbers and tables of a few scores that are counted by hand, whatever the videos are called."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch

from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.tasks import results as findings
from vidstill.tasks.results import format_classification_result

CLASSES = ("left", "right", "up", "=never()")
VIDEOS = {  # name: label and scores, or why there are none
    "a/1.mp4": (0, [0.7, 0.1, 0.1, 0.1]),
    'b, "2".avi': (0, [0.1, 0.6, 0.2, 0.1]),
    "=cmd|' /C calc'!A0.mp4": (1, [0.2, 0.5, 0.2, 0.1]),
    "-broken.mp4": (1, "-broken.mp4 is cut off"),
    "@#(&;)\udcff.avi": (2, [0.3, 0.3, 0.2, 0.2]),  # as the file system gives a byte that is no letter
    "up\n2.mp4": (2, [0.1, 0.8, 0.05, 0.05]),
    "走る.mp4": (0, [0.1, 0.2, 0.3, 0.4]),
}


@pytest.fixture
def tested():
    rows = VideoTable(Path("/videos"))
    for name, (label, _) in VIDEOS.items():
        rows.append(name, label)
    found = {place: what for place, (_, what) in enumerate(VIDEOS.values())}
    scored = {place: what for place, what in found.items() if not isinstance(what, str)}
    broken = {place: what for place, what in found.items() if isinstance(what, str)}
    listing = Manifest(rows, CLASSES, "made", Path("/videos"), "", num_missing=3)
    scores = torch.tensor(list(scored.values()), dtype=torch.float64)
    return findings.SingleLabelResult(listing, CLASSES, tuple(scored), scores, broken)


def read(lines) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(lines).decode("utf-8"), newline="")))


def test_the_numbers_are_those_counted_by_hand(tested):
    found = tested.plain()
    assert found == json.loads(json.dumps(found, allow_nan=False))
    assert found["top1"] == pytest.approx(100 * 2 / 6)
    assert found["top5"] == 100
    assert found["mean_class_accuracy"] == pytest.approx(100 * (1 / 3 + 1 + 0) / 3)  # no video is of the last class
    assert (found["videos"], found["missing"], found["broken"]) == (6, 3, ["-broken.mp4 is cut off"])
    assert [(each["name"], each["videos"], each["hits"]) for each in found["classes"]] == [
        ("left", 3, 1),
        ("right", 1, 1),
        ("up", 2, 0),
        ("=never()", 0, 0),
    ]
    assert found["classes"][0]["accuracy"] == pytest.approx(100 / 3)
    assert found["classes"][3]["accuracy"] is None


def test_each_class_says_what_it_was_taken_for_the_most_frequent_first(tested):
    assert [each["predicted"] for each in tested.plain()["classes"]] == [
        {"left": 1, "right": 1, "=never()": 1},
        {"right": 1},
        {"left": 1, "right": 1},
        {},
    ]


def test_the_table_of_scores_has_a_line_for_each_video_of_the_list_in_its_order(tested):
    lines = read(tested.scores_csv())
    assert [line["video"] for line in lines] == [name.replace("\udcff", "\\udcff") for name in VIDEOS]
    assert [line["class"] for line in lines] == [CLASSES[label] for label, _ in VIDEOS.values()]
    assert [line["label"] for line in lines] == [str(label) for label, _ in VIDEOS.values()]
    assert [line["prediction"] for line in lines] == ["left", "right", "right", "", "left", "right", "=never()"]
    assert [line["hit"] for line in lines] == ["1", "0", "1", "", "0", "0", "0"]
    assert [line["rank"] for line in lines] == ["1", "3", "1", "", "3", "3", "4"]
    assert [line["probability"] for line in lines] == ["0.7", "0.6", "0.5", "", "0.3", "0.8", "0.4"]
    assert [line["problem"] for line in lines] == ["", "", "", "-broken.mp4 is cut off", "", "", ""]
    assert list(lines[0])[8:] == ["p(left)", "p(right)", "p(up)", "p(=never())"]
    assert [list(line.values())[8:] for line in lines][3:5] == [[""] * 4, ["0.3", "0.3", "0.2", "0.2"]]


def test_the_table_of_classes_names_the_most_frequent_mistake(tested):
    assert [list(line.values()) for line in read(tested.classes_csv())] == [
        ["left", "3", "1", str(100 / 3), "right", "1"],
        ["right", "1", "1", "100.0", "", "0"],
        ["up", "2", "0", "0.0", "left", "1"],
        ["=never()", "0", "0", "", "", "0"],
    ]


def test_the_confusion_matrix_has_the_videos_classes_as_its_lines(tested):
    lines = read(tested.confusion_csv())
    assert list(lines[0]) == ["class", *CLASSES]
    assert [list(line.values()) for line in lines] == [
        ["left", "1", "1", "0", "1"],
        ["right", "0", "1", "0", "0"],
        ["up", "1", "1", "0", "0"],
        ["=never()", "0", "0", "0", "0"],
    ]


def test_the_scores_in_the_table_add_up_to_the_numbers_of_the_test(tested):
    lines = [line for line in read(tested.scores_csv()) if not line["problem"]]
    assert 100 * sum(int(line["hit"]) for line in lines) / len(lines) == pytest.approx(tested.plain()["top1"])
    assert all(sum(float(line[f"p({name})"]) for name in CLASSES) == pytest.approx(1) for line in lines)


# ---- For people -----------------------------------------------------------------------------------------------------


def test_people_are_told_of_the_three_worst_classes(tested):
    text = format_classification_result(tested.plain())
    assert "top1                 33.33 %\n" in text
    assert "6 scored, 1 broken, 3 missing" in text
    worst = text.splitlines()[-1]
    assert worst.endswith("up 0.0 of 2, taken for left; left 33.3 of 3, taken for right; right 100.0 of 1")
    assert len(text.splitlines()) < 10


def test_of_two_classes_neither_is_the_worst(tested):
    found = tested.plain()
    assert "worst" not in format_classification_result({**found, "classes": found["classes"][:2]})


def test_the_test_of_an_older_run_is_told_as_far_as_it_goes():
    old = {"top1": 50.0, "top5": 100.0, "videos": 6, "missing": 0, "broken": []}
    assert format_classification_result(old).splitlines() == [
        "top1    50.0 %",
        "top5    100.0 %",
        "videos  6 scored, 0 broken, 0 missing",
    ]


def test_names_that_do_not_print_are_told_in_what_does(tested):
    found = tested.plain()
    odd = [{**each, "name": f"\x1b[31m\udcff\n{each['name']}", "predicted": {}} for each in found["classes"]]
    format_classification_result({**found, "classes": odd}).encode("utf-8")
    assert "\x1b" not in format_classification_result({**found, "classes": odd})
