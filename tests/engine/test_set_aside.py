"""A run that goes on from an earlier step: nothing that came later is lost."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from engine_toy import OPTIM, Toy, toy_plan
from test_checkpoint import damage
from toy_runs import STEPS, get_weights, read_log, train

from vidstill.engine import checkpoint
from vidstill.engine.checkpoint import get_step, list_states, load_state, set_aside
from vidstill.engine.lr_schedule import TrainingPlan
from vidstill.utils.checksums import record_checksums, verify_directory
from vidstill.utils.types import InputError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, with states of steps 5, 10, 15, 19 and 20."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    trainer = train(folder, keep_every=5)
    for name in ("recipe.json", "model.safetensors", "test.json"):
        (folder / name).write_text(json.dumps(name))
    record_checksums(folder, [folder / name for name in ("recipe.json", "log.jsonl", "model.safetensors", "test.json")])
    return trainer


@pytest.fixture
def run_dir(finished, tmp_path):
    return shutil.copytree(finished.run_dir, tmp_path / "run")


def list_steps(run_dir) -> list[int]:
    return [get_step(path) for path in list_states(run_dir / "state")]


def test_later_states_and_results_are_moved_to_a_run_directory_of_their_own(run_dir, finished):
    fork = set_aside(run_dir, 10)
    assert fork == run_dir / "forks" / "1"
    assert (list_steps(run_dir), list_steps(fork)) == ([5, 10], [15, 19, 20])
    assert {path.name for path in run_dir.iterdir() if not path.name.startswith("events")} == {
        *("recipe.json", "log.jsonl", "state", "forks", "SHA256SUMS")
    }
    assert {path.name for path in fork.iterdir()} == {
        *("recipe.json", "log.jsonl", "state", "model.safetensors", "test.json", "SHA256SUMS")
    }
    problems = dict([*verify_directory(run_dir), *verify_directory(fork)])
    assert len(problems) == 5
    assert not any(problems.values())
    assert read_log(fork, "step", "loss") == read_log(finished.run_dir, "step", "loss")
    assert get_weights(train(run_dir, keep_every=5).task) == get_weights(finished.task)  # trained again
    assert set_aside(run_dir, 5).name == "2"
    assert list_steps(run_dir / "forks" / "2") == [10, 15, 19, 20]


def test_step_without_a_state_is_refused_with_the_steps_that_have_one(run_dir):
    damage(run_dir / "state" / "step-000000010.pt", "flipped")
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"no state of step 7, but of 5, 10, 15, 19, 20; resume from one"):
        set_aside(run_dir, 7)
    with pytest.raises(InputError, match=r"step-000000010.pt is damaged"):
        set_aside(run_dir, 10)
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_kill_while_files_are_moved_loses_nothing(run_dir, monkeypatch):
    states = list_steps(run_dir)
    rename, renamed = checkpoint.rename_durably, []

    def fail(*paths):
        if len(renamed) == 4:
            raise KeyboardInterrupt
        renamed.append(rename(*paths))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "rename_durably", fail)
        with pytest.raises(KeyboardInterrupt):
            set_aside(run_dir, 5)
    set_aside(run_dir, 5)
    forks = [run_dir / "forks" / name for name in "12"]
    assert list_steps(run_dir) == [5]
    assert sorted(step for fork in forks for step in list_steps(fork)) == states[1:]
    assert {name for fork in forks for name in ("model.safetensors", "test.json") if (fork / name).exists()} == {
        *("model.safetensors", "test.json")
    }


def test_run_goes_on_with_other_settings_from_the_step_of_the_fork_only(run_dir, finished):
    longer = toy_plan(epochs=6)
    with pytest.raises(InputError, match="with total_steps 20, here it is 30"):
        train(run_dir, plan=longer)
    with pytest.raises(InputError, match="a run in fp32, and this one is in bf16"):
        train(run_dir, precision="bf16", fork_step=19)
    set_aside(run_dir, STEPS)
    trainer = train(run_dir, plan=longer, precision="bf16", fork_step=STEPS)
    assert (trainer.start_step, trainer.completed_steps) == (STEPS, 30)
    assert [step for (step,) in read_log(run_dir, "step")] == list(range(1, 31))
    assert read_log(run_dir, "loss")[:STEPS] == read_log(finished.run_dir, "loss")
    state = load_state(run_dir / "state")
    assert (state["run"]["total_steps"], state["precision"]) == (30, "bf16")
    again = train(run_dir, plan=longer, precision="bf16", fork_step=STEPS)
    assert again.start_step == 30


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (toy_plan(batch=4), "with steps_per_epoch 5, here it is 10"),  # other batches: the step is another position
        (toy_plan(epochs=3), "the state of step 20, and the run ends at step 15"),
    ],
)
def test_fork_cannot_change_the_batches_or_end_before_it_begins(run_dir, plan, message):
    with pytest.raises(InputError, match=message):
        train(run_dir, plan=plan, fork_step=STEPS)


def test_settings_of_the_optimizer_are_the_new_ones(run_dir):
    trainer = train(run_dir, optim=replace(OPTIM, weight_decay=0.25, betas=(0.8, 0.9)), fork_step=STEPS)
    assert {(group["weight_decay"], group["betas"]) for group in trainer.optimizer.param_groups} == {
        (0.25, (0.8, 0.9)),
        (0.0, (0.8, 0.9)),
    }
    assert all(torch.isfinite(state["exp_avg"]).all() for state in trainer.optimizer.state.values())
    with pytest.raises(InputError, match="other parameter groups"):
        train(run_dir, optim=replace(OPTIM, no_weight_decay=("layers",)), task=Toy(), fork_step=STEPS)


def test_a_setting_that_a_newer_version_added_does_not_block_a_state(run_dir, finished, monkeypatch):
    set_aside(run_dir, 15)
    get_identity = TrainingPlan.get_identity
    monkeypatch.setattr(TrainingPlan, "get_identity", lambda plan: {**get_identity(plan), "added": 1.0})
    assert get_weights(train(run_dir, keep_every=5).task) == get_weights(finished.task)
