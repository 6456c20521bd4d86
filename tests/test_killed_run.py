"""A run that is killed, whenever it is, ends as if it had not been: the same command again, the same weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tiny_runs import AMD, TEACHER, log, make_data, run, typed, weights

LONG = {"schedule__epochs": 30, "save_seconds": 0.05}  # 60 steps, a state every few of them
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A folder with `data`, a teacher and a student's whole run, `amd`."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    data = make_data(folder / "data") / "unlabelled.txt"
    run(TEACHER, data=data, out=folder / "teacher")
    run(AMD, data=data, out=folder / "amd", method__teacher__weights=folder / "teacher", **LONG)
    return folder


def killed(arguments: list[str], out: Path, lines: int) -> None:
    """Starts a run and kills it as soon as its log has so many lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vidstill.cli", *arguments], stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    path = out / "log.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_a_killed_run_ends_with_the_same_weights_to_the_bit(uninterrupted, tmp_path):
    data, out = uninterrupted / "data/unlabelled.txt", tmp_path / "amd"
    command = typed(AMD, data=data, out=out, method__teacher__weights=uninterrupted / "teacher", **LONG)
    for lines in (4, 31):
        killed(command, out, lines)
        assert not (out / "model.safetensors").exists()
    run(" ".join(command))
    whole, found = weights(uninterrupted / "amd"), weights(out)
    assert whole.keys() == found.keys()
    assert all(torch.equal(whole[name], found[name]) for name in whole)
    assert log(out) == log(uninterrupted / "amd")
    assert len(log(out)) == 60


def test_a_kill_in_the_first_moment_leaves_a_folder_that_the_same_command_takes(uninterrupted, tmp_path):
    out = tmp_path / "teacher"
    out.mkdir()
    (out / "recipe.json.part").write_text('{"recipe": ')
    run(TEACHER, data=uninterrupted / "data/unlabelled.txt", out=out)
    assert all(torch.equal(tensor, weights(out)[name]) for name, tensor in weights(uninterrupted / "teacher").items())
