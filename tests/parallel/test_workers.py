"""Work in other processes: in order, whatever ends one of them, and nothing is left behind."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from deadly import children, hang, kill, once
from paths import PROJECT

from vidstill.data.storage.fetch import StorageUnreachable
from vidstill.parallel import process as process_module
from vidstill.parallel.pool import LostTask, WorkerPool, map_in_order, map_in_workers
from vidstill.parallel.process import WorkerProcess, send_heartbeat
from vidstill.utils.types import InputError


def collect(results: Iterator[tuple[int, object]]) -> list[object]:
    indices, values = zip(*results, strict=True)
    assert indices == tuple(range(len(indices)))
    return list(values)


@contextmanager
def run_program(program: Callable[[Connection], None]) -> Iterator[tuple[BaseProcess, Connection]]:
    """Another process that runs the program, and what it tells."""
    pipe, out = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=program, args=(out,))
    process.start()
    out.close()
    yield process, pipe
    process.kill()
    process.join()
    pipe.close()


def assert_gone(processes: list[int]) -> None:
    assert len(processes) == 2
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{number}").exists() for number in processes):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def nothing_is_left():
    before, open_files = children(), len(os.listdir("/proc/self/fd"))
    yield
    assert children() == before
    assert len(os.listdir("/proc/self/fd")) <= open_files + 2  # multiprocessing may keep a page of shared memory
    assert not [name for name in os.listdir("/dev/shm") if str(os.getpid()) in name]


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(workers):
    items = [0.02, 0.0, 0.01, 0.0, 0.0] * 12  # some take longer
    results = collect(map_in_workers(lambda item: time.sleep(item) or (item, os.getpid()), items, workers=workers))
    assert [item for item, _ in results] == items
    processes = {process for _, process in results}
    assert len(processes) == workers
    assert os.getpid() not in processes
    assert list(map_in_workers(kill, [], workers=2)) == []  # without items no process is started


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (hang, "took longer than 0.5 s and was killed"),
        (lambda: os._exit(3), "ended its process (exit code 3)"),
        *((partial(kill, n), f"ended its process (signal {int(n)})") for n in (signal.SIGSEGV, signal.SIGABRT)),
    ],
    ids=["hang", "exit", "SIGSEGV", "SIGABRT"],
)
def test_an_item_that_hangs_or_ends_its_process_is_lost_and_the_others_are_not(fail, reason, workers):
    timeout = 0.5 if fail is hang else 60.0
    results = map_in_workers(lambda n: fail() if n % 4 == 1 else n, range(7), workers=workers, timeout_seconds=timeout)
    assert collect(results) == [LostTask(reason) if n % 4 == 1 else n for n in range(7)]


@pytest.mark.survival("out of memory: a worker is killed", "1→1", "same bits")
def test_a_worker_that_is_killed_from_outside_costs_no_item(tmp_path, caplog):
    def work(n: int) -> int:
        if n == 3 and once(tmp_path / "flag"):
            kill(signal.SIGKILL)
        return n

    with caplog.at_level(logging.WARNING, "vidstill"):
        assert collect(map_in_workers(work, range(8), workers=2)) == list(range(8))
    assert [record.message for record in caplog.records] == [
        "a worker was killed (signal 9), most often because memory ran out; its task is retried"
    ]


@pytest.mark.survival("out of memory: a worker is killed twice", "1→1", "refused with a sentence")
def test_work_whose_processes_are_killed_twice_stops_and_names_the_item():
    results = map_in_workers(
        lambda n: kill(signal.SIGKILL) if n == 3 else n, range(8), workers=2, describe=lambda n: f"{n}.mp4"
    )
    with pytest.raises(InputError, match=r"^the worker of 3\.mp4 was killed twice \(signal 9\), most often because"):
        list(results)


def test_work_whose_first_processes_are_killed_stops(monkeypatch):
    monkeypatch.setattr(process_module, "_run_worker", lambda *_: kill(signal.SIGKILL))
    with pytest.raises(InputError, match=r"^a worker was killed \(signal 9\), .*use fewer workers"):
        list(map_in_workers(str, range(3), workers=2))


@pytest.mark.survival("stalled storage: a read is never answered", "1→1", "refused with a sentence")
def test_a_read_that_storage_does_not_answer_stops_the_work_and_a_decoder_that_spins_is_lost(tmp_path):
    """A FIFO that nobody writes to answers as little as a file server that is gone."""
    os.mkfifo(fifo := tmp_path / "nfs.mp4")
    held_open = os.open(fifo, os.O_RDWR)

    def read(n: int) -> int:
        if n == 1:
            while True:
                pass
        return len(os.read(held_open, 1)) if n == 3 else n

    results = map_in_workers(read, range(5), workers=1, timeout_seconds=0.5, describe=lambda n: f"{n}.mp4")
    assert [next(results) for _ in range(3)] == [(0, 0), (1, LostTask("took longer than 0.5 s and was killed")), (2, 2)]
    with pytest.raises(InputError) as error:
        next(results)
    os.close(held_open)
    assert str(error.value) == (
        f"3.mp4 waits for {fifo}, whose storage has not answered for 0.5 s; once it does, run the same command again"
    )


def test_a_file_that_cannot_even_be_opened_stops_the_work(tmp_path):
    os.mkfifo(fifo := tmp_path / "nfs.mp4")
    results = map_in_workers(lambda n: fifo.open("rb"), range(2), workers=2, timeout_seconds=0.5)
    with pytest.raises(InputError, match=r"^a task waits for a file, whose storage has not answered for 0\.5 s"):
        next(results)


def test_a_worker_that_is_killed_between_two_items_is_replaced():
    results = map_in_workers(lambda n: os.getpid(), range(40), workers=1)
    first = next(results)[1]
    time.sleep(0.3)  # it does what it was handed, and waits
    os.kill(first, signal.SIGKILL)
    others = dict(results)
    assert len(others) == 39
    assert not any(isinstance(result, LostTask) for result in others.values())
    assert len(set(others.values()) - {first}) == 1


def test_a_long_item_with_heartbeats_is_not_killed():
    def work(n: int) -> int:
        for _ in range(15):
            time.sleep(0.1)
            send_heartbeat()
        return n

    assert collect(map_in_workers(work, range(2), workers=2, timeout_seconds=0.5)) == [0, 1]
    send_heartbeat()  # outside of a worker it does nothing


def test_a_suspended_program_kills_no_worker_when_it_continues():
    """As by Ctrl-Z, or a scheduler that makes room for another."""

    def program(out: Connection) -> None:
        os.setsid()
        for result in map_in_workers(lambda n: time.sleep(0.3) or n, range(4), workers=2, timeout_seconds=0.7):
            out.send(result)

    with run_program(program) as (process, pipe):
        assert pipe.recv() == (0, 0)
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.killpg(process.pid, signal.SIGCONT)
        assert [pipe.recv() for _ in range(3)] == [(1, 1), (2, 2), (3, 3)]


def test_an_exception_is_raised_in_place_of_its_result():
    def work(n: int) -> int:
        if n == 2:
            raise StorageUnreachable("s3://bucket does not answer")
        return n

    results = map_in_workers(work, range(5), workers=2)
    assert [next(results), next(results)] == [(0, 0), (1, 1)]
    with pytest.raises(StorageUnreachable, match=r"^s3://bucket does not answer$"):
        next(results)


def test_an_unexpected_exception_comes_with_its_traceback():
    class Odd(Exception):  # cannot be pickled
        pass

    def wrong(n: int) -> None:
        raise Odd("no such thing") if n else KeyError("name")

    with pytest.raises(KeyError, match="name") as error:
        next(map_in_workers(wrong, [0], workers=1))
    assert "in wrong" in "".join(error.value.__notes__)
    with pytest.raises(RuntimeError, match="no such thing") as error:
        next(map_in_workers(wrong, [1], workers=1))
    assert "in wrong" in str(error.value)


def test_workers_that_cannot_start_are_an_error(monkeypatch):
    monkeypatch.setattr(process_module, "_run_worker", lambda *_: kill(signal.SIGSEGV))
    with pytest.raises(RuntimeError, match=r"ended its process \(signal 11\) before its first task"):
        list(map_in_workers(str, range(3), workers=2))


def test_a_closed_iterator_ends_its_workers():
    results = map_in_workers(lambda n: hang() if n else n, range(9), workers=2)
    assert next(results) == (0, 0)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 4
    assert not multiprocessing.active_children()


def test_the_death_of_a_worker_only_shows_in_its_result():
    """Where torch's own loader raises out of whatever its user is doing."""
    with WorkerPool(lambda n: kill(signal.SIGSEGV) if n else n, workers=1, max_pending=3, tasks_per_worker=3) as pool:
        tickets = [pool.submit(n) for n in (0, 1, 0)]
        assert pool.get_result(tickets[0]) == 0
        for _ in range(20):
            time.sleep(0.01)
        assert [pool.get_result(ticket) for ticket in tickets[1:]] == [LostTask("ended its process (signal 11)"), 0]


