"""What may happen to a process that decodes, for tests that see what becomes of the others."""

import ctypes
import faulthandler
import os
import signal
from pathlib import Path

LIBC = ctypes.PyDLL(None)  # its functions are called without letting go of Python's lock


def hang() -> None:
    """In C, with Python's lock held, and deaf to every signal that can be ignored."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    LIBC.sleep(1000)


def kill(number: signal.Signals) -> None:
    """Ends this process."""
    faulthandler.disable()  # pytest has it say where
    os.kill(os.getpid(), number)


def once(flag: Path) -> bool:
    """Whether this is the first time that the flag is asked for, in any process."""
    try:
        flag.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def children() -> set[int]:
    """The processes that this one has begun and not buried, zombies among them."""
    return {int(n) for task in Path("/proc/self/task").iterdir() for n in (task / "children").read_text().split()}
