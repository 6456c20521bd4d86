"""Programs in processes as new as a command's, from one that has read the package before: they start in a tenth of the
time, and kill themselves at a stated moment."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from vidstill.cli.main import main
from vidstill.utils.files import PARTIAL_SUFFIX

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["vidstill.cli.verbs", "torch._dynamo"])  # the latter is imported in a first step

MOMENTS = ("before a file is flushed", "with half a file written", "before a file is renamed")
"""At the n-th time of each, a program can kill itself."""


class FreshProgram:
    """A command line in a process of its own, of one thread.

    Args:
        arguments: As they are typed after `vidstill`.
        moment: One of MOMENTS, at which the program kills itself; empty: it does not.
        number: At which time.
        counts: A file for how often each moment came, at the end; None: it is not written.
    """

    def __init__(self, arguments: list[str], *, moment: str = "", number: int = 0, counts: Path | None = None):
        self.process = _SERVER.Process(target=_run, args=(arguments, moment, number, counts))
        self.process.start()

        self.is_alive = self.process.is_alive

    def end(self) -> int:
        """Wait for the end, and return the exit code, negative for a signal."""
        self.process.join()
        return self.process.exitcode

    def kill(self) -> int:
        """Kill it, and return its exit code: -9 unless it had ended before."""
        self.process.kill()
        return self.end()


def _run(arguments: list[str], moment: str, number: int, counts: Path | None) -> None:
    torch.set_num_threads(1)
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    calls = dict.fromkeys(MOMENTS, 0)
    fsync, replace = os.fsync, os.replace

    def reach(name: str) -> bool:
        calls[name] += 1
        return (name, calls[name]) == (moment, number)

    def flush(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if reach(MOMENTS[0]):
            _die()
        if path.endswith(PARTIAL_SUFFIX) and reach(MOMENTS[1]):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)  # as a power cut may leave it
            _die()
        fsync(descriptor)

    def rename(*paths: Any, **options: Any) -> None:
        if reach(MOMENTS[2]):
            _die()
        replace(*paths, **options)

    os.fsync, os.replace = flush, rename
    code = main(arguments)
    if counts:
        counts.write_text("\n".join(map(str, calls.values())))
    sys.stdout.flush()
    os._exit(code)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
