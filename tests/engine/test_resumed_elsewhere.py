"""A run resumes without a disk that its machines share, and on another number of them: rank 0 has the state."""

import shutil

import pytest
import torch
from engine_toy import toy_plan
from toy_runs import PowerCut, act_at, load_weights, read_log, run_program, train

from vidstill.engine.checkpoint import list_states

PLAN = toy_plan(at_once=4)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole"), plan=PLAN)


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A run of one process that was cut off; its states are of steps 6 and 7."""
    folder = tmp_path_factory.mktemp("cut")
    with pytest.raises(PowerCut):
        train(folder, plan=PLAN, batches=act_at(7, plan=PLAN))
    return folder


@pytest.fixture(scope="module")
def shared(cut, tmp_path_factory):
    """The run that two processes resumed from one directory."""
    folder = shutil.copytree(cut, tmp_path_factory.mktemp("shared") / "run")
    assert run_program(folder, world_size=2) == [0, 0]
    return folder


@pytest.mark.survival("lost disk of a node: rank 1 has no state", "1→2", "same bits")
@pytest.mark.survival("lost disk of a node: rank 1 has an older state", "1→2", "same bits")
@pytest.mark.parametrize("older", [pytest.param(False, marks=pytest.mark.nightly), True])
def test_ranks_with_disks_of_their_own_resume_from_the_state_of_rank_0(cut, shared, tmp_path, older):
    shutil.copytree(cut, tmp_path / "disk0")
    if older:
        shutil.copytree(cut, tmp_path / "disk1")
        list_states(tmp_path / "disk1" / "state")[-1].unlink()
    assert run_program(tmp_path, "--own-disks", world_size=2) == [0, 0]
    weights, expected = load_weights(tmp_path), load_weights(shared)
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert read_log(tmp_path / "disk0", "step", "loss") == read_log(shared, "step", "loss")


@pytest.mark.survival("moved directory, to a machine of two devices", "1→2", "same samples, loss within 1e-5")
def test_run_of_one_process_goes_on_with_two(whole, shared):
    assert_same_losses(shared, whole)


@pytest.mark.survival("lost disk of a node, and the node", "2→1", "same samples, loss within 1e-5")
def test_run_of_two_processes_goes_on_with_one(whole, tmp_path):
    assert run_program(tmp_path, "--own-disks", "--stop-after", 7, world_size=2) == [1, 1]
    assert not (tmp_path / "disk1").exists()
    resumed = train(tmp_path / "disk0", plan=PLAN)
    assert resumed.start_step == 7
    assert_same_losses(tmp_path / "disk0", whole)


def assert_same_losses(folder, whole) -> None:
    losses, expected = (read_log(each, "step", "loss") for each in (folder, whole.run_dir))
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=0, atol=1e-5)
