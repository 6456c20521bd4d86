"""Own data: several labels, unequal classes, early stopping; and the errors."""

import json
import shutil
from pathlib import Path

import pytest
from refused_runs import Runs
from tiny_runs import FINETUNE, TEACHER, kill_run, log, make_data, run, typed, weights

from vidstill.cli.main import main

LABELS = ((0, 1), (1,), (0,), (1, 0), (0,), (1,), (0, 1), (0,))
MIXED = f"{FINETUNE} --mixup.mixup-alpha 0.8 --label-smoothing 0.1"
TWO = {"schedule__epochs": 2}
VALIDATED = "--schedule.epochs 6 --patience 2"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """`data`, with one label for each clip; `multi_label`, the same clips with two for some of them."""
    folder = tmp_path_factory.mktemp("own")
    data = make_data(folder / "data")
    multi_label = folder / "multi_label"
    multi_label.mkdir()
    for split in ("train", "val"):
        names = [line.split()[0] for line in (data / f"{split}.csv").read_text().splitlines()]
        lines = (f"{data / name} {','.join(map(str, labels))}\n" for name, labels in zip(names, LABELS, strict=False))
        (multi_label / f"{split}.csv").write_text("".join(lines))
    (multi_label / "classes.txt").write_text("left\nright\n")
    return folder


@pytest.fixture
def runs(built, tmp_path, capsys):
    return Runs(shutil.copytree(built, tmp_path / "runs"), capsys)


def read_result(out: Path) -> dict:
    return json.loads((out / "test.json").read_text())


# ---- Several labels -------------------------------------------------------------------------------------------------


def test_a_multi_label_model_is_trained_and_tested(built, tmp_path, capsys):
    out = tmp_path / "run"
    run(MIXED, data=built / "multi_label", out=out, **TWO)
    result = read_result(out)
    assert 0 < result["mean_average_precision"] <= 100
    assert [each["videos"] for each in result["classes"]] == [4, 4]  # of the six that are tested on
    assert not (out / "confusion.csv").exists()
    assert "mean average precision" in capsys.readouterr().out
    lines = (out / "scores.csv").read_text().splitlines()
    assert len(lines) == 7
    assert "left;right" in lines[1]
    assert main(typed(f"evaluate {out} --workers 0 --json", data=built / "multi_label")) == 0
    assert json.loads(capsys.readouterr().out)["mean_average_precision"] == result["mean_average_precision"]


def test_a_multi_label_model_is_tested_on_single_labels_too(built, tmp_path):
    run(FINETUNE, data=built / "multi_label", out=tmp_path / "run", test_data=built / "data", **TWO)
    assert "mean_average_precision" in read_result(tmp_path / "run")


def test_multi_label_videos_are_refused_where_one_label_is_needed(runs):
    message, multi_label = "has videos with several labels", runs.folder / "multi_label"
    runs.refuses(FINETUNE, message, data=runs.data, test_data=multi_label)
    run(FINETUNE, data=runs.data, out=runs.folder / "one", **TWO)
    runs.refuses(f"evaluate {runs.folder}/one --workers 0", message, data=multi_label)


# ---- Unequal classes ------------------------------------------------------------------------------------------------


