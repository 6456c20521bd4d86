"""Worlds: a run that is cut off goes on with another number of processes, whatever the clock says meanwhile."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from engine_toy import toy_batches, toy_plan
from fresh_programs import run_ranks
from toy_runs import STEPS, PowerCut, act_at, get_weights, load_weights, read_log, train

from vidstill.engine.distributed import Runtime

CUT = 7  # steps that are done when the power is cut
YEAR = 365 * 86400


def run_toy(out: Path, cut: bool) -> int:
    """Train the toy in this rank, and write its weights; or cut its power."""
    plan = toy_plan(world=2)
    try:
        trainer = train(out, plan=plan, batches=act_at(CUT, plan=plan) if cut else None)
    except PowerCut:
        os._exit(0)
    if os.environ["RANK"] == "0":
        torch.save(trainer.task.state_dict(), out / "weights.pt")
    return 0


def train_alone(out: Path, **changes: object):
    return train(out, plan=toy_plan(at_once=4), **changes)  # which accumulates twice: the noise of two processes


@pytest.fixture(scope="module")
def cut_runs(tmp_path_factory):
    """A folder with runs of one process and of two, each whole, and cut off in `one-cut` and `two-cut`."""
    folder = tmp_path_factory.mktemp("worlds")
    train_alone(folder / "one")
    with pytest.raises(PowerCut):
        train_alone(folder / "one-cut", batches=act_at(CUT, plan=toy_plan(at_once=4)))
    assert run_ranks(run_toy, folder / "two", False) == [0, 0]
    assert run_ranks(run_toy, folder / "two-cut", True) == [0, 0]
    return folder


def read_losses(out: Path) -> torch.Tensor:
    steps, losses = zip(*read_log(out, "step", "loss"), strict=True)
    assert list(steps) == list(range(1, STEPS + 1))
    return torch.tensor(losses)


@pytest.mark.survival("SIGKILL, simulated, of both processes", "2→2", "same bits")
def test_a_run_of_two_processes_resumes_to_the_same_bits(cut_runs, tmp_path):
    out = shutil.copytree(cut_runs / "two-cut", tmp_path / "run")
    assert run_ranks(run_toy, out, False) == [0, 0]
    expected, actual = load_weights(cut_runs / "two"), load_weights(out)
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())
    assert read_losses(out).equal(read_losses(cut_runs / "two"))


@pytest.mark.survival("SIGKILL, simulated, and another number of processes", "1→2", "same samples, loss within 1e-5")
@pytest.mark.survival("SIGKILL, simulated, and another number of processes", "2→1", "same samples, loss within 1e-5")
@pytest.mark.parametrize("first", ["one", "two"])
def test_a_run_resumes_on_another_number_of_processes_with_the_same_samples(cut_runs, tmp_path, first):
    out = shutil.copytree(cut_runs / f"{first}-cut", tmp_path / "run")
    if first == "one":
        assert run_ranks(run_toy, out, False) == [0, 0]
    else:
        assert train_alone(out).start_step == CUT
    torch.testing.assert_close(read_losses(out), read_losses(cut_runs / "one"), rtol=0, atol=1e-5)


@pytest.mark.survival("clock jump by a year, while it trains and before it resumes", "1→1", "same bits")
@pytest.mark.parametrize("seconds", [-YEAR, YEAR])
def test_the_clock_decides_nothing(tmp_path, monkeypatch, seconds):
    whole, read_clock = train(tmp_path / "whole"), time.time
    batches = toy_batches(toy_plan(), Runtime("fp32"))

    def jump_and_cut(start: int):
        for step, batch in enumerate(batches(start)):
            if step == 3:
                monkeypatch.setattr(time, "time", lambda: read_clock() + seconds)
            if step == CUT:
                raise PowerCut
            yield batch

    with pytest.raises(PowerCut):
        train(tmp_path / "run", batches=jump_and_cut)
    for number, path in enumerate(sorted((tmp_path / "run" / "state").iterdir())):
        os.utime(path, (0, read_clock() - number * YEAR))  # the newest state is the oldest by the clock
    monkeypatch.setattr(time, "time", lambda: read_clock() - seconds)
    trainer = train(tmp_path / "run")
    assert trainer.start_step == CUT
    assert get_weights(trainer.task) == get_weights(whole.task)
    assert read_log(tmp_path / "run", "step", "loss") == read_log(tmp_path / "whole", "step", "loss")
