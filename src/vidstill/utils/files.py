"""Files that are complete or absent: atomic writes, locks."""

import fcntl
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from vidstill.utils.text import format_one_line
from vidstill.utils.types import InputError

FileContent = bytes | Iterable[bytes]
"""The content of a file: at once, or in chunks."""

RECIPE_FILE = "recipe.json"
TEST_FILE = "test.json"
START_FILE = "start.json"
PRETRAINING_DIR = "pretraining"

PARTIAL_SUFFIX = ".part"
"""Suffix of a file that is being written, or that a killed process left unfinished."""

LOCK_SECONDS = 2.0
"""A lock is waited for so long: its owner may be about to end."""

_MAX_STEM_LENGTH = 56  # characters of a file's name, without its suffix
_UNSAFE_CHARACTERS = re.compile(r"[^\w.,()+@=-]+")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is complete and on the disk after the block, or absent if the block raises.

    The bytes go to `path.part` beside it, whose name is the file's `name`; missing parent directories are made.

    Raises:
        InputError: The file cannot be written (what stood there is unchanged), or another process is writing it.
    """
    temporary = path.with_name(path.name + PARTIAL_SUFFIX)
    with convert_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_locked(temporary) as file:
            try:
                if file.seek(0, os.SEEK_END):
                    file.truncate(0)  # a killed process has left bytes
                file.seek(0)
                yield file
                file.flush()
                rename_durably(temporary, path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise


def write_bytes(path: Path, content: FileContent) -> None:
    """Write a file atomically, as `atomic_write` does."""
    with atomic_write(path) as file:
        file.writelines([content] if isinstance(content, bytes) else content)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def rename_durably(source: Path, target: Path) -> None:
    """Rename a closed or flushed file, or a directory, and have its content on the disk before, its new name after."""
    _sync(source)
    os.replace(source, target)
    with suppress(OSError):  # some network file systems cannot
        _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_locked(path: Path) -> BinaryIO:
    """Open a file for reading and writing at its start, made if absent, and lock it until it is closed.

    The output that it belongs to has a lock of its own (`locks`), which also holds where the file system has none.
    Worker processes share the lock of the process that forked them; where that one was killed, they end a moment later.

    Raises:
        InputError: Another process holds the lock.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        file = open(path, "r+b", opener=_open_or_create)  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            if time.monotonic() > deadline:
                raise InputError(f"{path} is being written by another process; wait until it ends") from None
            time.sleep(0.05)
            continue
        except OSError:
            return file  # some network file systems have no locks
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # the process that held the lock has renamed or deleted the file


def _open_or_create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


@contextmanager
def convert_write_errors(path: Path) -> Iterator[None]:
    """Raise an OSError of the block as an InputError that names the path and how to mend it."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); free disk space or make it writable, then run the "
            "same command again"
        ) from error


def check_output_file(path: Path, option: str = "--out") -> None:
    """Raise an InputError before the work if a file, and the missing directories above it, cannot be written."""
    if path.is_dir():
        raise InputError(f"{path} is a directory; choose the path of a file with {option}")
    existing = next(each for each in path.absolute().parents if os.path.lexists(each))
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise InputError(f"{path} cannot be written; choose another path with {option}")


def find_difference(previous: Any, current: Any, key: str = "") -> str:
    """Return the first difference as `recipe.batch is 64, here it is 32`, or an empty string.

    Entries that `current` lacks are ignored; a mapping with a `fingerprint` is compared by it alone.
    """
    if not (isinstance(previous, Mapping) and isinstance(current, Mapping)):
        same = previous == current or previous == json.loads(json.dumps(current))  # a tuple is read back as a list
        before, now = (format_one_line(str(value), 80) for value in (previous, current))
        return "" if same else f"{key} is {before}, here it is {now}"
    if "fingerprint" in current:
        same = previous.get("fingerprint") == current["fingerprint"]
        return "" if same else f"{key} differs, or has changed since; it was {previous.get('source')}"
    each = (find_difference(previous.get(name), current[name], f"{key}.{name}".lstrip(".")) for name in current)
    return next(filter(None, each), "")


def make_file_stems(names: Sequence[str]) -> list[str]:
    """Return one file name without suffix per video: safe on every file system, all different."""
    stems: list[str] = []
    used: set[str] = set()
    for name in names:
        last = name.rstrip("/").rpartition("/")[2]
        base = _UNSAFE_CHARACTERS.sub("_", last.rpartition(".")[0] or last).lstrip(".")[:_MAX_STEM_LENGTH] or "video"
        stem, number = base, 1
        while stem.casefold() in used:
            number += 1
            stem = f"{base}-{number}"
        used.add(stem.casefold())
        stems.append(stem)
    return stems


def get_package_version(package: str) -> str:
    """Return the installed version, or "unknown" where the package runs from its source tree."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
