"""Own data: several labels, unequal classes, validation and early stopping; and the errors."""

import json
import shutil
from pathlib import Path

import pytest
from refused_runs import Runs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import FINETUNE, TEACHER, kill_run, log, make_data, read_validation, run, typed, weights

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


# ---- Validation -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validated(built, tmp_path_factory):
    """A run that was never interrupted."""
    out = tmp_path_factory.mktemp("validated") / "run"
    run(f"{FINETUNE} {VALIDATED}", data=built / "data", out=out, val_data=built / "data" / "train.csv")
    return out


def test_a_validated_run_reports_the_selected_epoch(built, validated):
    scores = [scores["top1"] for scores in read_validation(validated)]
    selection = read_result(validated)["model_selection"]
    assert selection["score"] == max(scores)
    assert scores[selection["epoch"] - 1] == max(scores)
    assert (selection["metric"], selection["source"]) == ("top1", str(built / "data" / "train.csv"))
    better = [epoch for epoch, score in enumerate(scores, 1) if score > max(scores[: epoch - 1], default=-1)]
    assert len(scores) == min(6, better[-1] + 2)


@pytest.mark.survival("SIGKILL of a fine-tuning with validation", "1→1", "same bits")
def test_a_killed_run_with_validation_resumes_to_the_same_weights(built, validated, tmp_path):
    out = tmp_path / "run"
    options = {"data": built / "data", "out": out, "val_data": built / "data" / "train.csv", "save_seconds": 0}
    kill_run(typed(f"{FINETUNE} {VALIDATED}", **options), out, '"validation"', 1)
    run(f"{FINETUNE} {VALIDATED}", **options)
    actual, expected = weights(out), weights(validated)
    assert all(actual[name].equal(expected[name]) for name in expected)
    assert read_result(out) == read_result(validated)
    assert read_validation(out) == read_validation(validated)


def test_each_epoch_is_validated_on_the_val_split_and_the_best_one_tested(built, tmp_path, capsys):
    out = tmp_path / "run"
    run(f"{FINETUNE} --select best --schedule.epochs 6", data=built / "data", out=out)
    scores = [scores["top1"] for scores in read_validation(out)]
    best = 6 - scores[::-1].index(max(scores))
    printed = capsys.readouterr().err
    assert "top5" not in printed  # 100 % of two classes
    assert f"train: 8 videos of {built}/data/train.csv, a list of `path label` lines" in printed
    curve = ", ".join(f"{epoch} {score:.1f}" for epoch, score in enumerate(scores, 1))
    assert f"validation top1: epoch {curve}; best {max(scores):.1f} at epoch {best}, whose weights are kept" in printed
    assert read_result(out)["model_selection"] == {
        "epoch": best,
        "metric": "top1",
        "score": max(scores),
        "source": str(built / "data" / "val.csv"),
    }
    assert (out / "validation.png").read_bytes().startswith(b"\x89PNG")
    curves = EventAccumulator(str(out)).Reload()
    assert [event.value for event in curves.Scalars("validation/top1")] == pytest.approx(scores)


def test_select_last_validates_too_and_leaves_the_weights_of_the_last_epoch(built, tmp_path, capsys):
    for name, more in (("val", {}), ("train", {"val_data": built / "data" / "train.csv"})):
        run(FINETUNE, data=built / "data", out=tmp_path / name, **TWO, **more)
        assert "model_selection" not in read_result(tmp_path / name)
        assert len(read_validation(tmp_path / name)) == 2
    assert "optimistic" not in capsys.readouterr().err  # nothing is selected
    actual, expected = weights(tmp_path / "train"), weights(tmp_path / "val")
    assert all(actual[name].equal(expected[name]) for name in expected)


def test_the_best_epoch_of_a_multi_label_model_has_the_best_mean_average_precision(built, tmp_path, capsys):
    out = tmp_path / "run"
    run(f"{MIXED} --select best", data=built / "multi_label", out=out, **TWO)
    scores = [scores["mean_average_precision"] for scores in read_validation(out)]
    assert read_result(out)["model_selection"]["score"] == max(scores)
    assert f"validation mAP: epoch 1 {scores[0]:.1f}, 2 {scores[1]:.1f}; best" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"select": "best"}, {"patience": 1}])
def test_a_message_says_that_the_test_set_selects_the_epoch(built, tmp_path, capsys, options):
    message = "the epoch is selected on the test set, so the test score is optimistic; "
    run(f"{FINETUNE} --batch 2", data=built / "data", out=tmp_path / "run", **options, **TWO)
    assert capsys.readouterr().err.count(f"{message}hold out others: --val-share 0.2") == 1
    run(
        f"{FINETUNE} --batch 2",
        data=built / "data" / "train.csv",
        out=tmp_path / "share",
        val_share=0.5,
        **options,
        **TWO,
    )
    assert capsys.readouterr().err.count(f"{message}test on other videos: --test-data") == 1
    options = {"test_data": built / "data" / "train.csv", **options, **TWO}
    run(f"{FINETUNE} --batch 2", data=built / "data" / "val.csv", out=tmp_path / "other", val_share=0.5, **options)
    assert "optimistic" not in capsys.readouterr().err


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
