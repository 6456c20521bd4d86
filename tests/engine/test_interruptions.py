"""Whatever ends a run, the same command resumes to the same weights, to the bit."""

import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import torch
from engine_toy import OPTIM, Toy, toy_batches, toy_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy_runs import PROGRAM, STEPS, PowerCut, cut_at, log, power_cut, train, weights

from vidstill.engine import checkpoint as resume
from vidstill.engine.distributed import Runtime
from vidstill.engine.optimizer import LARSConfig, SGDConfig
from vidstill.engine.trainer import RunInterrupted, SaveConfig, train_task
from vidstill.utils.types import InputError


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return train(folder)[0], folder


@settings(deadline=None, max_examples=8)
@given(st.integers(0, STEPS - 1), st.integers(1, 7))
def test_a_run_that_ends_at_any_step_goes_on_to_the_same_weights_to_the_bit(uninterrupted, step, save_steps):
    task, folder = uninterrupted
    with tempfile.TemporaryDirectory() as new:
        save = SaveConfig(steps=save_steps)
        with pytest.raises(PowerCut):
            train(Path(new), batches=cut_at(step, power_cut, toy_plan()), save_config=save)
        resumed, fitted = train(Path(new), save_config=save)
        assert fitted.resumed_at == step - step % save_steps
        assert weights(resumed) == weights(task)
        assert log(Path(new), "step", "loss", "grad_norm", "lr") == log(folder, "step", "loss", "grad_norm", "lr")


OPTIMISERS = {"sgd": SGDConfig(base_lr=1.0, weight_decay=1e-4), "lars": LARSConfig(base_lr=100.0)}


@pytest.mark.parametrize("optim", OPTIMISERS.values(), ids=OPTIMISERS)
def test_whatever_the_optimiser_a_run_goes_on_to_the_same_weights_to_the_bit(tmp_path, optim):
    task, _ = train(tmp_path / "whole", optim=optim)
    with pytest.raises(PowerCut):
        train(tmp_path / "cut", optim=optim, batches=cut_at(7, power_cut, toy_plan()))
    resumed, fitted = train(tmp_path / "cut", optim=optim)
    assert fitted.resumed_at == 7
    assert weights(resumed) == weights(task) != weights(Toy())


@settings(deadline=None, max_examples=4)
@given(st.integers(0, STEPS - 2), st.sampled_from([signal.SIGINT, signal.SIGTERM]))
def test_a_signal_ends_the_run_after_the_step_with_its_state_saved(uninterrupted, step, number):
    with tempfile.TemporaryDirectory() as new:
        save, before = SaveConfig(seconds=1e9), signal.getsignal(number)
        ask = cut_at(step, lambda: os.kill(os.getpid(), number), toy_plan())
        with pytest.raises(RunInterrupted, match=rf"after step {step + 1}; the same command resumes") as stopped:
            train(Path(new), batches=ask, save_config=save)
        assert stopped.value.exit_code == 128 + number
        assert signal.getsignal(number) == before
        resumed, fitted = train(Path(new), save_config=save)
        assert fitted.resumed_at == step + 1
        assert weights(resumed) == weights(uninterrupted[0])


def test_a_worker_that_dies_of_the_same_signal_is_no_failure(tmp_path, uninterrupted):
    def die():
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("DataLoader worker exited unexpectedly")

    with pytest.raises(RunInterrupted, match="after step 6"):
        train(tmp_path, batches=cut_at(6, die, toy_plan()), save_config=SaveConfig())
    resumed, fitted = train(tmp_path)
    assert fitted.resumed_at == 6
    assert weights(resumed) == weights(uninterrupted[0])


def test_data_that_fails_loses_no_step(tmp_path, uninterrupted):
    def fail():
        raise InputError("too many broken files")

    with pytest.raises(InputError, match="too many broken files"):
        train(tmp_path, batches=cut_at(6, fail, toy_plan()), save_config=SaveConfig())
    resumed, fitted = train(tmp_path)
    assert fitted.resumed_at == 6
    assert weights(resumed) == weights(uninterrupted[0])


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, _ = train(tmp_path)
    told = (tmp_path / "log.jsonl").read_text()
    again, fitted = train(tmp_path, batches=lambda start: pytest.fail("asked for data"))
    assert fitted.resumed_at == fitted.steps == STEPS
    assert weights(again) == weights(first)
    assert (tmp_path / "log.jsonl").read_text() == told


def test_a_killed_process_goes_on_to_the_same_weights_to_the_bit(tmp_path, uninterrupted):
    chance = random.Random()
    for _ in range(2):
        process = subprocess.Popen([*PROGRAM, tmp_path, "--slow", "0.03"], stderr=subprocess.DEVNULL)
        before = len(log(tmp_path)) if (tmp_path / "log.jsonl").exists() else 0
        wanted = before + chance.randint(1, 4)
        while not (tmp_path / "log.jsonl").exists() or len((tmp_path / "log.jsonl").read_bytes().splitlines()) < wanted:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "weights.pt").exists()
    subprocess.run([*PROGRAM, tmp_path], check=True, capture_output=True)
    task, folder = uninterrupted
    reached = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(torch.equal(reached[name], tensor) for name, tensor in task.state_dict().items())
    assert log(tmp_path, "step", "loss") == log(folder, "step", "loss")


def test_a_disk_that_is_full_stops_the_run_and_leaves_the_state(tmp_path):
    wide = [*PROGRAM, tmp_path, "--width", "2000"]
    whole = sum(path.stat().st_size for path in _after_three_steps(tmp_path).iterdir())
    told = subprocess.run([*wide, "--largest-file", str(whole // 2)], capture_output=True, text=True)
    assert told.returncode == 1
    assert "the state of step 4 cannot be written" in told.stdout
    assert "the state of step 3 remains: free disk space and run the same command again" in told.stdout
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-000000003.pt"]
    assert resume.load_state(tmp_path / "state")["progress"]["completed_steps"] == 3


def _after_three_steps(folder: Path) -> Path:
    with pytest.raises(PowerCut):
        train(folder, task=Toy(width=2000), batches=cut_at(3, power_cut, toy_plan()))
    return folder / "state"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"seed": 1}, "with seed 0, here it is 1"),
        ({"plan": toy_plan(epochs=5)}, "with total_steps 20, here it is 25"),
        ({"plan": toy_plan(batch=4)}, "with steps_per_epoch 5, here it is 10"),
        ({"task": nn.ModuleDict({"other": nn.Linear(2, 2)})}, "another model"),
        ({"precision": "bf16"}, "a run in fp32, and this one is in bf16"),
    ],
)
def test_the_state_of_another_run_is_refused_and_left_alone(tmp_path, changed, sentence):
    train(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=sentence):
        train(tmp_path, **changed)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_resumed_run_keeps_the_precision_that_was_found_for_it(tmp_path):
    with pytest.raises(PowerCut):
        train(tmp_path, precision="bf16", batches=cut_at(5, power_cut, toy_plan()))
    runtime = Runtime("auto")
    runtime.set_precision("fp32")  # as if this time fp32 had been found better
    plan = toy_plan()
    train_task(Toy(), toy_batches(plan, runtime), plan=plan, optim=OPTIM, runtime=runtime, run_dir=tmp_path, seed=0)
    assert runtime.precision == "bf16"


def test_on_another_number_of_devices_a_run_goes_on(tmp_path):
    with pytest.raises(PowerCut):
        train(tmp_path, batches=cut_at(5, power_cut, toy_plan()))
    _, fitted = train(tmp_path, plan=toy_plan(at_once=2))
    assert (fitted.resumed_at, fitted.steps) == (5, STEPS)
