import errno
import os
import pickle

import pytest
import torch

from vidstill.engine.checkpoint import list_states, load_state, save_state
from vidstill.utils.types import InputError


def test_the_newest_state_comes_back_and_the_older_ones_go(tmp_path):
    for step in (9, 10, 100):
        save_state(tmp_path, step, {"weight": torch.full((3,), float(step)), "rates": (0.1, 1e-300)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000100.pt"]
    state = load_state(tmp_path)
    assert torch.equal(state["weight"], torch.full((3,), 100.0))
    assert state["rates"] == (0.1, 1e-300)


def test_a_folder_without_a_state_gives_none(tmp_path):
    assert load_state(tmp_path) is None
    assert load_state(tmp_path / "absent") is None


def _half_written(state, file):
    file.write(b"half of it")
    raise RuntimeError("unexpected pos 64 vs 0")


def _disk_full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("place", "fails"), [("torch.save", _half_written), ("os.fsync", _disk_full), ("os.replace", _disk_full)]
)
def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch, place, fails):
    save_state(tmp_path, 1, {"weight": torch.ones(3)})
    monkeypatch.setattr(place, fails)
    with pytest.raises(OSError, match="the state of step 2 cannot be written"):
        save_state(tmp_path, 2, {"weight": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.pt"]
    assert torch.equal(load_state(tmp_path)["weight"], torch.ones(3))


def test_what_a_kill_left_unfinished_is_no_state(tmp_path):
    save_state(tmp_path, 1, {"weight": torch.ones(3)})
    (tmp_path / "step-000000009.pt.part").write_bytes(b"half of it")
    assert torch.equal(load_state(tmp_path)["weight"], torch.ones(3))
    save_state(tmp_path, 2, {"weight": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002.pt"]


def test_a_kill_before_the_older_state_is_deleted_leaves_the_newer_one_in_force(tmp_path):
    save_state(tmp_path, 1, {"step": 1})
    older = list_states(tmp_path)[0].read_bytes()
    save_state(tmp_path, 2, {"step": 2})
    (tmp_path / "step-000000001.pt").write_bytes(older)
    assert load_state(tmp_path) == {"step": 2}


def test_a_damaged_state_is_named(tmp_path):
    save_state(tmp_path, 7, {"weight": torch.ones(300)})
    path = list_states(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"step-000000007.pt cannot be read .* delete it to start again"):
        load_state(tmp_path)


class Malice:
    def __reduce__(self):
        return os.mkdir, (os.environ["VIDSTILL_MALICE"],)


def test_nothing_in_a_state_is_executed(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSTILL_MALICE", str(tmp_path / "executed"))
    save_state(tmp_path, 1, {"weight": Malice()})
    with pytest.raises(InputError):
        load_state(tmp_path)
    (tmp_path / "step-000000002.pt").write_bytes(pickle.dumps(Malice(), protocol=2))
    with pytest.raises(InputError):
        load_state(tmp_path)
    assert not (tmp_path / "executed").exists()
