"""Chaos: runs that are killed at random moments end as if they had not been, and no flipped bit goes unnoticed."""

import random
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_detections
import torch
from fresh_programs import MOMENTS, FreshProgram
from tiny_runs import AMD, FINETUNE, TEACHER, log, make_data, run, typed, wait_for_log, weights

from vidstill.checkpoints.io import read_checkpoint
from vidstill.engine.checkpoint import list_states, read_state
from vidstill.engine.logger import restore_log
from vidstill.pipelines.verify import verify_runs
from vidstill.recipes.run_file import find_run
from vidstill.utils.output_dir import read_result
from vidstill.utils.types import InputError

pytestmark = pytest.mark.nightly

SEED = 2026
NUM_KILLS = 40
NUM_FLIPS = 100  # in each of five parts
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
    number, seconds = draw.randrange(num_lines - 1), draw.uniform(0, whole.seconds / num_lines)
    while True:
        program = FreshProgram(whole.type_command(out), printed)
        wait_for_log(out, "\n", number, alive=program.is_alive)
        time.sleep(seconds)
        if program.kill() == -signal.SIGKILL:
            return f"{moment}, {number} of {num_lines}"
        shutil.rmtree(out)  # the machine is faster now: the run had ended
        seconds /= 2


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


# ---- Flipped bits ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(whole_runs, tmp_path_factory):
    """A finished fine-tuning and a killed distillation: between them, all files that runs have."""
    folder = tmp_path_factory.mktemp("flips")
    finished = shutil.copytree(whole_runs["finetune"].out, folder / "finished")
    program = FreshProgram(whole_runs["pretrain"].type_command(folder / "killed"), folder / "printed.txt")
    wait_for_log(folder / "killed", "\n", 8, alive=program.is_alive)
    assert program.kill() == -signal.SIGKILL
    return finished, folder / "killed"


def list_files(run_dir: Path) -> list[tuple[Path, int]]:
    """A run's files, each with the number of bytes that count: of a log, those up to the newest state."""
    paths = [path for path in sorted(run_dir.rglob("*")) if path.is_file() and path.suffix != ".part"]
    num_bytes = {path: path.stat().st_size for path in paths if not path.name.startswith(".")}
    if not (run_dir / "model.safetensors").exists():
        num_bytes[run_dir / "log.jsonl"] = read_log_position(run_dir)["bytes"]
    return list(num_bytes.items())


def read_log_position(run_dir: Path) -> dict[str, Any]:
    """What the newest state says of the log: its length and its checksum."""
    return read_state(list_states(run_dir / "state")[-1])["log"]


@contextmanager
def flip_bit(path: Path, bit: int) -> Iterator[None]:
    """Flip a bit of a file during the block."""
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    yield
    path.write_bytes(content)


def read_log(run_dir: Path) -> None:
    step = read_state(list_states(run_dir / "state")[-1])["progress"]["completed_steps"]
    if problem := restore_log(run_dir / "log.jsonl", step, read_log_position(run_dir)):
        raise InputError(problem)


READERS: dict[str, Callable[[Path], object]] = {
    "log.jsonl": read_log,
    "model.safetensors": read_checkpoint,
    "recipe.json": find_run,
    "test.json": read_result,
}
"""What reads a file of a run directory when it is resumed, tested again or taken as weights, but for its states."""


def is_noticed(read: Callable[[Path], object], run_dir: Path) -> bool:
    """Read a copy of a run, and return whether a refusal or a warning came of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            read(run_dir)
        except InputError:
            return True
    return bool(caught)


@pytest.mark.survival("flipped bit in any file of a run, 500 of them", "1→1", "refused with a sentence")
@pytest.mark.parametrize("part", range(5))
def test_no_flipped_bit_of_a_run_goes_unnoticed(runs, tmp_path, part):
    draw = random.Random(f"{SEED} {part}")
    files = [(run_dir, *file) for run_dir in runs for file in list_files(run_dir)]
    for run_dir in runs:
        report = verify_runs(run_dir)
        assert (report.problems, report.unverified) == ((), ())
    for number in range(part * NUM_FLIPS, (part + 1) * NUM_FLIPS):
        run_dir, path, num_bytes = files[number % len(files)]
        bit = draw.randrange(8 * num_bytes)
        with flip_bit(path, bit):
            assert verify_runs(run_dir).problems, (path, bit)
            if path.parent.name == "state":
                with pytest.raises(InputError):
                    read_state(path.with_name(path.name.removesuffix(".sha256")))
            elif path.name in READERS:
                copy = shutil.copytree(run_dir, tmp_path / str(number))
                assert is_noticed(READERS[path.name], copy), (path, bit)
                shutil.rmtree(copy)
