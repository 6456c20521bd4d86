"""Whatever ends a run, the same command resumes to the same weights, to the bit."""

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine_toy import OPTIM, Toy, toy_batches, toy_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy_runs import (
    STEPS,
    TORCHRUN_TWO,
    PowerCut,
    act_at,
    get_weights,
    load_weights,
    read_log,
    run_program,
    start_program,
    train,
)

from vidstill.engine.checkpoint import list_states, load_state, save_state
from vidstill.engine.distributed import Runtime
from vidstill.engine.interruption import RunInterrupted
from vidstill.engine.optimizer import LARSConfig, SGDConfig
from vidstill.engine.trainer import Trainer
from vidstill.utils.signals import STOP_SIGNALS
from vidstill.utils.types import InputError


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train(tmp_path_factory.mktemp("uninterrupted"))


@pytest.fixture
def default_signals():
    """What a process that a shell starts in the foreground does at each signal: it ends."""
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


def assert_resumes(folder: Path, step: int, expected: Trainer, **changes) -> None:
    trainer = train(folder, **changes)
    assert trainer.start_step == step
    assert get_weights(trainer.task) == get_weights(expected.task) != get_weights(Toy())


@settings(deadline=None, max_examples=8)
@given(st.integers(0, STEPS - 1), st.integers(1, 7))
@pytest.mark.survival("SIGKILL, simulated, at any step", "1→1", "same bits")
def test_run_that_ends_at_any_step_resumes_to_the_same_weights(uninterrupted, step, save_steps):
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(PowerCut):
            train(Path(folder), batches=act_at(step), save_steps=save_steps)
        assert_resumes(Path(folder), step - step % save_steps, uninterrupted, save_steps=save_steps)
        logs = [read_log(each, "step", "loss", "grad_norm", "lr") for each in (Path(folder), uninterrupted.run_dir)]
        assert logs[0] == logs[1]


@pytest.mark.parametrize("optim", [SGDConfig(base_lr=1.0, weight_decay=1e-4), LARSConfig(base_lr=100.0)])
@pytest.mark.survival("SIGKILL with SGD and LARS", "1→1", "same bits")
def test_run_of_any_optimizer_resumes_to_the_same_weights(tmp_path, optim):
    whole = train(tmp_path / "whole", optim=optim)
    with pytest.raises(PowerCut):
        train(tmp_path / "cut", optim=optim, batches=act_at(7))
    assert_resumes(tmp_path / "cut", 7, whole, optim=optim)


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.survival("SIGTERM at any step", "1→1", "same bits")
@pytest.mark.survival("SIGUSR1 at any step", "1→1", "same bits")
@pytest.mark.survival("SIGHUP at any step", "1→1", "same bits")
@pytest.mark.survival("SIGQUIT at any step", "1→1", "same bits")
@pytest.mark.survival("SIGINT at any step", "1→1", "same bits")
def test_signal_ends_the_run_after_the_step_with_its_state_saved(tmp_path, uninterrupted, default_signals, number):
    step = 3 * STOP_SIGNALS.index(number)
    batches = act_at(step, lambda: os.kill(os.getpid(), number))
    with pytest.raises(RunInterrupted, match=rf"after step {step + 1}; the same command resumes") as error:
        train(tmp_path, batches=batches, save_steps=None, save_seconds=1e9)
    assert error.value.exit_code == (130 if number == signal.SIGINT else 75)
    assert all(signal.getsignal(each) == signal.SIG_DFL for each in STOP_SIGNALS)
    assert_resumes(tmp_path, step + 1, uninterrupted)


@pytest.fixture(scope="module")
def weights_of_two(tmp_path_factory):
    """What two processes end with that nothing interrupts."""
    folder = tmp_path_factory.mktemp("two")
    assert run_program(folder, world_size=2) == [0, 0]
    return load_weights(folder)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGKILL])
@pytest.mark.survival("SIGUSR1 to one of two processes", "2→2", "same bits")
@pytest.mark.survival("lost rank: SIGKILL of one of two processes", "2→2", "same bits")
def test_signal_to_one_process_ends_both_and_the_same_command_resumes(tmp_path, weights_of_two, number):
    """After SIGUSR1 both have exited with code 75, and torchrun with 1."""
    with subprocess.Popen([*TORCHRUN_TWO, tmp_path, "--slow", "0.1"], stderr=subprocess.PIPE, text=True) as launcher:
        wait_for_steps(tmp_path, 2, alive=lambda: launcher.poll() is None)
        os.kill(find_ranks(launcher.pid)[1], number)
        errors = launcher.communicate(timeout=120)[1]
    assert launcher.returncode == 1
    if number == signal.SIGUSR1:
        assert errors.count("exitcode  : 75 ") == 2
        assert load_state(tmp_path / "state")["progress"]["completed_steps"] == len(read_log(tmp_path)) < STEPS
    assert not (tmp_path / "weights.pt").exists()
    assert run_program(tmp_path, world_size=2) == [0, 0]
    weights = load_weights(tmp_path)
    assert all(torch.equal(weights[name], tensor) for name, tensor in weights_of_two.items())