def test_class_balance_is_explained_and_changes_the_samples(built, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    lines = [line.split() for line in (built / "data" / "train.csv").read_text().splitlines()]
    one, other = ([name for name, label in lines if label == each] for each in "01")
    unequal = [f"{built / 'data' / name} 0\n" for name in one * 2] + [f"{built / 'data' / other[0]} 1\n"]
    (data / "train.csv").write_text("".join(unequal))
    shutil.copy(built / "data" / "classes.txt", data)
    for balance in (0, 1):
        command = f"{FINETUNE} --clips.class-balance {balance} --batch 8"
        run(command, data=data / "train.csv", test_data=built / "data", out=tmp_path / f"run{balance}", **TWO)
        printed = capsys.readouterr().err
        expected = "an epoch is expected to show a video of right 4.50 times, a video of left 0.56 times"
        assert (expected in printed) == bool(balance)
    assert log(tmp_path / "run0")[0]["loss"] != log(tmp_path / "run1")[0]["loss"]


# ---- Early stopping -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validated(built, tmp_path_factory):
    """A run that was never interrupted."""
    out = tmp_path_factory.mktemp("validated") / "run"
    run(f"{FINETUNE} {VALIDATED}", data=built / "data", out=out, val_data=built / "data" / "train.csv")
    return out


def test_a_validated_run_reports_the_selected_epoch(built, validated):
    scores = [line["validation"]["top1"] for line in log(validated) if "validation" in line]
    selection = read_result(validated)["model_selection"]
    assert selection["score"] == max(scores)
    assert scores[selection["epoch"] - 1] == max(scores)
    assert (selection["metric"], selection["source"]) == ("top1", str(built / "data" / "train.csv"))
    better = [epoch for epoch, score in enumerate(scores, 1) if score > max(scores[: epoch - 1], default=-1)]
    assert len(scores) == min(6, better[-1] + 2)


def test_a_killed_run_with_validation_resumes_to_the_same_weights(built, validated, tmp_path):
    out = tmp_path / "run"
    options = {"data": built / "data", "out": out, "val_data": built / "data" / "train.csv", "save_seconds": 0}
    kill_run(typed(f"{FINETUNE} {VALIDATED}", **options), out, '"validation"', 1)
    run(f"{FINETUNE} {VALIDATED}", **options)
    actual, expected = weights(out), weights(validated)
    assert all(actual[name].equal(expected[name]) for name in expected)
    assert read_result(out) == read_result(validated)
    printed = [[line for line in log(each) if "validation" in line] for each in (out, validated)]
    assert printed[0] == printed[1]


def test_a_message_says_that_the_test_set_chooses_the_epoch(built, tmp_path, capsys):
    run(FINETUNE, data=built / "data", out=tmp_path / "run", patience=1, **TWO)
    assert "the test set chooses the epoch, so its score is too high" in capsys.readouterr().err
    test = tmp_path / "test.txt"
    test.write_text(
        "".join(f"{built}/data/{line}\n" for line in (built / "data" / "val.csv").read_text().split("\n")[:2])
    )
    options = {"test_data": test, "patience": 1, **TWO}
    run(FINETUNE, data=built / "data", out=tmp_path / "other", **options)
    assert "too high" not in capsys.readouterr().err  # the data's own val split chooses
    assert read_result(tmp_path / "other")["model_selection"]["source"] == str(built / "data" / "val.csv")


def test_validation_without_patience_changes_no_weight(built, tmp_path):
    for name, more in (("plain", {}), ("validated", {"val_data": built / "data"})):
        run(FINETUNE, data=built / "data", out=tmp_path / name, **TWO, **more)
    actual, expected = weights(tmp_path / "validated"), weights(tmp_path / "plain")
    assert all(actual[name].equal(expected[name]) for name in expected)
    assert "model_selection" not in read_result(tmp_path / "validated")
    assert [line for line in log(tmp_path / "validated") if "loss" in line] == log(tmp_path / "plain")


# ---- What is wrong --------------------------------------------------------------------------------------------------


def test_an_unusable_validation_set(runs):
    video = next((runs.data / "val").iterdir())
    (runs.folder / "cut.mp4").write_bytes(b"no frame in here")
    for name, text in {"empty": "", "three": f"{video} 2\n", "cut": "cut.mp4 0\n"}.items():
        (runs.folder / f"{name}.txt").write_text(text)
    for path, message in {
        "empty.txt": "no videos found",
        "data/unlabelled.txt": "has no labels",
        "multi_label": "several labels",
        "three.txt": "has the class '2'",
        "cut.txt": "none of the 1 videos",
    }.items():
        runs.refuses(FINETUNE, message, data=runs.data, val_data=runs.folder / path)


def test_another_validation_set_is_another_run(runs):
    command = f"{FINETUNE} --patience 1"
    run(command, data=runs.data, out=runs.folder / "out", val_data=runs.data / "train.csv", **TWO)
    runs.refuses(command, "data.validation differs", data=runs.data, val_data=runs.data / "val.csv", **TWO)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train/0.mp4 0,0\n", "line 1"),
        ("path,labels\ntrain/0.mp4,0;\n", "line 2"),
        ("path,label\ntrain/0.mp4,0;1\n", "name the column `labels`"),
        ('{"path": "train/0.mp4", "label": []}\n', "an empty list of labels"),
    ],
)
def test_labels_that_cannot_be_read(runs, text, message):
    (runs.data / "list.csv").write_text(text)
    runs.refuses(FINETUNE, message, data=runs.data / "list.csv", test_data=runs.data / "val.csv")


@pytest.mark.parametrize(
    ("command", "data", "options", "message"),
    [
        (FINETUNE, "", {"patience": 0}, "patience is 0; take 1 or more"),
        (FINETUNE, "", {"clips__class_balance": 1.5}, "balance is 1.5; take 0 to 1"),
        (TEACHER, "unlabelled.txt", {"clips__class_balance": 1}, "has no labels, so that classes cannot be balanced"),
    ],
)
def test_an_option_that_does_not_fit(runs, command, data, options, message):
    runs.refuses(command, message, data=runs.data / data, **options)
