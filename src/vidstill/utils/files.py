"""Files and directories that are complete or absent: atomic writes, output directories, locks."""

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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

PARTIAL_SUFFIX = ".part"
"""Suffix of a file that is being written, or that a killed process left unfinished."""

_LOCK_FILE = ".lock"
_LOCK_SECONDS = 2.0  # waited for a lock
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
                os.fsync(file.fileno())
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
    """Rename a file or a directory whose content is on the disk, and have the new name on the disk too."""
    os.replace(source, target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(directory)
    finally:
        os.close(directory)


def open_locked(path: Path, owner: Path | None = None) -> BinaryIO:
    """Open a file for reading and writing at its start, made if absent, and lock it until it is closed.

    Worker processes share the lock of the process that forked them; where that one was killed, they end a moment later.

    Args:
        owner: What the file locks, for the error; None: the file itself.

    Raises:
        InputError: Another process holds the lock.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        file = open(path, "r+b", opener=_open_or_create)  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            if time.monotonic() > deadline:
                raise InputError(f"{owner or path} is being written by another process; wait until it ends") from None
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


@contextmanager
def open_output_dir(
    out: Path, identity: Mapping[str, Any], *, kind: str, marker: str, metadata: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Make a directory for this work, or check that it was made for the same work, and lock it during the block.

    Args:
        identity: What decides the content; written to `marker`, and compared with what an earlier call wrote. A dataset
            in it is a mapping with a `fingerprint`, and only this is compared.
        kind: What the directory holds, for messages: "a run".
        marker: Name of the JSON file that says so.
        metadata: Further facts for this file, which are not compared.

    Raises:
        InputError: The directory holds something else (it is unchanged then), another process is writing it, or it
            cannot be written.
    """
    check_output_dir(out, kind, marker)
    path, lock = out / marker, out / _LOCK_FILE
    with convert_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        file = open_locked(lock, owner=out)
    with file:
        try:
            if not path.is_file():
                write_json(path, {**identity, **(metadata or {})})
            else:
                try:
                    previous = dict(json.loads(path.read_text("utf-8")))
                except (ValueError, TypeError):
                    raise InputError(f"{path} is damaged; choose another directory") from None
                if difference := find_difference(previous, identity):
                    raise InputError(f"{out} holds {kind} with other settings ({difference}); choose another directory")
            yield
        finally:
            with suppress(OSError):
                lock.unlink()


def check_output_dir(out: Path, kind: str, marker: str, files: Collection[str] = ()) -> None:
    """Raise an InputError unless `out` can be made, is empty, or holds earlier results of this kind; before the work.

    Args:
        kind: What will be written there, for messages: "predictions".
        marker: A file that such a directory has when it is complete.
        files: Names of all other files that it can have; if empty, they are not checked.
    """
    existing = next(each for each in (out.absolute(), *out.absolute().parents) if os.path.lexists(each))
    if existing == out.absolute() and not existing.is_dir():
        raise InputError(f"{out} is a file; choose a directory")
    if not (existing.is_dir() and os.access(existing, os.R_OK | os.W_OK | os.X_OK)):
        raise InputError(f"{out} cannot be written; choose another directory")
    if existing != out.absolute():
        return
    names = {each.name.removesuffix(PARTIAL_SUFFIX) for each in out.iterdir() if not each.name.startswith(".")}
    if not (names <= {marker, *files} or ((out / marker).is_file() and not files)):
        raise InputError(f"{out} exists and holds something else than {kind}; choose another directory")


def check_output_file(path: Path, option: str = "--out") -> None:
    """Raise an InputError before the work if a file, and the missing directories above it, cannot be written."""
    if path.is_dir():
        raise InputError(f"{path} is a directory; choose the path of a file with {option}")
    existing = next(each for each in path.absolute().parents if os.path.lexists(each))
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise InputError(f"{path} cannot be written; choose another path with {option}")


def write_result_dir(out: Path, files: Mapping[str, Callable[[], FileContent]], result: Any) -> None:
    """Write the files of an evaluation; TEST_FILE comes last, so that its presence says that all others are complete.

    Args:
        files: Functions that make the content, by file name.
        result: The metrics, as JSON values.
    """
    for name in (TEST_FILE, *files):
        with convert_write_errors(out):
            (out / name).unlink(missing_ok=True)  # of an earlier evaluation
    for name, content in files.items():
        write_bytes(out / name, content())
    write_json(out / TEST_FILE, result)


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
