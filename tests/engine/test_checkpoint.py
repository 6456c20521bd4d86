"""The training state's file: complete or absent, whatever fails or is killed, and nothing in it is executed."""

import errno
import hashlib
import os
import pickle
import re
import shutil
import sys
import warnings

import pytest
import torch

from vidstill.engine.checkpoint import get_step, list_states, load_state, save_state
from vidstill.utils.types import InputError


def build_state(**entries) -> dict:
    """Return a state as a run has it, of this weight."""
    names = ("run", "progress", "task", "optimizer", "scaler", "validation")
    return {"precision": "fp32"} | {name: {} for name in names} | {"task": entries}


def list_names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def list_saved_steps(directory) -> list[int]:
    """Return the steps of the states, each of which has its checksum, as coreutils writes it, and nothing else."""
    states = list_states(directory)
    assert list_names(directory) == sorted([*(p.name for p in states), *(f"{p.name}.sha256" for p in states)])
    for path in states:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (directory / f"{path.name}.sha256").read_text() == f"{digest}  {path.name}\n"
    return [get_step(path) for path in states]


def damage(path, fault: str) -> None:
    content = bytearray(path.read_bytes())
    if fault == "flipped":
        content[len(content) // 2] ^= 1
    elif fault == "torn":
        del content[len(content) // 2 :]
    elif fault == "empty":
        content.clear()
    path.write_bytes(content)


def test_newest_state_is_loaded(tmp_path):
    assert load_state(tmp_path) is load_state(tmp_path / "absent") is None
    for step in (9, 10, 100):
        save_state(tmp_path, step, build_state(weight=torch.full((3,), float(step)), rates=(0.1, 1e-300)), keep=1)
    assert list_saved_steps(tmp_path) == [100]
    state = load_state(tmp_path)["task"]
    assert torch.equal(state["weight"], torch.full((3,), 100.0))
    assert state["rates"] == (0.1, 1e-300)


def test_the_newest_states_and_those_of_every_nth_step_remain(tmp_path):
    for step in (3, 5, 8, 10, 13, 14):
        save_state(tmp_path, step, build_state())
    assert list_saved_steps(tmp_path) == [13, 14]
    for step in (15, 18, 20, 23, 10**9, 10**9 + 1):  # of more digits than a name has
        save_state(tmp_path, step, build_state(), keep=3, keep_every=5)
    assert list_saved_steps(tmp_path) == [15, 20, 23, 10**9, 10**9 + 1]


def _write_partly(state, file):
    file.write(b"part of it")
    raise RuntimeError("unexpected pos 64 vs 0")


def _fill_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.survival("full disk while a state is written", "1→1", "same bits")
@pytest.mark.parametrize(
    ("function", "fails"), [("torch.save", _write_partly), ("os.fsync", _fill_disk), ("os.replace", _fill_disk)]
)
@pytest.mark.parametrize("step", [1, 2])  # one that was saved before, and a new one
def test_state_that_cannot_be_written_leaves_the_previous_one(tmp_path, monkeypatch, function, fails, step):
    save_state(tmp_path, 1, build_state(weight=torch.ones(3)))
    with monkeypatch.context() as patch:
        patch.setattr(function, fails)
        with pytest.raises(OSError, match=f"the state of step {step} cannot be written"):
            save_state(tmp_path, step, build_state(weight=torch.zeros(3)))
    assert torch.equal(load_state(tmp_path)["task"]["weight"], torch.ones(3))
    if step == 2:
        assert list_saved_steps(tmp_path) == [1]


@pytest.mark.survival("SIGKILL while a state is written", "1→1", "same bits")
@pytest.mark.parametrize("step", [2, 3])  # one that was saved before, and a new one
def test_kill_at_any_moment_leaves_a_good_state_without_a_word(tmp_path, monkeypatch, step):
    """The directory as each system call leaves it, which is what a kill leaves."""
    save_state(tmp_path / "run", 1, build_state(step=1))
    save_state(tmp_path / "run", 2, build_state(step=2))
    snapshots = []

    def record(event, _):
        if event in ("open", "os.rename", "os.remove") and recording:
            snapshots.append(tmp_path / str(len(snapshots)))
            recording.pop()
            shutil.copytree(tmp_path / "run", snapshots[-1])
            recording.append(True)

    recording = [True]
    sys.addaudithook(record)
    save_state(tmp_path / "run", step, build_state(step=3))
    recording.clear()
    assert len(snapshots) >= 6
    loaded = []
    for snapshot in (*snapshots, tmp_path / "run"):
        with warnings.catch_warnings(record=True):
            loaded.append(load_state(snapshot)["task"]["step"])
        save_state(snapshot, 9, build_state(step=9))
        assert len(list_saved_steps(snapshot)) == 2 if not (snapshot / "damaged").exists() else True
    assert loaded == sorted(loaded, key=[2, 1, 3].index)
    assert loaded[-1] == 3


@pytest.mark.survival("flipped bit in a state or its checksum", "1→1", "same bits")
@pytest.mark.survival("torn file of a state or its checksum", "1→1", "same bits")
@pytest.mark.parametrize("fault", ["flipped", "torn", "empty"])
def test_damage_is_said_and_the_newest_good_state_is_taken(tmp_path, fault):
    for step in (7, 8, 9):
        save_state(tmp_path, step, build_state(step=step), keep=3)
    damage(tmp_path / "step-000000009.pt", fault)
    damage(tmp_path / "step-000000008.pt.sha256", fault)
    messages = []
    assert load_state(tmp_path, warn=messages.append)["task"] == {"step": 7}
    for step, message in zip((9, 8), messages, strict=True):
        assert re.search(
            rf"step-00000000{step}.pt.* is damaged: .*; it is kept in .*damaged, and .* step 7 is used", message
        )
    save_state(tmp_path, 8, build_state(step=8))
    assert [get_step(path) for path in list_states(tmp_path)] == [7, 8]
    assert load_state(tmp_path)["task"] == {"step": 8}
    assert "step-000000009.pt" in list_names(tmp_path / "damaged")


@pytest.mark.parametrize("fault", ["flipped", "torn", "empty"])
@pytest.mark.survival("flipped bit in every state", "1→1", "refused with a sentence")
@pytest.mark.survival("torn file of every state", "1→1", "refused with a sentence")
def test_damage_of_every_state_is_an_error(tmp_path, fault):
    for step in (7, 8):
        save_state(tmp_path, step, build_state(weight=torch.ones(300)))
        damage(tmp_path / f"step-00000000{step}.pt", fault)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"no state .* can be used \(.*8.pt is damaged.*7.pt is damaged.* start again"):
        load_state(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\x89PNG", "cannot be read"),
        ([1, 2], "holds no training state but list"),
        (torch.ones(2), "holds no training state but Tensor"),
        ({"weight": torch.ones(2)}, "its entry run is NoneType"),
        (build_state() | {"optimizer": [1]}, "its entry optimizer is list"),
    ],
)
def test_a_file_of_something_else_is_no_state_even_without_a_checksum(tmp_path, content, message):
    path = tmp_path / "step-000000009.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(InputError, match=f"step-000000009.pt .*{message}"):
        load_state(tmp_path)


def test_state_without_a_checksum_is_read_only_if_no_state_has_one(tmp_path):
    torch.save(build_state(step=9), tmp_path / "step-000000009.pt")  # as an older version wrote it
    assert load_state(tmp_path)["task"] == {"step": 9}
    save_state(tmp_path, 7, build_state(step=7))
    assert list_saved_steps(tmp_path) == [7]
    torch.save(build_state(step=9), tmp_path / "step-000000009.pt")
    with pytest.warns(UserWarning, match=r"9.pt has no checksum, .* step 7 is used"):
        assert load_state(tmp_path)["task"] == {"step": 7}


class Malice:
    def __reduce__(self):
        return os.mkdir, (os.environ["VIDSTILL_MALICE"],)


def test_nothing_in_a_state_is_executed(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDSTILL_MALICE", str(tmp_path / "executed"))
    save_state(tmp_path, 1, build_state(weight=Malice()))
    with pytest.raises(InputError):
        load_state(tmp_path)
    (tmp_path / "step-000000002.pt").write_bytes(pickle.dumps(Malice(), protocol=2))
    with pytest.raises(InputError):
        load_state(tmp_path)
    assert not (tmp_path / "executed").exists()
