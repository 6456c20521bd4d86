"""How a worker process says that it makes progress, in memory that its parent reads."""

import ctypes

Progress = ctypes.Array[ctypes.c_longlong]
"""What a worker is at: the ticket that it works on, -1 for none, and its heartbeats."""

TICKET, BEATS = 0, 1

_progress: Progress | None = None  # this process's own, where it is a worker


def set_progress(progress: Progress) -> None:
    """Make `beat` count in this memory, which the parent reads."""
    global _progress
    _progress = progress


def beat() -> None:
    """Say from within long work that it makes progress; does nothing outside of a worker."""
    if _progress is not None:
        _progress[BEATS] += 1
