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

from vidstill.parallel.heartbeat import BEATS, TICKET, Progress, beat, set_progress
from vidstill.utils.types import InputError

END_SECONDS = 5.0
"""After so long a killed process is given up: a network drive that does not answer can hold one for ever."""

_FORKS = sys.platform == "linux"  # elsewhere the system's own libraries do not survive a fork
_CONTEXT: Any = multiprocessing.get_context("fork" if _FORKS else "spawn")  # a fork shares the listing's memory
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)  # looked up here: a forked process had better load nothing
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG in Linux's <sys/prctl.h>
_ALIGNED = 64  # bytes: where an array may begin


class Shared:
    """Memory that all processes see, in rooms of one size; of no size where processes are not forked."""

    def __init__(self, rooms: int, size: int):
        self._size = math.ceil(size / _ALIGNED) * _ALIGNED if _FORKS else 0
        self._memory = mmap.mmap(-1, rooms * self._size) if self._size else None  # /dev/shm is often small

    def room(self, number: int) -> memoryview:
        if self._memory is None:
            return memoryview(bytearray())
        return memoryview(self._memory)[number * self._size : (number + 1) * self._size]


@dataclass(eq=False)
class Hand:
    """A process, as its parent sees it."""

    process: BaseProcess
    inbox: Connection
    """Takes `(ticket, room, item)`."""
    outbox: Connection
    """Gives `(ticket, good, data, spans)`, see `unpacked`; closed when the process is gone."""
    progress: Progress
    tickets: deque[int] = field(default_factory=deque)
    """What it was handed and has not given back, in order."""
    seen: int = 0
    """Its beats when it was last looked at."""
    waited: float = 0.0
    """Seconds for which no more of them have been seen."""
    why: str = ""
    """It was ended."""

    @classmethod
    def begin(cls, work: Callable[[Any], Any], shared: Shared) -> "Hand":
        inbox, ours_in = _CONTEXT.Pipe(duplex=False)
        ours_out, outbox = _CONTEXT.Pipe(duplex=False)
        progress = _CONTEXT.RawArray(ctypes.c_longlong, [-1, 0])
        arguments = (work, inbox, outbox, progress, shared, os.getpid())
        process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        inbox.close()
        outbox.close()
        return cls(process, ours_in, ours_out, progress)

    @property
    def ticket(self) -> int:
        return self.progress[TICKET]

    @property
    def beats(self) -> int:
        """0 until it has begun on an item."""
        return self.progress[BEATS]

    def end(self) -> int | None:
        """Its exit code; None if it cannot be ended."""
        self.process.kill()
        self.process.join(END_SECONDS)
        code = self.process.exitcode
        self.inbox.close()
        self.outbox.close()
        if code is not None:
            self.process.close()
        return code


def unpacked(room: memoryview, good: bool, data: bytes, spans: list[tuple[int, int]]) -> Any:
    """A result, its arrays still in the room; an exception is raised.

    Args:
        good: it is a result and no exception.
        spans: where in the room its arrays begin and end.
    """
    value = pickle.loads(data, buffers=[room[start:end] for start, end in spans])
    if not good:
        raise value
    return value


def _serve(
    work: Callable[[Any], Any], inbox: Connection, outbox: Connection, progress: Progress, shared: Shared, parent: int
) -> NoReturn:
    """What the process does until it is ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal's Ctrl-C reaches every process: stopping is the parent's
    if _PRCTL is not None:
        _PRCTL(_DIE_WITH_PARENT, signal.SIGKILL)
    gc.freeze()  # a collection that walks through the parent's objects copies their memory
    torch.set_num_threads(1)
    set_progress(progress)
    try:
        while os.getppid() == parent:
            ticket, room, item = inbox.recv()
            progress[TICKET] = ticket
            beat()
            outbox.send((ticket, *_packed(work, item, shared.room(room))))
            progress[TICKET] = -1
    except (EOFError, OSError):
        pass  # the parent is gone
    os._exit(0)


def _packed(work: Callable[[Any], Any], item: Any, room: memoryview) -> tuple[bool, bytes, list[tuple[int, int]]]:
    spans: list[tuple[int, int]] = []

    def does_not_fit(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        start = math.ceil(spans[-1][1] / _ALIGNED) * _ALIGNED if spans else 0
        if start + raw.nbytes > len(room):
            return True
        room[start : start + raw.nbytes] = raw
        spans.append((start, start + raw.nbytes))
        return False

    try:
        return True, pickle.dumps(work(item), protocol=5, buffer_callback=does_not_fit), spans
    except Exception as error:
        return False, _exception(error), []


def _exception(error: Exception) -> bytes:
    told = f"in a worker:\n{traceback.format_exc()}"
    if not isinstance(error, InputError):
        error.add_note(told)
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:
        return pickle.dumps(RuntimeError(f"{error!r} {told}"))
    return data
