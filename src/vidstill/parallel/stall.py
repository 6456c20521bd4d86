"""Whether a process that makes no progress waits for storage: then its task is not at fault (Linux; elsewhere: no)."""

import os
from contextlib import suppress
from pathlib import Path

_READ_CALLS = {  # opening, reading and looking up files, by their numbers in Linux's tables of system calls
    "x86_64": {0, 2, 3, 4, 5, 6, 8, 17, 19, 21, 78, 89, 217, 257, 262, 267, 295, 332, 437, 439},
    "aarch64": {48, 56, 57, 61, 62, 63, 65, 67, 69, 78, 79, 80, 291, 437, 439},
}
_CALLS_WITH_FILE = {"x86_64": {0, 3, 5, 8, 17, 19, 217, 295}, "aarch64": {57, 61, 62, 63, 65, 67, 69, 80}}
_UNINTERRUPTIBLE = "D"  # the state of a process that waits for a disk or a file server


def read_cpu_seconds(pid: int) -> float | None:
    """Return the CPU time that all threads of a process have used; None where the system does not say it."""
    fields = _read_stat(f"/proc/{pid}/stat")
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else None


def find_stalled_read(pid: int) -> str | None:
    """Return the file that a process waits for, or "a file" if its name is unknown; None: it waits for something else.

    It waits for storage if one of its threads is in uninterruptible sleep, or if its main thread sleeps in a system
    call that reads a file.
    """
    machine = os.uname().machine
    with suppress(OSError, ValueError, IndexError):
        words = Path(f"/proc/{pid}/syscall").read_text().split()  # "running", or the call's number and its arguments
        if words[0].isdigit() and int(words[0]) in _READ_CALLS.get(machine, ()):
            if int(words[0]) not in _CALLS_WITH_FILE[machine]:
                return "a file"
            target = os.readlink(f"/proc/{pid}/fd/{int(words[1], 16)}")  # asks the kernel, not the storage
            return target if target.startswith("/") else None  # not a pipe or a socket
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            if _read_stat(f"/proc/{pid}/task/{task}/stat")[:1] == [_UNINTERRUPTIBLE]:
                return "a file"
    return None


def _read_stat(path: str) -> list[str]:
    """Return the fields of a process or a thread, its state first; empty if it is gone."""
    with suppress(OSError):
        return Path(path).read_text().rpartition(")")[2].split()
    return []
