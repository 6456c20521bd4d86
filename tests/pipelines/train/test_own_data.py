"""Own data from list to model: several labels, unequal classes, early stopping; and what is wrong with them is message."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from refused_runs import Runs
from tiny_runs import FINETUNE, TEACHER, log, make_data, run, typed, weights

from vidstill.cli.main import main

SEVERAL = ((0, 1), (1,), (0,), (1, 0), (0,), (1,), (0, 1), (0,))
MIXED = f"{FINETUNE} --mixup.mixup-alpha 0.8 --label-smoothing 0.1"
TWO = {"schedule__epochs": 2}
WATCHED = "--schedule.epochs 6 --patience 2"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """`data`, with one label for each clip; `several`, the same clips with two for some of them."""
    folder = tmp_path_factory.mktemp("own")
    data = make_data(folder / "data")
    several = folder / "several"
    several.mkdir()
    for split in ("train", "val"):
        names = [line.split()[0] for line in (data / f"{split}.csv").read_text().splitlines()]
        lines = (f"{data / name} {','.join(map(str, labels))}\n" for name, labels in zip(names, SEVERAL, strict=False))
        (several / f"{split}.csv").write_text("".join(lines))
    (several / "classes.txt").write_text("left\nright\n")
    return folder


@pytest.fixture
def runs(built, tmp_path, capsys):
    return Runs(shutil.copytree(built, tmp_path / "runs"), capsys)


def found_in(out: Path) -> dict:
    return json.loads((out / "test.json").read_text())


# ---- Several labels -------------------------------------------------------------------------------------------------


def test_clips_with_several_labels_are_learned_and_tested(built, tmp_path, capsys):
    out = tmp_path / "run"
    run(MIXED, data=built / "several", out=out, **TWO)
    found = found_in(out)
    assert 0 < found["mean_average_precision"] <= 100
    assert [each["videos"] for each in found["classes"]] == [4, 4]  # of the six that are tested on
    assert not (out / "confusion.csv").exists()
    assert "mean average precision" in capsys.readouterr().out
    lines = (out / "scores.csv").read_text().splitlines()
    assert len(lines) == 7
    assert "left;right" in lines[1]
    assert main(typed(f"evaluate {out} --workers 0 --json", data=built / "several")) == 0
    assert json.loads(capsys.readouterr().out)["mean_average_precision"] == found["mean_average_precision"]


def test_a_model_of_several_labels_is_tested_on_single_ones_too(built, tmp_path, capsys):
    run(FINETUNE, data=built / "several", out=tmp_path / "run", test_data=built / "data", **TWO)
    assert "mean_average_precision" in found_in(tmp_path / "run")


def test_several_labels_where_one_is_asked_for(runs):
    runs.refuses(FINETUNE, "has videos with several labels", data=runs.data, test_data=runs.folder / "several")
    run(FINETUNE, data=runs.data, out=runs.folder / "one", **TWO)
    runs.refuses(
        f"evaluate {runs.folder}/one --workers 0", "has videos with several labels", data=runs.folder / "several"
    )


# ---- Unequal classes ------------------------------------------------------------------------------------------------


def test_what_balance_does_is_message_and_changes_what_is_shown(built, tmp_path, capsys):
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
def watched(built, tmp_path_factory):
    """A run that was never interrupted."""
    out = tmp_path_factory.mktemp("watched") / "run"
    run(f"{FINETUNE} {WATCHED}", data=built / "data", out=out, val_data=built / "data" / "train.csv")
    return out


def test_a_watched_run_says_which_epoch_it_took(built, watched):
    scores = [line["validation"]["top1"] for line in log(watched) if "validation" in line]
    selection = found_in(watched)["model_selection"]
    assert selection["score"] == max(scores)
    assert scores[selection["epoch"] - 1] == max(scores)
    assert (selection["metric"], selection["source"]) == ("top1", str(built / "data" / "train.csv"))
    better = [epoch for epoch, score in enumerate(scores, 1) if score > max(scores[: epoch - 1], default=-1)]
    assert len(scores) == min(6, better[-1] + 2)


def test_a_killed_watched_run_goes_on_to_the_same_weights(built, watched, tmp_path):
    out = tmp_path / "run"
    options = {"data": built / "data", "out": out, "val_data": built / "data" / "train.csv", "save_seconds": 0}
    command = [sys.executable, "-m", "vidstill.cli", *typed(f"{FINETUNE} {WATCHED}", **options)]
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # with others, sums are rounded otherwise
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=threads)
    while not (out / "log.jsonl").exists() or '"validation"' not in (out / "log.jsonl").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(f"{FINETUNE} {WATCHED}", **options)
    ours, theirs = weights(out), weights(watched)
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert found_in(out) == found_in(watched)
    printed = [[line for line in log(each) if "validation" in line] for each in (out, watched)]
    assert printed[0] == printed[1]


def test_without_a_list_to_watch_it_is_message_that_the_test_chooses(built, tmp_path, capsys):
    run(FINETUNE, data=built / "data", out=tmp_path / "run", patience=1, **TWO)
    assert "the test set chooses the epoch, so its score is too high" in capsys.readouterr().err
    run(
        FINETUNE, data=built / "data", out=tmp_path / "other", test_data=built / "data" / "train.csv", patience=1, **TWO
    )
    assert "too high" not in capsys.readouterr().err  # the data's own val split chooses
    assert found_in(tmp_path / "other")["model_selection"]["source"] == str(built / "data" / "val.csv")


def test_watching_alone_changes_no_weight(built, tmp_path):
    for name, more in (("plain", {}), ("watched", {"val_data": built / "data"})):
        run(FINETUNE, data=built / "data", out=tmp_path / name, **TWO, **more)
    ours, theirs = weights(tmp_path / "watched"), weights(tmp_path / "plain")
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert "model_selection" not in found_in(tmp_path / "watched")
    assert [line for line in log(tmp_path / "watched") if "loss" in line] == log(tmp_path / "plain")


# ---- What is wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience is 0; take 1 or more"),
        ({"clips__class_balance": 1.5}, "balance is 1.5; take 0 to 1"),
    ],
)
def test_an_option_whose_value_is_of_no_use(runs, options, message):
    runs.refuses(FINETUNE, message, data=runs.data, **options)


def test_a_list_that_cannot_be_watched(runs):
    (runs.folder / "empty.txt").write_text("")
    runs.refuses(FINETUNE, "no videos found", data=runs.data, val_data=runs.folder / "empty.txt")
    runs.refuses(FINETUNE, "has no labels", data=runs.data, val_data=runs.data / "unlabelled.txt")
    runs.refuses(FINETUNE, "several labels", data=runs.data, val_data=runs.folder / "several")
    (runs.folder / "three.txt").write_text(f"{next((runs.data / 'val').iterdir())} 2\n")
    runs.refuses(FINETUNE, "has the class '2'", data=runs.data, val_data=runs.folder / "three.txt")
    (runs.folder / "cut.mp4").write_bytes(b"no frame in here")
    (runs.folder / "cut.txt").write_text("cut.mp4 0\n")
    runs.refuses(FINETUNE, "none of the 1 videos", data=runs.data, val_data=runs.folder / "cut.txt")


def test_another_list_to_watch_is_another_run(runs):
    command = f"{FINETUNE} --patience 1"
    run(command, data=runs.data, out=runs.folder / "out", val_data=runs.data / "train.csv", **TWO)
    runs.refuses(command, "data.validation is another dataset", data=runs.data, val_data=runs.data / "val.csv", **TWO)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train/0.mp4 0,0\n", "line 1"),
        ("path,labels\ntrain/0.mp4,0;\n", "line 2"),
        ("path,label\ntrain/0.mp4,0;1\n", "name the column `labels`"),
        ('{"path": "train/0.mp4", "label": []}\n', "an empty list of labels"),
    ],
)
def test_several_labels_that_cannot_be_read(runs, text, message):
    (runs.data / "list.csv").write_text(text)
    runs.refuses(FINETUNE, message, data=runs.data / "list.csv", test_data=runs.data / "val.csv")


def test_pre_training_without_labels_is_not_balanced(runs):
    runs.refuses(
        TEACHER,
        "has no labels, so that classes cannot be balanced",
        data=runs.data / "unlabelled.txt",
        clips__class_balance=1,
    )
