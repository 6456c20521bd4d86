"""The training state's file: complete or absent, whatever fails or is killed, and nothing in it is executed."""

import errno
import os
import pickle

import pytest
import torch

from vidstill.engine.checkpoint import list_states, load_state, save_state
from vidstill.utils.types import InputError


def test_newest_state_is_loaded_and_older_ones_are_deleted(tmp_path):
    assert load_state(tmp_path) is load_state(tmp_path / "absent") is None
    for step in (9, 10, 100):
        save_state(tmp_path, step, {"weight": torch.full((3,), float(step)), "rates": (0.1, 1e-300)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000100.pt"]
    state = load_state(tmp_path)
    assert torch.equal(state["weight"], torch.full((3,), 100.0))
    assert state["rates"] == (0.1, 1e-300)


def _write_partly(state, file):
    file.write(b"part of it")
    raise RuntimeError("unexpected pos 64 vs 0")


def _fill_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("function", "fails"), [("torch.save", _write_partly), ("os.fsync", _fill_disk), ("os.replace", _fill_disk)]
)
@pytest.mark.survival("full disk while a state is written, flushed or renamed", "1→1", "refused with a sentence")
def test_state_that_cannot_be_written_leaves_the_previous_one(tmp_path, monkeypatch, function, fails):
    save_state(tmp_path, 1, {"weight": torch.ones(3)})
    monkeypatch.setattr(function, fails)
    with pytest.raises(OSError, match="the state of step 2 cannot be written"):
        save_state(tmp_path, 2, {"weight": torch.zeros(3)})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.pt"]
    assert torch.equal(load_state(tmp_path)["weight"], torch.ones(3))


@pytest.mark.survival("SIGKILL while a state is written, renamed or an older one deleted", "1→1", "same bits")
def test_kill_at_any_moment_leaves_the_newest_complete_state(tmp_path):
    save_state(tmp_path, 1, {"step": 1})
    older = list_states(tmp_path)[0].read_bytes()
    (tmp_path / "step-000000009.pt.part").write_bytes(b"part of it")
    assert load_state(tmp_path) == {"step": 1}
    save_state(tmp_path, 2, {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000002.pt"]
    (tmp_path / "step-000000001.pt").write_bytes(older)  # as if it had not been deleted
    assert load_state(tmp_path) == {"step": 2}


@pytest.mark.survival("torn file: the only state", "1→1", "refused with a sentence")
def test_damaged_state_is_an_error(tmp_path):
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
