"""Locks of outputs: while one process writes a file or a directory, another is refused; the message names the writer.

A lock is a file with a record of its owner. Where the file system has locks, the kernel's lock on this file decides,
which ends with its process; elsewhere the record does: an owner on this machine is looked up, and one on another
machine refreshes its record, which is stale after `STALE_SECONDS`.
"""

import fcntl
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from vidstill.utils.files import LOCK_SECONDS, convert_write_errors
from vidstill.utils.text import format_one_line
from vidstill.utils.types import InputError

LOCK_FILE = ".lock"
"""In a directory that is locked as a whole."""

STALE_SECONDS = 120.0
"""On a file system without locks, an owner on another machine that has not refreshed its record for so long is gone."""

REFRESH_SECONDS = 15.0
"""After so long an owner refreshes its record there."""

_SETTLE_SECONDS = 1.0  # after a stale record is replaced: another process may be replacing it too
_OWNER_SUFFIX = ".owner"  # of the record that is itself the lock, where the file system has none
_PROC = Path("/proc")

Owner = dict[str, Any]

_open_locks: set[int] = set()  # descriptors; a forked process closes them, so that its parent alone has the locks


_holders: set[tuple[str, int]] = set()  # the path of each lock that this process holds, and the thread that took it


def _close_inherited_locks() -> None:
    _holders.clear()
    while _open_locks:
        os.close(_open_locks.pop())


os.register_at_fork(after_in_child=_close_inherited_locks)


@contextmanager
def lock_outputs(*outputs: Path | None) -> Iterator[None]:
    """Keep other processes from these files or directories during the block; the lock of `a/out` is `a/.out.lock`.

    Args:
        outputs: They need not exist; None is ignored.

    Raises:
        InputError: Another process has locked one of them.
    """
    with ExitStack() as stack:
        for real in sorted({Path(os.path.realpath(each)) for each in outputs if each is not None}):
            is_sibling = os.access(real.parent, os.W_OK) or not real.is_dir()
            path = real.with_name(f".{real.name}{LOCK_FILE}") if is_sibling else real / LOCK_FILE
            missing = [each for each in path.parents if not each.exists()]
            stack.callback(_remove_empty_directories, missing)
            stack.enter_context(hold_lock(path, real))
        yield


@contextmanager
def hold_lock(path: Path, output: Path) -> Iterator[None]:
    """Hold a lock file during the block; its directory is made. A thread that holds it already goes on.

    Args:
        output: What it locks, for the message.

    Raises:
        InputError: Another process holds it, or the file cannot be written.
    """
    deadline, pid = time.monotonic() + LOCK_SECONDS, os.getpid()
    holder = os.path.realpath(path), threading.get_ident()
    if holder in _holders:
        yield
        return
    with convert_write_errors(output):
        path.parent.mkdir(parents=True, exist_ok=True)
        while (release := _try_lock(path)) is None:
            if time.monotonic() > deadline:
                raise InputError(f"{output} is being written by {_describe_owner(path)}; wait until it ends, or end it")
            time.sleep(0.05)
    _holders.add(holder)
    try:
        yield
    finally:
        _holders.discard(holder)
        if os.getpid() == pid:  # a forked process has no part in it
            release.close()


def _try_lock(path: Path) -> ExitStack | None:
    """Return the lock, to be closed at its end; None if another process has it, or had it a moment ago."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError:  # some network file systems have no locks
            return _try_lock_by_record(path, descriptor)
        try:
            if not os.path.samestat(os.fstat(descriptor), path.stat()):
                return None
        except FileNotFoundError:
            return None  # the process that held the lock has deleted the file
        stack.callback(_open_locks.discard, descriptor)
        _open_locks.add(descriptor)
        stack.callback(path.unlink, missing_ok=True)  # while it is locked
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, _encode_owner(), 0)
        return stack.pop_all()


def _try_lock_by_record(path: Path, descriptor: int) -> ExitStack | None:
    """Take the lock by a record of this process, which replaces a stale one; None if it has another living owner."""
    record, mine = path.with_name(path.name + _OWNER_SUFFIX), _encode_owner()
    os.utime(descriptor)
    now = os.fstat(descriptor).st_mtime  # by the clock of the file server
    try:
        file = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        stale = _read_record(record)
        try:
            age = now - record.stat().st_mtime
        except FileNotFoundError:
            return None  # its owner has just ended
        if not _is_gone(stale, age) or _read_record(record) != stale:
            return None
        draft = record.with_name(f"{record.name}.{socket.gethostname()}.{os.getpid()}")
        draft.write_bytes(mine)
        os.replace(draft, record)
        time.sleep(_SETTLE_SECONDS)
    else:
        os.write(file, mine)
        os.close(file)
    if _read_record(record) != mine:
        return None
    with ExitStack() as stack:
        stack.callback(path.unlink, missing_ok=True)
        stack.callback(_remove_record, record, mine)
        stop = threading.Event()
        stack.callback(stop.set)
        threading.Thread(target=_refresh, args=(record, stop), name="vidstill lock", daemon=True).start()
        return stack.pop_all()


def _refresh(record: Path, stop: threading.Event) -> None:
    while not stop.wait(REFRESH_SECONDS):
        with suppress(OSError):
            os.utime(record)


def _remove_record(record: Path, mine: bytes) -> None:
    if _read_record(record) == mine:  # and not of another process, which took this one for gone
        record.unlink(missing_ok=True)


def _is_gone(record: bytes, age: float) -> bool:
    """Return whether the owner has ended: as this machine says of its own processes, or by the age of the record."""
    owner, this = _parse_owner(record), _get_owner()
    if not this["start"] or any(owner.get(name) != this[name] for name in ("host", "pid_namespace")):
        return age > STALE_SECONDS
    return owner.get("boot") != this["boot"] or owner.get("start") != _get_start(int(owner["pid"]))


def _encode_owner() -> bytes:
    return (json.dumps(_get_owner()) + "\n").encode()


def _get_owner() -> Owner:
    """Return a record of this process, by which it differs from a later one with the same number."""
    program, *arguments = sys.argv or [""]
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start": _get_start(os.getpid()),
        "boot": _read_text(_PROC / "sys/kernel/random/boot_id"),
        "pid_namespace": _get_pid_namespace(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "command": shlex.join([os.path.basename(program), *arguments]),
    }


def _get_start(pid: int) -> str:
    """Return when a process was started, in ticks since the machine's start; empty if there is none."""
    return " ".join(_read_text(_PROC / str(pid) / "stat").rpartition(")")[2].split()[19:20])


def _get_pid_namespace() -> str:
    with suppress(OSError):
        return os.readlink(_PROC / "self/ns/pid")
    return ""


def _read_text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""


def _read_record(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""


def _parse_owner(record: bytes) -> Owner:
    with suppress(ValueError):
        if isinstance(owner := json.loads(record), dict):
            return owner
    return {}


def _describe_owner(path: Path) -> str:
    """Return `process 4711 on node3 since … (command)`, as far as it is known."""
    owner = _parse_owner(_read_record(path)) or _parse_owner(_read_record(path.with_name(path.name + _OWNER_SUFFIX)))
    if not {"pid", "host", "since", "command"} <= owner.keys():
        return "another process"
    text = f"process {owner['pid']} on {owner['host']} since {owner['since']} ({owner['command']}"
    return f"{format_one_line(text, 240)})"


def _remove_empty_directories(directories: list[Path]) -> None:
    """Remove the directories that were made for a lock and hold nothing else."""
    with suppress(OSError):
        for each in directories:
            each.rmdir()
