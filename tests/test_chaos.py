"""Chaos: runs that are killed at random moments end as if they had not been, and no flipped bit goes unnoticed."""

import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_detections
import torch
from fresh_programs import MOMENTS, FreshProgram
from tiny_runs import AMD, FINETUNE, TEACHER, log, make_data, run, typed, wait_for_log, weights

pytestmark = pytest.mark.nightly

SEED = 2026
NUM_KILLS = 40
NUM_FLIPS = 500
VERBS = ("pretrain", "finetune", "detect")


@dataclass(frozen=True)
class WholeRun:
    """A run that nothing disturbed, its command, its seconds, and how often each moment came."""

    command: str
    options: dict[str, object]
    out: Path
    seconds: float
    counts: dict[str, int]

    def type_command(self, out: Path) -> list[str]:
        return typed(self.command, out=out, save_seconds=0, **self.options)


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory):
    """By verb: a distillation, a fine-tuning that is validated each epoch, and a detector's training."""
    folder = tmp_path_factory.mktemp("whole")
    data, boxes = make_data(folder / "clips"), tiny_detections.make_data(folder / "boxes")
    run(TEACHER, data=data / "unlabelled.txt", out=folder / "teacher")
    commands: dict[str, tuple[str, dict[str, object]]] = {
        "pretrain": (AMD, {"data": data / "unlabelled.txt", "method__teacher__checkpoint": folder / "teacher"}),
        "finetune": (f"{FINETUNE} --select best", {"data": data, "val_data": data / "train.csv"}),
        "detect": (tiny_detections.TRAIN, {"data": boxes, "device_batch": 2}),
    }
    runs = {}
    for verb, (command, options) in commands.items():
        out, counts = folder / verb, folder / f"{verb}.counts"
        arguments, printed = typed(command, out=out, save_seconds=0, **options), folder / f"{verb}.txt"
        start = time.monotonic()
        assert FreshProgram(arguments, printed, counts=counts).end() == 0, printed.read_text()
        numbers = dict(zip(MOMENTS, map(int, counts.read_text().split()), strict=True))
        runs[verb] = WholeRun(command, options, out, time.monotonic() - start, numbers)
    return runs


def kill_run(whole: WholeRun, out: Path, printed: Path, draw: random.Random) -> str:
    """Kill a run at a random moment: of a write, or some time after a random step; return which."""
    moment = draw.choice([*MOMENTS, "after a step"])
    if moment in MOMENTS:
        number = draw.randint(1, whole.counts[moment])
        program = FreshProgram(whole.type_command(out), printed, moment=moment, number=number)
        assert program.end() == -signal.SIGKILL
        return f"{moment}, {number} of {whole.counts[moment]}"
    num_lines = len((whole.out / "log.jsonl").read_text().splitlines())
    number = draw.randrange(num_lines)
    program = FreshProgram(whole.type_command(out), printed)
    wait_for_log(out, "\n", number, alive=program.is_alive)
    time.sleep(draw.uniform(0, whole.seconds / num_lines))
    assert program.kill() == -signal.SIGKILL
    return f"{moment}, {number} of {num_lines}"


@pytest.mark.survival(
    "SIGKILL at 40 random moments of a pre-training, a fine-tuning and a detector's training", "1→1", "same bits"
)
@pytest.mark.parametrize("number", range(NUM_KILLS))
def test_a_run_that_is_killed_at_a_random_moment_ends_with_the_same_bits(whole_runs, tmp_path, number):
    draw, whole = random.Random(f"{SEED} {number}"), whole_runs[VERBS[number % len(VERBS)]]
    out, printed = tmp_path / "run", tmp_path / "printed.txt"
    moment = kill_run(whole, out, printed, draw)
    assert FreshProgram(whole.type_command(out), printed).end() == 0, (moment, printed.read_text())
    expected, actual = weights(whole.out), weights(out)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected), moment
    assert log(out) == log(whole.out), moment
    assert not list(out.rglob("*.part")), moment
