"""Two processes, and one process that accumulates twice, are the same training and the same test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tiny_runs import FINETUNE, IMAGE_TEACHER, METHODS, TEACHER, log, make_data, run, teachers_of
from vidstill.testing import evaluate
from vidstill.training import Launch

STUDENTS = [name for name in METHODS if name != "imagemae"]  # which is the image teacher
STEPS = {"teacher": 10, "image_teacher": 10, **dict.fromkeys(STUDENTS, 10), "stmae": 20, "finetune": 5}  # 5 epochs


def walk(data: Path, out: Path, **launch: int) -> None:
    """Teachers, students, a classifier and its scores; this file as a program does it in one of several processes."""
    shared = {"schedule__epochs": 5, **launch}
    run(TEACHER, data=data / "unlabelled.txt", out=out / "teacher", **shared)
    run(IMAGE_TEACHER, data=data / "unlabelled.txt", out=out / "image_teacher", **shared)
    for name in STUDENTS:
        run(METHODS[name], data=data / "unlabelled.txt", out=out / name, **teachers_of(name, out), **shared)
    run(FINETUNE, data=data, out=out / "finetune", init=out / "amd", **shared)
    tested = evaluate(str(out / "finetune"), Launch(data=data, out=out, workers=0, precision="fp32"))
    torch.save((tested.scores, tested.places), out / f"scores-{os.environ.get('RANK', 0)}.pt")


@pytest.fixture(scope="module")
def roads(tmp_path_factory):
    """The roads of one process and of two."""
    folder = tmp_path_factory.mktemp("processes")
    data = make_data(folder / "data")
    walk(data, folder / "one", device_batch=4)
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*two, __file__, str(data), str(folder / "two")], check=True, env=environment)
    return folder / "one", folder / "two"


@pytest.mark.parametrize("stage", STEPS)
def test_losses_are_the_same(roads, stage):
    one, two = (torch.tensor([line["loss"] for line in log(road / stage)]) for road in roads)
    assert len(one) == STEPS[stage]
    torch.testing.assert_close(two, one, rtol=1e-5, atol=0)


def test_every_video_has_the_same_score_in_every_process(roads):
    one, two = roads
    scores, places = torch.load(one / "scores-0.pt")
    assert places == tuple(range(6))
    for rank in (0, 1):
        theirs, their_places = torch.load(two / f"scores-{rank}.pt")
        assert their_places == places
        torch.testing.assert_close(theirs, scores, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    walk(*map(Path, sys.argv[1:]))
    sys.stdout.flush()
    os._exit(0)  # as `vidstill.cli.program` does
