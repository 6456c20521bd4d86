"""States are written while training goes on: what is written is the state of its step, complete or absent."""

import threading
import time

import pytest
import torch
from engine_toy import Toy
from toy_runs import STEPS, act_at, get_weights, start_program, train

from vidstill.engine import state_writer
from vidstill.engine.checkpoint import get_step, list_states, read_state, save_state
from vidstill.engine.interruption import RunStopped
from vidstill.utils.checksums import verify_sidecar


def list_steps(folder) -> list[int]:
    return [get_step(path) for path in list_states(folder / "state")]


def test_state_is_that_of_its_step_although_training_goes_on_while_it_is_written(tmp_path, monkeypatch):
    train(tmp_path / "expected", save_steps=3, keep_states=9)
    goes_on, states = threading.Event(), []

    def save_slowly(directory, step, state, **keep):
        states.append(state)
        assert goes_on.wait(60), "training waits for the disk"
        save_state(directory, step, state, **keep)

    monkeypatch.setattr(state_writer, "save_state", save_slowly)
    train(tmp_path / "slow", save_steps=3, keep_states=9, batches=act_at(5, goes_on.set))
    assert list_steps(tmp_path / "slow") == list_steps(tmp_path / "expected") == [3, 6, 9, 12, 15, 18, STEPS]
    for paths in zip(*(list_states(tmp_path / name / "state") for name in ("slow", "expected")), strict=True):
        written, expected = (read_state(path, needs_checksum=True) for path in paths)
        assert str(written["task"]) == str(expected["task"])
        torch.testing.assert_close(written["optimizer"]["state"], expected["optimizer"]["state"], rtol=0, atol=0)
    (first, second, *_) = (state["task"]["layers.0.weight"] for state in states)
    assert first.data_ptr() == second.data_ptr()  # the memory of the copy is used again


@pytest.mark.survival("full disk while training goes on", "1→1", "refused with a sentence")
def test_state_that_cannot_be_written_ends_the_run_at_the_next_save(tmp_path, monkeypatch):
    def fail(directory, step, state, **keep):
        if step == 4:
            raise OSError("no space left")
        save_state(directory, step, state, **keep)

    monkeypatch.setattr(state_writer, "save_state", fail)
    task = Toy()
    with pytest.raises(
        RunStopped, match="no space left; the state of step 3 remains: free disk space and run the same"
    ):
        train(tmp_path, task=task)
    assert list_steps(tmp_path) == [2, 3]
    assert 4 <= len((tmp_path / "log.jsonl").read_text().splitlines()) <= 5


@pytest.mark.survival("SIGKILL while the thread writes a state", "1→1", "same bits")
def test_kill_while_the_thread_writes_leaves_complete_states_and_the_same_weights(tmp_path):
    width = 20_000
    whole = train(tmp_path / "whole", task=Toy(width=width), save_steps=None)
    state_dir = tmp_path / "run" / "state"
    while True:
        process = start_program(tmp_path / "run", "--width", width)
        while not (any(state_dir.glob("*.pt")) and any(path.stat().st_size for path in state_dir.glob("*.pt.part"))):
            assert process.is_alive()
            time.sleep(0.001)
        process.kill()
        process.join()
        if any(state_dir.glob("*.pt.part")):
            break
    assert all(verify_sidecar(path) for path in list_states(state_dir))
    steps = list_steps(tmp_path / "run")
    resumed = train(tmp_path / "run", task=Toy(width=width))
    assert resumed.start_step == steps[-1] < STEPS
    assert get_weights(resumed.task) == get_weights(whole.task)
