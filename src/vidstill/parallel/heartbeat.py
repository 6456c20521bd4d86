"""How a worker process says that it makes progress, in memory that its parent reads."""

import ctypes

Heartbeat = ctypes.Array[ctypes.c_longlong]
"""What a worker is at: the ticket that it works on, -1 for none, and its heartbeats."""

TICKET_INDEX, BEATS_INDEX = 0, 1

_heartbeat: Heartbeat | None = None  # this process's own, where it is a worker


def set_heartbeat(heartbeat: Heartbeat) -> None:
    """Make `send_heartbeat` count in this memory, which the parent reads."""
    global _heartbeat
    _heartbeat = heartbeat


def send_heartbeat() -> None:
    """Say from within long work that it makes progress; does nothing outside of a worker."""
    if _heartbeat is not None:
        _heartbeat[BEATS_INDEX] += 1
