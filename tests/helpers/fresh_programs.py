"""Programs in processes as new as a command's, from one that has read the package before: they start in a tenth of the
time, alone or as the ranks of one run, and can kill themselves at a stated moment."""

import gc
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from vidstill.cli.main import main
from vidstill.utils.files import PARTIAL_SUFFIX

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [  # what a verb and its work import, which is most of a short run's time
        *(f"vidstill.cli.{verbs}" for verbs in ("data", "detect", "infer", "options", "probe", "recipes", "train")),
        *(f"vidstill.pipelines.train.{work}" for work in ("detector", "finetune", "pretrain")),
        *("vidstill.pipelines.evaluate.classifier", "vidstill.pipelines.probe.run"),
        *("matplotlib.figure", "torch.utils.tensorboard", "torch._dynamo"),  # the latter is imported in a first step
    ]
)

MOMENTS = ("before a file is flushed", "with half a file written", "before a file is renamed")
"""At the n-th time of each, a program can kill itself."""


class FreshProgram:
    """A command line in a process of its own, of one thread.

    Args:
        arguments: As they are typed after `vidstill`.
        printed: A file for what it prints.
        moment: One of MOMENTS, at which the program kills itself; empty: it does not.
        number: At which time.
        counts: A file for how often each moment came, at the end; None: it is not written.
    """

    def __init__(
        self, arguments: list[str], printed: Path, *, moment: str = "", number: int = 0, counts: Path | None = None
    ):
        self.process = start_fresh(_run_program, arguments, moment, number, counts, printed=printed)
        self.is_alive = self.process.is_alive

    def end(self) -> int:
        """Wait for the end, and return the exit code, negative for a signal."""
        self.process.join()
        return self.process.exitcode

    def kill(self) -> int:
        """Kill it, and return its exit code: -9 unless it had ended before."""
        self.process.kill()
        return self.end()


def start_fresh(
    function: Callable[..., object], *args: Any, environment: Mapping[str, str] = {}, printed: Path | None = None
) -> Any:
    """Start a function in a new process; what it returns is the exit code.

    Args:
        environment: Variables that are set before.
        printed: A file for what it prints; None: it prints where the tests do.
    """
    process = _SERVER.Process(target=_run, args=(function, args, dict(environment), printed))
    process.start()
    return process


def run_ranks(
    function: Callable[..., object], *args: Any, world_size: int = 2, printed: Path | None = None
) -> list[int]:
    """Run a function in the ranks of one run, as `torchrun` starts them, to its end; return their exit codes.

    Args:
        printed: A file for what they print; None: they print where the tests do.
    """
    environments: list[dict[str, object]] = [{}]
    if world_size > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": world_size}
        ranks = range(world_size)
        environments = [{**shared, "WORLD_SIZE": world_size, "RANK": rank, "LOCAL_RANK": rank} for rank in ranks]
    processes = [
        start_fresh(function, *args, environment={k: str(v) for k, v in each.items()}, printed=printed)
        for each in environments
    ]
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _run(
    function: Callable[..., object], args: tuple[Any, ...], environment: dict[str, str], printed: Path | None
) -> None:
    gc.freeze()  # what was imported stays: no collection walks it, which would copy its memory
    os.environ.update(environment)
    torch.set_num_threads(1)
    if printed:
        sys.stdout = sys.stderr = printed.open("a", buffering=1)
    code = function(*args)
    sys.stdout.flush()
    os._exit(int(code or 0))  # type: ignore[call-overload]


def _run_program(arguments: list[str], moment: str, number: int, counts: Path | None) -> int:
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
            os.truncate(path, os.fstat(descriptor).st_size // 2)  # as a power cut may leave it
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
    return code


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