def test_workers_do_not_outlive_a_program_that_is_killed():
    def program(out: Connection) -> None:
        results = map_in_workers(lambda n: hang() if n > 1 else os.getpid(), range(9), workers=2)
        out.send([next(results)[1], next(results)[1]])
        time.sleep(1000)

    with run_program(program) as (process, pipe):
        workers = pipe.recv()
        process.kill()
        assert_gone(workers)


def test_workers_do_not_outlive_a_program_that_ends_with_results_left():
    program = (
        f"import os, sys\nsys.path.insert(0, {str(PROJECT / 'tests' / 'helpers')!r})\nfrom deadly import hang\n"
        "from vidstill.parallel.pool import map_in_workers\n"
        "results = map_in_workers(lambda n: hang() if n > 1 else os.getpid(), range(9), workers=2)\n"
        "print(next(results)[1], next(results)[1], flush=True)\n"
    )
    pipe = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert pipe.stderr == ""
    assert_gone([int(number) for number in pipe.stdout.split()])


@pytest.mark.parametrize("room", [0, 1000])
def test_arrays_come_whole_whether_they_fit_or_not(room):
    def work(n: int) -> tuple[np.ndarray, np.ndarray, str]:
        return np.full((n, 3), n % 256, np.uint8), np.arange(n), "text"

    sizes = [1, 50, 3000, 7, 0, 400, 20] * 5
    with WorkerPool(work, workers=2, max_pending=4, tasks_per_worker=2, slot_num_bytes=room) as pool:
        results = map_in_order(pool.submit, pool.get_result, sizes, 4)
        for size, (picture, numbers, text) in zip(sizes, results, strict=True):
            assert picture.shape == (size, 3)
            assert (picture == size % 256).all()
            assert numbers.tolist() == list(range(size))
            assert text == "text"


