"""An output has one writer at a time, on file systems with locks and without, and a dead writer locks nothing."""

import errno
import fcntl
import json
import os
import signal
import socket
import time
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from lock_holder import hold_in_other_process, start_orphan_with_lock

from vidstill.utils import locks
from vidstill.utils.locks import LOCK_FILE, STALE_SECONDS, hold_lock, lock_outputs
from vidstill.utils.output_dir import open_output_dir
from vidstill.utils.types import InputError


@pytest.fixture(autouse=True)
def nothing_waits(monkeypatch):
    monkeypatch.setattr(locks, "LOCK_SECONDS", 0.0)


def refuse_locks(monkeypatch) -> None:
    """As an NFS mounted without locks."""

    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture(params=["with flock", "without flock"])
def file_system(request, monkeypatch):
    if request.param == "without flock":
        refuse_locks(monkeypatch)


@pytest.mark.survival("second process that writes into the same output", "1→1", "refused with a sentence")
def test_the_second_process_is_told_which_one_writes(tmp_path, file_system, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/vidstill", "pretrain", "a b"])
    out = tmp_path / "run"
    with hold_in_other_process(partial(lock_outputs, out)) as owner:
        with pytest.raises(InputError) as error, lock_outputs(out):
            pass
        sentence = str(error.value)
        assert sentence.startswith(f"{out} is being written by process {owner.pid} on {socket.gethostname()} since 20")
        assert sentence.endswith(" UTC (vidstill pretrain 'a b'); wait until it ends, or end it")
    with lock_outputs(out):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.survival("second process in a run's directory", "1→1", "refused with a sentence")
def test_a_directory_is_locked_while_it_is_written(tmp_path):
    out = tmp_path / "run"
    open_run = partial(open_output_dir, out, {"batch": 64}, kind="a run", marker="recipe.json")
    second = open_run()
    with (
        hold_in_other_process(open_run) as owner,
        pytest.raises(InputError, match=f"run is .* process {owner.pid} on "),
    ):
        second.__enter__()
    with open_run():
        pass
    assert sorted(os.listdir(out)) == ["SHA256SUMS", "recipe.json"]


@pytest.mark.survival("SIGKILL of a process that has locked its output", "1→1", "same bits")
def test_a_lock_ends_with_its_process(tmp_path, file_system):
    with hold_in_other_process(partial(lock_outputs, tmp_path / "run")) as owner:
        owner.kill()
    assert (tmp_path / f".run{LOCK_FILE}").exists()
    with lock_outputs(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_process_that_the_owner_has_forked_does_not_keep_the_lock(tmp_path, file_system):
    orphan = start_orphan_with_lock(partial(lock_outputs, tmp_path / "run"))
    with lock_outputs(tmp_path / "run"):
        os.kill(orphan, signal.SIGKILL)


def write_alone(output: Path, barrier: Barrier, rounds: int) -> None:
    """Fails if two processes write at once; one that is refused tries again."""
    barrier.wait()
    while rounds:
        with suppress(InputError), lock_outputs(output):
            os.close(os.open(output, os.O_CREAT | os.O_EXCL))
            time.sleep(0.002)
            output.unlink()
            rounds -= 1


def test_of_processes_that_start_at_the_same_moment_one_writes(tmp_path, file_system):
    context = get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=write_alone, args=(tmp_path / "out", barrier, 15)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert os.listdir(tmp_path) == []


def change_owner(record: Path, **changes: object) -> None:
    record.write_text(json.dumps(json.loads(record.read_text()) | changes) + "\n")


@pytest.mark.parametrize(
    ("changes", "age", "is_taken"),
    [
        ({}, 0.0, False),
        ({"start": "1"}, 0.0, True),  # the number belongs to a later process
        ({"boot": "earlier"}, 0.0, True),  # the machine was started anew
        ({"host": "node3"}, STALE_SECONDS / 2, False),
        ({"host": "node3"}, STALE_SECONDS + 1, True),
        ({"pid_namespace": "pid:[1]"}, STALE_SECONDS / 2, False),  # of another container, whose processes are not seen
        ({"pid_namespace": "pid:[1]"}, STALE_SECONDS + 1, True),
    ],
)
def test_without_locks_an_owner_is_gone_if_this_machine_says_so_or_its_record_is_old(
    tmp_path, monkeypatch, changes, age, is_taken
):
    refuse_locks(monkeypatch)
    record = tmp_path / f".out{LOCK_FILE}.owner"

    def try_lock() -> bool:
        try:
            with lock_outputs(tmp_path / "out"):
                return True
        except InputError:
            return False

    with hold_in_other_process(partial(lock_outputs, tmp_path / "out")):
        change_owner(record, **changes)
        os.utime(record, (time.time() - age,) * 2)
        assert try_lock() is is_taken


def test_without_locks_an_owner_refreshes_its_record(tmp_path, monkeypatch):
    refuse_locks(monkeypatch)
    monkeypatch.setattr(locks, "REFRESH_SECONDS", 0.01)
    record = tmp_path / f".out{LOCK_FILE}.owner"
    with hold_in_other_process(partial(lock_outputs, tmp_path / "out")):
        os.utime(record, (0, 0))
        deadline = time.monotonic() + 20
        while time.time() - record.stat().st_mtime > STALE_SECONDS:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "no JSON\x1b[2J"])
def test_an_owner_that_is_not_known_is_another_process(tmp_path, content):
    with hold_in_other_process(partial(lock_outputs, tmp_path / "out")):
        (tmp_path / f".out{LOCK_FILE}").write_text(content)
        with (
            pytest.raises(InputError, match=r"out is being written by another process; wait"),
            lock_outputs(tmp_path / "out"),
        ):
            pass


def test_a_lock_leaves_no_directory_behind(tmp_path):
    with lock_outputs(tmp_path / "a" / "b" / "out.csv", None):
        assert (tmp_path / "a" / "b").is_dir()
    assert os.listdir(tmp_path) == []
    with lock_outputs(tmp_path / "a" / "b" / "out.csv"):
        (tmp_path / "a" / "b" / "out.csv").touch()
    assert os.listdir(tmp_path / "a" / "b") == ["out.csv"]


def test_two_names_of_one_output_have_one_lock(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    second = lock_outputs(tmp_path / "link")
    with hold_in_other_process(partial(lock_outputs, tmp_path / "real")), pytest.raises(InputError, match="written by"):
        second.__enter__()


def test_whoever_has_the_lock_can_take_it_again(tmp_path):
    with lock_outputs(tmp_path / "out"), lock_outputs(tmp_path / "out"):
        pass
    path = tmp_path / "run" / LOCK_FILE
    with hold_lock(path, path.parent):
        with hold_lock(path, path.parent):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_directory_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written \("), lock_outputs(tmp_path / "file" / "out"):
        pass
