"""One worker process: how it is started, what it runs, how results come back, and how it is killed.

No lock is shared between processes: each worker has two pipes of its own, so that it may die at any moment without
harm to another.
"""

import ctypes
import gc
import math
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import torch

from vidstill.utils.signals import ignore_signals
from vidstill.utils.types import InputError

KILL_TIMEOUT_SECONDS = 5.0
"""A killed process is given up after this time: a network drive that does not answer can hold one for ever."""

USE_FORK = sys.platform == "linux"  # elsewhere the system's own libraries do not survive a fork
"""Whether workers are forked, so that they share memory which their parent has mapped before."""

_CONTEXT: Any = multiprocessing.get_context("fork" if USE_FORK else "spawn")  # a fork shares the manifest's memory
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)  # loaded here: a forked process should load nothing
_PR_SET_PDEATHSIG = 1  # in Linux's <sys/prctl.h>
_ALIGNMENT_BYTES = 64  # where an array may begin


Heartbeat = ctypes.Array[ctypes.c_longlong]
"""The ticket of the task that a worker is at, -1 for none, and the number of its heartbeats; its parent reads it."""

_TICKET_INDEX, _BEATS_INDEX = 0, 1
_heartbeat: Heartbeat | None = None  # this process's, if it is a worker


def send_heartbeat() -> None:
    """Report progress from within a long task, so that it is not killed; does nothing outside of a worker."""
    if _heartbeat is not None:
        _heartbeat[_BEATS_INDEX] += 1


def allocate_slots(num_slots: int, slot_num_bytes: int) -> list[Any]:
    """Return memory that is shared with workers, one slot per result; the slots are empty where they are not forked."""
    size = _align(slot_num_bytes) if USE_FORK else 0
    # not in /dev/shm, which is often small
    memory = memoryview(mmap.mmap(-1, num_slots * size)) if size else bytearray()
    return [memory[index * size : (index + 1) * size] for index in range(num_slots)]


@dataclass(eq=False)
class WorkerProcess:
    """A worker as its parent sees it."""

    process: BaseProcess
    inbox: Connection  # takes `(ticket, slot, item)`
    outbox: Connection  # gives `(ticket, is_result, data, spans)`, see `unpack_result`; closed when the process is gone
    heartbeat: Heartbeat
    tickets: deque[int] = field(default_factory=deque)  # tasks that it was sent and has not returned, in order
    last_beats: int = 0  # its heartbeats when they were last read
    stalled_seconds: float = 0.0  # without another heartbeat
    stall_cpu_seconds: float | None = None  # the CPU time that it had used half-way to its timeout
    kill_reason: str = ""  # why the parent killed it

    @classmethod
    def start(cls, fn: Callable[[Any], Any], slots: list[Any]) -> "WorkerProcess":
        worker_inbox, inbox = _CONTEXT.Pipe(duplex=False)
        outbox, worker_outbox = _CONTEXT.Pipe(duplex=False)
        heartbeat = _CONTEXT.RawArray(ctypes.c_longlong, [-1, 0])
        arguments = (fn, worker_inbox, worker_outbox, heartbeat, slots, os.getpid())
        process = _CONTEXT.Process(target=_run_worker, args=arguments, daemon=True)
        process.start()
        worker_inbox.close()
        worker_outbox.close()
        return cls(process, inbox, outbox, heartbeat)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None  # it was started
        return self.process.pid

    @property
    def current_ticket(self) -> int:
        return self.heartbeat[_TICKET_INDEX]

    @property
    def beats(self) -> int:
        """Heartbeats; 0 until it has begun its first task."""
        return self.heartbeat[_BEATS_INDEX]

    def kill(self) -> int | None:
        """Kill the process and return its exit code; None if it cannot be killed."""
        self.process.kill()
        self.process.join(KILL_TIMEOUT_SECONDS)
        exit_code = self.process.exitcode
        self.inbox.close()
        self.outbox.close()
        if exit_code is not None:
            self.process.close()
        return exit_code


def unpack_result(slot: Any, is_result: bool, data: bytes, spans: list[tuple[int, int]]) -> Any:
    """Return a result, whose arrays stay in its slot, or raise the exception that it is.

    Args:
        slot: The shared memory of the task.
        is_result: Whether it is a result and not an exception.
        data: The pickled result, without the arrays in the slot.
        spans: The bytes of the slot where each array begins and ends.
    """
    value = pickle.loads(data, buffers=[slot[start:end] for start, end in spans])
    if not is_result:
        raise value
    return value


def _run_worker(
    fn: Callable[[Any], Any],
    inbox: Connection,
    outbox: Connection,
    heartbeat: Heartbeat,
    slots: list[Any],
    parent_pid: int,
) -> NoReturn:
    """Run tasks until the process is killed or its parent is gone."""
    ignore_signals()
    gc.enable()  # a training loop turns it off, and its worker may be forked later
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)
    gc.freeze()  # a collection that visits the parent's objects would copy their memory
    torch.set_num_threads(1)
    global _heartbeat
    _heartbeat = heartbeat
    try:
        while os.getppid() == parent_pid:
            ticket, slot, item = pickle.loads(inbox.recv_bytes())
            heartbeat[_TICKET_INDEX] = ticket
            send_heartbeat()
            outbox.send_bytes(pickle.dumps((ticket, *_pack_result(fn, item, slots[slot]))))
            heartbeat[_TICKET_INDEX] = -1
    except (EOFError, OSError):
        pass  # the parent is gone
    os._exit(0)


def _pack_result(fn: Callable[[Any], Any], item: Any, slot: Any) -> tuple[bool, bytes, list[tuple[int, int]]]:
    spans: list[tuple[int, int]] = []

    def does_not_fit(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        start = _align(spans[-1][1]) if spans else 0
        if start + raw.nbytes > len(slot):
            return True
        slot[start : start + raw.nbytes] = raw
        spans.append((start, start + raw.nbytes))
        return False

    try:
        return True, pickle.dumps(fn(item), protocol=5, buffer_callback=does_not_fit), spans
    except Exception as error:
        return False, _pickle_exception(error), []


def _pickle_exception(error: Exception) -> bytes:
    note = f"in a worker:\n{traceback.format_exc()}"
    if not isinstance(error, InputError):
        error.add_note(note)
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:
        return pickle.dumps(RuntimeError(f"{error!r} {note}"))
    return data


def _align(num_bytes: int) -> int:
    return math.ceil(num_bytes / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
