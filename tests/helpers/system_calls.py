"""Runs code in a process that the kernel kills at its first forbidden system call: what it does not do is certain."""

import ctypes
import io
import os
import pickle
import platform
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

# numbers of Linux's system calls
_NUMBERS = {
    "x86_64": {"socket": (41,), "open": (2, 85, 257, 437)},  # open, creat, openat, openat2
    "aarch64": {"socket": (198,), "open": (56, 437)},
}
_LOAD_NUMBER, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # instructions of a packet filter
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2


def can_forbid_calls() -> bool:
    return sys.platform == "linux" and platform.machine() in _NUMBERS


class _Program(ctypes.Structure):
    _names = ("length", "filter")
    _fields_ = tuple(zip(_names, (ctypes.c_ushort, ctypes.c_void_p), strict=True))


def forbid_calls(*names: str) -> None:
    """Let the kernel kill this process at a call of these names: "socket", "open"."""
    numbers = [number for name in names for number in _NUMBERS[platform.machine()][name]]
    lines = [(_LOAD_NUMBER, 0, 0, 0)]
    lines += [(_JUMP_IF_EQUAL, len(numbers) - n, 0, number) for n, number in enumerate(numbers)]
    lines += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _KILL_PROCESS)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    process = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(lines), ctypes.addressof(code))
    if process.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or process.prctl(
        _SET_SECCOMP, _FILTER_MODE, ctypes.byref(program)
    ):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def call_without(names: tuple[str, ...], fn: Callable[[], Any]) -> Any:
    """Return what `fn` returns in a child process that is killed at a system call of these names.

    Raises:
        AssertionError: It called one, or ended otherwise.
    """
    if not can_forbid_calls():
        pytest.skip("system calls are counted on Linux, on x86-64 and ARM64")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            forbid_calls(*names)
            os.write(writing, pickle.dumps(fn()))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code != -signal.SIGSYS, f"a system call was made that none of {names} should be"
    assert (code, bool(answer)) == (0, True), "the process did not end as it should"
    return pickle.loads(answer)


def read_alone(fn: Callable[[Any], Any], *sources: Path | bytes) -> list[Any]:
    """Return `fn` of each source from a process that may open no socket and no file; paths are opened for it before."""
    with ExitStack() as stack:
        files = {each: stack.enter_context(each.open("rb", buffering=0)) for each in sources if isinstance(each, Path)}

        def give_opened(path: Path, *_: object, **__: object) -> io.FileIO:
            if path not in files:
                raise PermissionError(f"{path} is another file")
            files[path].seek(0)
            return io.FileIO(os.dup(files[path].fileno()))

        def call() -> list[Any]:
            Path.open = give_opened  # type: ignore[assignment, method-assign]
            return [fn(source) for source in sources]

        return call_without(("socket", "open"), call)
