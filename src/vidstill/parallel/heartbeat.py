"""How a worker process tells its parent that it makes progress: counters in memory that the parent reads."""

import ctypes

Heartbeat = ctypes.Array[ctypes.c_longlong]
"""The ticket of the task that a worker is at, -1 for none, and the number of its heartbeats."""

TICKET_INDEX, BEATS_INDEX = 0, 1

_heartbeat: Heartbeat | None = None  # this process's, if it is a worker


def set_heartbeat(heartbeat: Heartbeat) -> None:
    """Make `send_heartbeat` count in this memory."""
    global _heartbeat
    _heartbeat = heartbeat


def send_heartbeat() -> None:
    """Report progress from within a long task, so that it is not killed; does nothing outside of a worker."""
    if _heartbeat is not None:
        _heartbeat[BEATS_INDEX] += 1