def find_ranks(launcher: int) -> dict[int, int]:
    """The processes that torchrun has started, by rank."""
    children = [
        int(pid) for path in Path(f"/proc/{launcher}/task").glob("*/children") for pid in path.read_text().split()
    ]
    environments = {pid: Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in children}
    return {rank: pid for pid, each in environments.items() for rank in (0, 1) if f"RANK={rank}".encode() in each}


def wait_for_steps(folder: Path, count: int, alive: Callable[[], bool]) -> None:
    log = folder / "log.jsonl"
    while not log.exists() or len(log.read_bytes().splitlines()) < count:
        assert alive()
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "error", "raised"),
    [  # a worker dies of the signal that ends the run; the data fail
        (signal.SIGINT, RuntimeError("DataLoader worker exited unexpectedly"), (RunInterrupted, "after step 6")),
        (None, InputError("too many broken files"), (InputError, "too many broken files")),
    ],
)
def test_data_that_fail_lose_no_step(tmp_path, uninterrupted, number, error, raised):
    def fail():
        if number:
            os.kill(os.getpid(), number)
        raise error

    with pytest.raises(raised[0], match=raised[1]):
        train(tmp_path, batches=act_at(6, fail), save_steps=None)
    assert_resumes(tmp_path, 6, uninterrupted)


def test_finished_run_is_not_trained_again(tmp_path):
    first = train(tmp_path)
    log = (tmp_path / "log.jsonl").read_text()
    assert_resumes(tmp_path, STEPS, first, batches=lambda start: pytest.fail("requests data"))
    assert (tmp_path / "log.jsonl").read_text() == log


@pytest.mark.survival("SIGKILL at a random moment, twice", "1→1", "same bits")
def test_killed_process_resumes_to_the_same_weights(tmp_path, uninterrupted):
    log, rng = tmp_path / "log.jsonl", random.Random()
    for _ in range(2):
        process = start_program(tmp_path, "--slow", 0.03)
        steps = (len(read_log(tmp_path)) if log.exists() else 0) + rng.randint(1, 4)
        wait_for_steps(tmp_path, steps, process.is_alive)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "weights.pt").exists()
    assert run_program(tmp_path) == [0]
    weights = load_weights(tmp_path)
    assert all(torch.equal(weights[name], tensor) for name, tensor in uninterrupted.task.state_dict().items())
    assert read_log(tmp_path, "step", "loss") == read_log(uninterrupted.run_dir, "step", "loss")


@pytest.mark.survival("full disk while a state is written", "1→1", "refused with a sentence")
def test_full_disk_stops_the_run_and_leaves_the_state(tmp_path):
    with pytest.raises(PowerCut):
        train(tmp_path, task=Toy(width=2000), batches=act_at(3))
    num_bytes = max(path.stat().st_size for path in (tmp_path / "state").iterdir())
    options = ("--width", 2000, "--largest-file", num_bytes // 2)
    assert run_program(tmp_path, *options, printed=tmp_path / "printed.txt") == [1]
    printed = (tmp_path / "printed.txt").read_text()
    assert "the state of step 4 cannot be written" in printed
    assert "the state of step 3 remains: free disk space and run the same command again" in printed
    assert [path.name for path in list_states(tmp_path / "state")] == ["step-000000002.pt", "step-000000003.pt"]
    assert load_state(tmp_path / "state")["progress"]["completed_steps"] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "with seed 0, here it is 1"),
        ({"plan": toy_plan(epochs=5)}, "with total_steps 20, here it is 25"),
        ({"plan": toy_plan(batch=4)}, "with steps_per_epoch 5, here it is 10"),
        ({"task": nn.ModuleDict({"other": nn.Linear(2, 2)})}, "another model"),
        ({"precision": "bf16"}, "a run in fp32, and this one is in bf16"),
    ],
)
def test_state_of_another_run_is_refused_and_unchanged(tmp_path, changes, message):
    train(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message):
        train(tmp_path, **changes)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "entries",
    [
        {"progress": {"completed_steps": 5}},
        {"progress": {}},
        {"optimizer": {"state": {}}},
        {"task": {name: torch.zeros(1) for name in Toy().state_dict()}},
        {"validation": {"score": []}},
    ],
)
def test_state_of_other_content_is_refused_with_a_sentence(tmp_path, entries):
    train(tmp_path, plan=(plan := toy_plan(epochs=2)))
    save_state(tmp_path / "state", plan.total_steps, load_state(tmp_path / "state") | entries)
    with pytest.raises(
        InputError, match=r"state holds a state that does not fit this run \(\w+: .*; take another --out"
    ):
        train(tmp_path, plan=plan)


def test_resumed_run_keeps_the_precision_that_was_selected_for_it(tmp_path):
    with pytest.raises(PowerCut):
        train(tmp_path, precision="bf16", batches=act_at(5))
    runtime, plan = Runtime("auto"), toy_plan()
    runtime.set_precision("fp32")  # as if this time fp32 were faster
    batches = toy_batches(plan, runtime)
    Trainer(Toy(), batches, plan=plan, optim=OPTIM, runtime=runtime, run_dir=tmp_path, seed=0).train()
    assert runtime.precision == "bf16"


def test_run_resumes_on_another_number_of_devices(tmp_path):
    with pytest.raises(PowerCut):
        train(tmp_path, batches=act_at(5))
    trainer = train(tmp_path, plan=toy_plan(at_once=2))
    assert (trainer.start_step, trainer.completed_steps) == (5, STEPS)
