"""One process that works for another: how it is begun and ended, what it is told, what it tells.

Nothing is locked between processes: each has two pipes of its own, so that it can end at any moment and harm no other.
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

from vidstill.parallel.heartbeat import BEATS_INDEX, TICKET_INDEX, Heartbeat, send_heartbeat, set_heartbeat
from vidstill.utils.types import InputError

KILL_TIMEOUT_SECONDS = 5.0
"""After so long a killed process is given up: a network drive that does not answer can hold one for ever."""

_USE_FORK = sys.platform == "linux"  # elsewhere the system's own libraries do not survive a fork
_CONTEXT: Any = multiprocessing.get_context("fork" if _USE_FORK else "spawn")  # a fork shares the listing's memory
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)  # looked up here: a forked process had better load nothing
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG in Linux's <sys/prctl.h>
_ALIGNMENT_BYTES = 64  # bytes: where an array may begin


class SharedSlots:
    """Memory that all processes see, in rooms of one size; of no size where processes are not forked."""

    def __init__(self, num_slots: int, slot_num_bytes: int):
        self._slot_num_bytes = math.ceil(slot_num_bytes / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES if _USE_FORK else 0
        self._memory = (
            mmap.mmap(-1, num_slots * self._slot_num_bytes) if self._slot_num_bytes else None
        )  # /dev/shm is often small

    def get_slot(self, index: int) -> memoryview:
        if self._memory is None:
            return memoryview(bytearray())
        return memoryview(self._memory)[index * self._slot_num_bytes : (index + 1) * self._slot_num_bytes]


@dataclass(eq=False)
class WorkerProcess:
    """A process, as its parent sees it."""

    process: BaseProcess
    inbox: Connection
    """Takes `(ticket, room, item)`."""
    outbox: Connection
    """Gives `(ticket, good, data, spans)`, see `unpack_result`; closed when the process is gone."""
    heartbeat: Heartbeat
    tickets: deque[int] = field(default_factory=deque)
    """What it was handed and has not given back, in order."""
    last_beats: int = 0
    """Its beats when it was last looked at."""
    stalled_seconds: float = 0.0
    """Seconds for which no more of them have been seen."""
    kill_reason: str = ""
    """It was ended."""

    @classmethod
    def start(cls, fn: Callable[[Any], Any], slots: SharedSlots) -> "WorkerProcess":
        inbox, ours_in = _CONTEXT.Pipe(duplex=False)
        ours_out, outbox = _CONTEXT.Pipe(duplex=False)
        progress = _CONTEXT.RawArray(ctypes.c_longlong, [-1, 0])
        arguments = (fn, inbox, outbox, progress, slots, os.getpid())
        process = _CONTEXT.Process(target=_run_worker, args=arguments, daemon=True)
        process.start()
        inbox.close()
        outbox.close()
        return cls(process, ours_in, ours_out, progress)

    @property
    def current_ticket(self) -> int:
        return self.heartbeat[TICKET_INDEX]

    @property
    def beats(self) -> int:
        """0 until it has begun on an item."""
        return self.heartbeat[BEATS_INDEX]

    def kill(self) -> int | None:
        """Its exit code; None if it cannot be ended."""
        self.process.kill()
        self.process.join(KILL_TIMEOUT_SECONDS)
        code = self.process.exitcode
        self.inbox.close()
        self.outbox.close()
        if code is not None:
            self.process.close()
        return code


def unpack_result(slot: memoryview, is_result: bool, data: bytes, spans: list[tuple[int, int]]) -> Any:
    """A result, its arrays still in the room; an exception is raised.

    Args:
        is_result: it is a result and no exception.
        spans: where in the room its arrays begin and end.
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
    slots: SharedSlots,
    parent_pid: int,
) -> NoReturn:
    """What the process does until it is ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal's Ctrl-C reaches every process: stopping is the parent's
    if _PRCTL is not None:
        _PRCTL(_DIE_WITH_PARENT, signal.SIGKILL)
    gc.freeze()  # a collection that walks through the parent's objects copies their memory
    torch.set_num_threads(1)
    set_heartbeat(heartbeat)
    try:
        while os.getppid() == parent_pid:
            ticket, room, item = inbox.recv()
            heartbeat[TICKET_INDEX] = ticket
            send_heartbeat()
            outbox.send((ticket, *_pack_result(fn, item, slots.get_slot(room))))
            heartbeat[TICKET_INDEX] = -1
    except (EOFError, OSError):
        pass  # the parent is gone
    os._exit(0)


def _pack_result(fn: Callable[[Any], Any], item: Any, slot: memoryview) -> tuple[bool, bytes, list[tuple[int, int]]]:
    spans: list[tuple[int, int]] = []

    def does_not_fit(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        start = math.ceil(spans[-1][1] / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES if spans else 0
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
    told = f"in a worker:\n{traceback.format_exc()}"
    if not isinstance(error, InputError):
        error.add_note(told)
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:
        return pickle.dumps(RuntimeError(f"{error!r} {told}"))
    return data
