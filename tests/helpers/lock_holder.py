"""Another process that holds a lock."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess


@contextmanager
def hold_in_other_process(lock: Callable[[], AbstractContextManager[None]]) -> Iterator[BaseProcess]:
    """Gives the process, which lets go of the lock at the end of the block, unless it was killed."""
    here, there = get_context("fork").Pipe()
    process = get_context("fork").Process(target=_hold, args=(lock, there))
    process.start()
    there.close()
    assert here.poll(20)
    assert here.recv() == "locked"
    try:
        yield process
    finally:
        with suppress(BrokenPipeError):  # it was killed
            here.send("let go")
        process.join(20)


def _hold(lock: Callable[[], AbstractContextManager[None]], pipe: Connection) -> None:
    with lock():
        pipe.send("locked")
        pipe.recv()


def start_orphan_with_lock(lock: Callable[[], AbstractContextManager[None]]) -> int:
    """Kill a process that holds a lock and has forked another, and return the number of that one, which lives on."""
    here, there = get_context("fork").Pipe()
    process = get_context("fork").Process(target=_fork_and_hold, args=(lock, there))
    process.start()
    child = here.recv()
    process.kill()
    process.join()
    return int(child)


def _fork_and_hold(lock: Callable[[], AbstractContextManager[None]], pipe: Connection) -> None:
    with lock():
        if not (child := os.fork()):
            signal.pause()
        pipe.send(child)
        signal.pause()
