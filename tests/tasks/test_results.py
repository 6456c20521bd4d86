"""Results of a test, with one label and with several: numbers and tables counted by hand, whatever the names are."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch

from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoRow, VideoTable
from vidstill.tasks.results import MultiLabelResult, SingleLabelResult, format_classification_result

CLASSES = ("left", "right", "up", "=never()")
VIDEOS = {  # name: label and scores, or the error
    "a/1.mp4": (0, [0.7, 0.1, 0.1, 0.1]),
    'b, "2".avi': (0, [0.1, 0.6, 0.2, 0.1]),
    "=cmd|' /C calc'!A0.mp4": (1, [0.2, 0.5, 0.2, 0.1]),
    "-broken.mp4": (1, "-broken.mp4 is cut off"),
    "@#(&;)\udcff.avi": (2, [0.3, 0.3, 0.2, 0.2]),  # as the file system gives a byte that is not text
    "up\n2.mp4": (2, [0.1, 0.8, 0.05, 0.05]),
    "走る.mp4": (0, [0.1, 0.2, 0.3, 0.4]),
}


@pytest.fixture
def result():
    rows = VideoTable(Path("/videos"), VIDEOS, {"label": [label for label, _ in VIDEOS.values()]})
    outputs = {row: output for row, (_, output) in enumerate(VIDEOS.values())}
    scores = {row: output for row, output in outputs.items() if not isinstance(output, str)}
    broken = {row: output for row, output in outputs.items() if isinstance(output, str)}
    manifest = Manifest(rows, CLASSES, "made", Path("/videos"), "", num_missing=3)
    return SingleLabelResult(manifest, CLASSES, tuple(scores), torch.tensor(list(scores.values())).double(), broken)


def read(lines) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(lines).decode("utf-8"), newline="")))


def test_the_numbers_are_those_counted_by_hand(result):
    metrics = result.to_dict()
    assert metrics == json.loads(json.dumps(metrics, allow_nan=False))
    assert metrics["top1"] == pytest.approx(100 * 2 / 6)
    assert metrics["top5"] == 100
    assert metrics["majority_baseline"] == pytest.approx(100 * 3 / 6)  # always "left"
    assert metrics["mean_class_accuracy"] == pytest.approx(100 * (1 / 3 + 1 + 0) / 3)  # no video is of the last class
    assert (metrics["videos"], metrics["missing"], metrics["broken_videos"]) == (6, 3, ["-broken.mp4 is cut off"])
    counts = [(each["name"], each["videos"], each["hits"]) for each in metrics["classes"]]
    assert counts == [("left", 3, 1), ("right", 1, 1), ("up", 2, 0), ("=never()", 0, 0)]
    assert metrics["classes"][0]["accuracy"] == pytest.approx(100 / 3)
    assert metrics["classes"][3]["accuracy"] is None
    assert [list(each["predicted"].items()) for each in metrics["classes"]] == [  # the most frequent first
        [("left", 1), ("right", 1), ("=never()", 1)],
        [("right", 1)],
        [("left", 1), ("right", 1)],
        [],
    ]


def test_the_scores_have_a_line_for_each_video_of_the_manifest_in_its_order(result):
    lines = read(result.format_scores_csv())
    assert [line["video"] for line in lines] == [name.replace("\udcff", "\\udcff") for name in VIDEOS]
    assert [line["class"] for line in lines] == [CLASSES[label] for label, _ in VIDEOS.values()]
    assert [line["label"] for line in lines] == [str(label) for label, _ in VIDEOS.values()]
    assert [line["prediction"] for line in lines] == ["left", "right", "right", "", "left", "right", "=never()"]
    assert [line["correct"] for line in lines] == ["1", "0", "1", "", "0", "0", "0"]
    assert [line["rank"] for line in lines] == ["1", "3", "1", "", "3", "3", "4"]
    assert [line["probability"] for line in lines] == ["0.7", "0.6", "0.5", "", "0.3", "0.8", "0.4"]
    assert [line["error"] for line in lines] == ["", "", "", "-broken.mp4 is cut off", "", "", ""]
    assert list(lines[0])[8:] == ["p(left)", "p(right)", "p(up)", "p(=never())"]
    assert [list(line.values())[8:] for line in lines][3:5] == [[""] * 4, ["0.3", "0.3", "0.2", "0.2"]]


def test_the_classes_have_their_most_frequent_mistake_and_a_line_of_the_confusion_matrix(result):
    assert [list(line.values()) for line in read(result.format_classes_csv())] == [
        ["left", "3", "1", str(100 / 3), "right", "1"],
        ["right", "1", "1", "100.0", "", "0"],
        ["up", "2", "0", "0.0", "left", "1"],
        ["=never()", "0", "0", "", "", "0"],
    ]
    lines = read(result.format_confusion_csv())
    assert list(lines[0]) == ["class", *CLASSES]
    assert [list(line.values()) for line in lines] == [
        ["left", "1", "1", "0", "1"],
        ["right", "0", "1", "0", "0"],
        ["up", "1", "1", "0", "0"],
        ["=never()", "0", "0", "0", "0"],
    ]


def test_the_scores_add_up_to_the_accuracy(result):
    lines = [line for line in read(result.format_scores_csv()) if not line["error"]]
    assert 100 * sum(int(line["correct"]) for line in lines) / len(lines) == pytest.approx(result.to_dict()["top1"])
    assert all(sum(float(line[f"p({name})"]) for name in CLASSES) == pytest.approx(1) for line in lines)


# ---- Several labels -------------------------------------------------------------------------------------------------


def build_multi_label_result(labels, scores, *, broken=None) -> MultiLabelResult:
    rows = VideoTable.from_rows(
        VideoRow(Path(f"videos/{number}.mp4"), first, extra_labels=tuple(others))
        for number, (first, *others) in enumerate(labels)
    )
    classes = ("bend", "fall", "run")
    manifest = Manifest(rows, classes, "made up", Path("videos"), "", multi_label=True)
    indices = tuple(row for row in range(len(labels)) if row not in (broken or {}))
    return MultiLabelResult(manifest, classes, indices, torch.tensor(scores, dtype=torch.float64), broken or {})


def test_several_labels_score_the_mean_average_precision():
    # positives: bend at ranks 1 and 3, fall at 1 and 3, run at 2
    result = build_multi_label_result(
        [(0, 1), (2,), (0,), (1,)], [[0.9, 0.2, 0.1], [0.8, 0.1, 0.5], [0.7, 0.3, 0.6], [0.1, 0.9, 0.2]]
    )
    bend, fall, run = (1 + 2 / 3) / 2, (1 + 2 / 3) / 2, 1 / 2
    metrics = result.to_dict()
    precisions = [each["average_precision"] for each in metrics["classes"]]
    assert precisions == pytest.approx([100 * x for x in (bend, fall, run)])
    assert metrics["mean_average_precision"] == pytest.approx(100 * (bend + fall + run) / 3)
    assert metrics["hit_at_1"] == 75  # the second is predicted as bend
    assert [each["videos"] for each in metrics["classes"]] == [2, 2, 1]
    assert metrics["constant_score_baseline"] == pytest.approx(100 * (2 / 4 + 2 / 4 + 1 / 4) / 3)
    text = format_classification_result(metrics)
    assert "mean average precision  72.2 % (the same scores for every video: 41.7 %)\n" in text


def test_a_class_without_videos_is_not_part_of_the_mean():
    metrics = build_multi_label_result([(0,), (0, 1)], [[0.9, 0.1, 0.8], [0.8, 0.7, 0.1]]).to_dict()
    assert metrics["classes"][2] == {"name": "run", "videos": 0, "average_precision": None}
    assert metrics["mean_average_precision"] == pytest.approx(100)


def test_every_video_has_a_line_with_its_labels_and_a_broken_one_its_error():
    result = build_multi_label_result([(0, 2), (1,)], [[0.2, 0.1, 0.9]], broken={1: "1.mp4 is cut"})
    first, second = read(result.format_scores_csv())
    assert [first[key] for key in ("label", "class", "prediction", "correct")] == ["0;2", "bend;run", "run", "1"]
    assert first["rank"] == "1"
    assert (first["p(run)"], second["class"], second["error"], second["p(run)"]) == ("0.9", "fall", "1.mp4 is cut", "")
    assert len(read(result.format_classes_csv())) == 3


# ---- Summary --------------------------------------------------------------------------------------------------------


def build_result(labels: list[int], predictions: list[int], classes=("left", "right")) -> SingleLabelResult:
    rows = VideoTable.from_rows(VideoRow(Path(f"videos/{number}.mp4"), label) for number, label in enumerate(labels))
    manifest = Manifest(rows, classes, "made up", Path("videos"), "")
    scores = torch.eye(len(classes), dtype=torch.float64)[predictions]
    return SingleLabelResult(manifest, classes, tuple(range(len(labels))), scores, {})


def summarize(*args, **kwargs) -> str:
    return format_classification_result(json.loads(json.dumps(build_result(*args, **kwargs).to_dict())))


def test_the_summary_names_the_three_worst_classes_one_a_line():
    labels = [4] * 12 + [0, 0, 1, 2, 2, 2, 3, 3, 3]
    predictions = [4] * 5 + [7] * 6 + [0] + [0, 1, 1, 2, 2, 2, 0, 1, 2]
    lines = summarize(labels, predictions, tuple("01234567")).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("worst classes"))
    assert [line[21:] for line in lines[first:]] == [
        '"3": 0 of 3 correct (0.0 %), most often predicted "0"',  # and once each "1" and "2"
        '"4": 5 of 12 correct (41.7 %), mostly predicted "7"',
        '"0": 1 of 2 correct (50.0 %), mostly predicted "1"',
    ]
    assert all(line[:21].isspace() for line in lines[first + 1 :])


def test_the_summary_names_no_class_without_a_mistake(result):
    assert '"right": ' not in format_classification_result(result.to_dict())
    assert "worst" not in summarize([0, 1], [0, 1])


def test_the_summary_has_the_baseline_of_the_test_set_beside_top1(result):
    text = format_classification_result(result.to_dict())
    assert 'top-1                33.3 % (always answering "left": 50.0 %)\n' in text
    assert "6 scored, 1 broken, 3 missing" in text


def test_top5_is_shown_from_six_classes_on():
    assert "top-5" not in summarize([0, 1], [0, 1], tuple("abcde"))
    assert "top-5" in summarize([0, 1], [0, 1], tuple("abcdef"))


def test_the_summary_replaces_unprintable_names(result):
    metrics = result.to_dict()
    classes = [{**each, "name": f"\x1b[31m\udcff\n{each['name']}"} for each in metrics["classes"]]
    assert "\x1b" not in format_classification_result({**metrics, "classes": classes}).encode("utf-8").decode()


def test_images_are_called_images(result):
    names = ["a.png", "b.jpg", "c.png"]
    rows = VideoTable(Path("/pictures"), names, {"label": [0, 1, 1]})
    manifest = Manifest(rows, CLASSES, "made", Path("/pictures"), "")
    scores = torch.eye(4, dtype=torch.float64)[[1, 1, 1]]
    text = format_classification_result(SingleLabelResult(manifest, CLASSES, (0, 1, 2), scores, {}).to_dict())
    assert "\nimages               3 scored, 0 broken, 0 missing\n" in text
    assert 'the model answers "right" for every image' in text


@pytest.mark.parametrize(
    ("labels", "predictions", "warning"),
    [
        ([0, 0, 0, 1, 1, 1], [1] * 6, 'the model answers "right" for every video, and 3 of 6 are of this class; train'),
        ([0] * 10, [1] * 10, ""),  # one class is tested
        ([0] * 10 + [1] * 10, [1] * 19 + [0], 'the model answers "right" for 19 of 20 videos, and 10 of 20 are'),
        ([0] * 10 + [1] * 10, [1] * 17 + [0] * 3, ""),
        ([0] * 3 + [1] * 17, [1] * 19 + [0], ""),  # as unbalanced as the test set
        ([0] * 3 + [1] * 17, [1] * 20, 'the model answers "right" for every video, and 17 of 20 are of this class'),
    ],
)
def test_a_model_that_answers_one_class_is_warned_of(labels, predictions, warning):
    text = summarize(labels, predictions)
    assert ("\nwarning " in text) == bool(warning)
    assert warning in text
