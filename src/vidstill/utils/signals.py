"""Signals that ask a process to end, and the exit codes by which it says how it ended."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT)
"""Ctrl-C, what a scheduler sends before it kills (Slurm: `--signal=USR1@120`), a lost terminal, Ctrl-\\."""

EXIT_RESUMABLE = 75
"""Exit code of a command that a signal has ended and that the same command resumes: EX_TEMPFAIL in <sysexits.h>."""

_REPEAT_SECONDS = 3.0  # torchrun forwards what was sent to all processes of a terminal or a job: it comes twice


class StopSignal(KeyboardInterrupt):
    """A signal asks this process to end; it is raised in the main thread, like the KeyboardInterrupt of a Ctrl-C."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def get_exit_code(number: int, *, resumable: bool) -> int:
    """Return the exit code of a process that a signal has ended: 130 for SIGINT, as of every program.

    Args:
        number: The signal.
        resumable: Whether the same command goes on where this one was.
    """
    return EXIT_RESUMABLE if resumable and number != signal.SIGINT else 128 + number


@contextmanager
def handle_signals(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` at each of STOP_SIGNALS during the block; a signal that is sent twice at once counts once.

    Does nothing outside of the main thread, which alone handles signals. A SIGHUP that is ignored stays ignored: nohup.
    """
    outer = signal.getsignal(signal.SIGTERM)
    with _replace_handlers(_Handler(act, outer.times if isinstance(outer, _Handler) else {})):
        yield


@contextmanager
def raise_signals() -> Iterator[None]:
    """Raise a StopSignal in the block at each of STOP_SIGNALS."""

    def stop(number: int) -> None:
        raise StopSignal(number)

    with handle_signals(stop):
        yield


@contextmanager
def delay_signals() -> Iterator[None]:
    """Deliver one of STOP_SIGNALS at the end of the block; a process that is forked in it gets none of them.

    Python swallows a KeyboardInterrupt in the hooks of a fork, and the new process would print one before it ignores
    the signal. Signals are handled by the main thread alone, but whichever thread forks is the new process's main one.
    """
    received: list[int] = []
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:  # another thread, which does not block the signal, passes it on to the handler
        with _replace_handlers(lambda number, frame: received.append(number)):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number in received[:1]:
            signal.raise_signal(number)


def ignore_signals() -> None:
    """Ignore STOP_SIGNALS: they reach every process of a terminal or a job, and a worker's parent decides for it."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # as `delay_signals` has left them


class _Handler:
    """Calls `act` at a signal, unless it came a moment ago, to this handler or to one that stood before it."""

    def __init__(self, act: Callable[[int], None], times: dict[int, float]):
        self.act, self.times = act, times

    def __call__(self, number: int, frame: FrameType | None) -> None:
        previous = self.times.get(number)
        self.times[number] = time.monotonic()
        if previous is None or self.times[number] - previous > _REPEAT_SECONDS:
            self.act(number)


@contextmanager
def _replace_handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    has_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    numbers = [number for number in STOP_SIGNALS if not (has_nohup and number == signal.SIGHUP)]
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, function in previous.items():
            signal.signal(number, function)
