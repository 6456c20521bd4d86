"""What is compared, a side, in a process of its own, which computes only while the measurement calls it."""

import multiprocessing
import os
import re
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch

from vidstill.engine.distributed import Runtime
from vidstill.engine.matmul_limit import synchronize
from vidstill.utils.signals import ignore_signals
from vidstill.utils.types import InputError

_CONTEXT = multiprocessing.get_context("spawn")  # a fork would share the parent's threads and device
_STATUS = Path("/proc/self/status")
_EXIT_SECONDS = 5.0


class Side(ABC):
    """Work that is repeated: a training step, or a forward pass.

    Args:
        device: Where it runs.
    """

    def __init__(self, device: torch.device):
        self.device = device

    @abstractmethod
    def run(self) -> None:
        """Do the work once."""

    def time(self, count: int) -> float:
        """Return the seconds that the work takes: the mean of so many repetitions."""
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(count):
            self.run()
        synchronize(self.device)
        return (time.perf_counter() - start) / count

    def describe(self) -> Any:
        """Return what is known of the work besides its time and memory; nothing, if this is not measured."""
        return None


class SideProcess:
    """A side's process: started with everything imported and built, ended by leaving the context.

    Args:
        build: Makes the side, in the process; it is pickled.
    """

    def __init__(self, build: Callable[[], Side]):
        self._pipe, child_pipe = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(child_pipe, build))  # it has children itself
        self._process.start()
        child_pipe.close()

    def __enter__(self) -> "SideProcess":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join(_EXIT_SECONDS)

    def call(self, name: str, *args: Any) -> Any:
        """Call a method of the side, or `read_memory`, and return its result.

        Raises:
            InputError: The side raised it, or has not enough memory.
        """
        try:
            self._pipe.send((name, args))
            is_error, value = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(_EXIT_SECONDS)
            raise InputError(
                f"the measuring process ended (exit code {self._process.exitcode}): most likely the memory did not "
                "suffice; take a smaller --device-batch"
            ) from None
        if is_error:
            raise value
        return value


def _serve(pipe: Connection, build: Callable[[], Side]) -> None:
    """Answer calls until the parent closes the pipe or dies."""
    ignore_signals()  # the parent ends this process
    _import_what_training_imports()
    before, side = _read_memory("VmRSS"), None
    while True:
        try:
            name, args = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        try:
            side = side or build()
            value = _measure_memory(side.device, before) if name == "read_memory" else getattr(side, name)(*args)
            pipe.send((False, value))
        except Exception as error:
            pipe.send((True, _describe(error)))


def _import_what_training_imports() -> None:
    """Take a step with one number, so that code which is imported late does not count as the work's memory."""
    Runtime()
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()


def _describe(error: Exception) -> Exception:
    """Return an error that can be sent, with what it means to the user if it is known."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return InputError("the device has not enough memory for this batch; take a smaller --device-batch")
    return RuntimeError(f"{error!r} in a measuring process:\n{traceback.format_exc()}")


def _measure_memory(device: torch.device, before: int) -> int:
    """Return the peak of the memory that the work took, in bytes: on the device, or of the process beside its code."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _read_memory("VmHWM") - before


def _read_memory(name: str) -> int:
    """Return a size of this process in bytes, as Linux counts it; 0 on other systems."""
    match = re.search(rf"^{name}:\s*(\d+) kB", _STATUS.read_text() if _STATUS.is_file() else "", re.MULTILINE)
    return 1024 * int(match[1]) if match else 0


class Timing(NamedTuple):
    """What a side took."""

    seconds: list[float]  # of one repetition, in each round
    memory_bytes: int  # peak


def time_in_turns(
    sides: Mapping[Any, SideProcess],
    *,
    rounds: int,
    turn_seconds: float,
    begin_round: Callable[[int], None],
) -> dict[Any, Timing]:
    """Time sides in rounds, in each of which every side has its turn, in the reverse order every second round.

    Args:
        sides: Their processes.
        rounds: After two repetitions of each side that are not counted.
        turn_seconds: Of a side's turn: it repeats its work as often as fits, at least once.
        begin_round: Called before each round, with its number.

    Returns:
        The timing of each side.
    """
    counts, seconds = {}, {key: list[float]() for key in sides}
    for key, side in sides.items():
        side.call("time", 1)  # allocates, and compiles what is compiled
        counts[key] = max(1, round(turn_seconds / side.call("time", 1)))
    for number in range(rounds):
        begin_round(number)
        for key in order_turns(list(sides), number):
            seconds[key].append(sides[key].call("time", counts[key]))
    return {key: Timing(seconds[key], side.call("read_memory")) for key, side in sides.items()}


def order_turns(keys: list[Any], round_number: int) -> list[Any]:
    """Return the order of a round, so that no side always follows the same one."""
    return keys[::-1] if round_number % 2 else keys