def test_a_large_result_comes_whole():
    results = collect(map_in_workers(lambda n: bytes([n]) * 3_000_000, range(6), workers=2))
    assert results == [bytes([n]) * 3_000_000 for n in range(6)]


def test_no_more_items_are_started_than_stated(tmp_path):
    def work(n: int) -> None:
        (tmp_path / str(n)).touch()
        if n == 0:
            until_there_are(15)  # one is handed to this process too

    def until_there_are(count: int) -> None:
        deadline = time.monotonic() + 20
        while len(list(tmp_path.iterdir())) < count and time.monotonic() < deadline:
            time.sleep(0.02)

    results = map_in_workers(work, range(100), workers=2)
    next(results)
    until_there_are(16)
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == 16
    assert len(list(results)) == 99


def test_stopping_the_pool_ends_the_wait_of_another_thread():
    with (
        WorkerPool(lambda n: hang(), workers=1, max_pending=1, tasks_per_worker=1) as pool,
        ThreadPoolExecutor(1) as thread,
    ):
        waiting = thread.submit(pool.get_result, pool.submit(0))
        time.sleep(0.1)
        pool.stop()
        assert waiting.exception(timeout=10) is not None


def test_worker_that_a_thread_forks_is_silent_when_an_interrupt_arrives_at_once():
    program = """
import os, signal, threading
from vidstill.parallel.pool import WorkerPool

def compute():
    with WorkerPool(abs, workers=1, max_pending=1, tasks_per_worker=1) as pool:
        print(pool.get_result(pool.submit(-1)))

os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGINT))
thread = threading.Thread(target=compute)
thread.start()
thread.join()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("1\n", "")


@pytest.mark.nightly  # each imports everything first
def test_processes_that_are_not_forked_do_the_same(monkeypatch):
    """As on systems where none is: work and items are pickled, arrays go through the pipes."""
    monkeypatch.setattr(process_module, "_CONTEXT", multiprocessing.get_context("spawn"))
    monkeypatch.setattr(process_module, "USE_FORK", False)
    assert collect(map_in_workers(np.arange, [3, 5], workers=1))[1].tolist() == [0, 1, 2, 3, 4]
    resource_tracker._resource_tracker._stop()  # a process that multiprocessing keeps


def test_interrupt_during_the_start_of_a_worker_is_neither_lost_nor_leaves_the_worker(monkeypatch, request):
    """In the hooks of a fork Python ignores exceptions, the KeyboardInterrupt of a SIGINT too."""
    started = []
    original = WorkerProcess.start

    def start(*args):
        os.kill(os.getpid(), signal.SIGINT)
        worker = original(*args)
        started.append(worker.process.pid)
        return worker

    monkeypatch.setattr(WorkerProcess, "start", start)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
    with (
        pytest.raises(KeyboardInterrupt),
        WorkerPool(abs, workers=1, max_pending=1, tasks_per_worker=1) as pool,
    ):
        pool.submit(-1)
    assert len(started) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
