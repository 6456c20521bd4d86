"""Two processes, and one process that accumulates twice, are the same training and the same test."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from fresh_programs import run_ranks
from tiny_runs import FINETUNE, IMAGE_TEACHER, METHODS, TEACHER, log, make_data, run, teachers_of

from vidstill.cli.main import main
from vidstill.pipelines.evaluate.classifier import evaluate_classifier
from vidstill.pipelines.run_config import Workers

STUDENTS = [name for name in METHODS if name != "imagemae"]  # which is the image teacher
LISTS = {"seven": (0, 1, 2, 4, 5, 6), "six": tuple(range(6)), "one": (0,)}  # videos; which of them can be scored
STEPS = {"teacher": 10, "image_teacher": 10, **dict.fromkeys(STUDENTS, 10), "stmae": 20, "finetune": 5}  # 5 epochs


def walk(data: Path, out: Path, **launch: int) -> None:
    """Teachers, students, a classifier and its scores."""
    shared = {"schedule__epochs": 5, **launch}
    run(TEACHER, data=data / "unlabelled.txt", out=out / "teacher", **shared)
    run(IMAGE_TEACHER, data=data / "unlabelled.txt", out=out / "image_teacher", **shared)
    for name in STUDENTS:
        run(METHODS[name], data=data / "unlabelled.txt", out=out / name, **teachers_of(name, out), **shared)
    run(FINETUNE, data=data, out=out / "finetune", init=out / "amd", **shared)
    for videos in LISTS:
        workers = Workers(workers=0, precision="fp32")
        manifest, result_dir = data / f"{videos}.txt", out / f"tested-{videos}"
        tested = evaluate_classifier(str(out / "finetune"), manifest, workers=workers, out=result_dir)
        torch.save((tested.scores, tested.indices), out / f"scores-{videos}-{os.environ.get('RANK', 0)}.pt")


@pytest.fixture(scope="module")
def roads(tmp_path_factory):
    """The roads of one process and of two."""
    folder = tmp_path_factory.mktemp("processes")
    data = make_data(folder / "data")
    lines = (data / "val.csv").read_text().splitlines()
    (data / "broken.mp4").write_bytes(b"no video")
    for name, listed in {"seven": [*lines[:3], "broken.mp4 1", *lines[3:]], "six": lines, "one": lines[:1]}.items():
        (data / f"{name}.txt").write_text("\n".join(listed))
    walk(data, folder / "one", device_batch=4)
    assert run_ranks(walk, data, folder / "two") == [0, 0]
    return folder / "one", folder / "two"


@pytest.mark.parametrize("stage", STEPS)
def test_losses_are_the_same(roads, stage):
    one, two = (torch.tensor([line["loss"] for line in log(road / stage)]) for road in roads)
    assert len(one) == STEPS[stage]
    torch.testing.assert_close(two, one, rtol=1e-5, atol=0)


@pytest.mark.parametrize("videos", LISTS)
def test_every_video_has_the_same_score_in_every_process(roads, videos):
    """Of one video, the second process has none; of seven it has three, one of them broken, and the first has four."""
    one, two = roads
    scores, indices = torch.load(one / f"scores-{videos}-0.pt")
    assert indices == LISTS[videos]
    for rank in (0, 1):
        expected, other_indices = torch.load(two / f"scores-{videos}-{rank}.pt")
        assert other_indices == indices
        torch.testing.assert_close(expected, scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("videos", LISTS)
def test_both_leave_the_same_tables_with_each_video_once(roads, videos):
    one, two = (list(csv.reader((road / f"tested-{videos}/scores.csv").open(newline=""))) for road in roads)
    assert len(one) == len(two) == 1 + {"seven": 7, "six": 6, "one": 1}[videos]
    for line, other in zip(one[1:], two[1:], strict=True):
        assert (line[:3], line[7]) == (other[:3], other[7])
        expected = [float(cell or "nan") for cell in other[8:]]
        assert [float(cell or "nan") for cell in line[8:]] == pytest.approx(expected, rel=1e-3, nan_ok=True)
    result, other_result = (json.loads((road / f"tested-{videos}/test.json").read_text()) for road in roads)
    assert result["videos"] == other_result["videos"] == len(LISTS[videos])
    assert result["broken_videos"] == other_result["broken_videos"]
    assert len(result["broken_videos"]) == (videos == "seven")


def test_two_processes_test_a_model_to_the_byte_as_one_does(roads):
    one, two = roads
    shutil.copytree(one / "finetune", two / "expected")
    command = f"evaluate {two}/expected --data {one.parent}/data/seven.txt --out {two}/again --workers 1"
    assert run_ranks(main, [*command.split(), "--precision", "fp32"], printed=two / "printed.txt") == [0, 0]
    assert (two / "printed.txt").read_text().count("6 scored, 1 broken, 0 missing") == 1
    for name in ("scores.csv", "classes.csv", "confusion.csv", "confusion.png"):
        assert (two / "again" / name).read_bytes() == (one / "tested-seven" / name).read_bytes()
