"""A run's folder: whose it is, and what is written into it, complete or absent."""

import fcntl
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from vidstill.utils.types import InputError

FileContent = bytes | Iterable[bytes] | Callable[[BinaryIO], object]
"""Of a file: at once, piece by piece, or by what writes into it."""

RECIPE_FILE = "recipe.json"
TEST_FILE = "test.json"

PARTIAL_SUFFIX = ".part"
"""Ends the name of what a kill left unfinished."""

_MAX_STEM_LENGTH = 56  # letters of a file's name, without its suffix
_UNSAFE_CHARACTERS = re.compile(r"[^\w.,()+@=-]+")

_PACKAGES = ("vidstill", "torch", "torchvision", "av")  # which decide a run's numbers
_IDENTITY_KEYS = ("recipe", "init")  # of what RECIPE_FILE holds; the data are known by their fingerprints


def open_output_dir(out: Path, identity: Mapping[str, Any]) -> None:
    """Makes the folder this run's, or finds that it is.

    Args:
        identity: its `recipe`, its `data` (source and fingerprint of each part), its `init` if it has one; and what else is
            good to know.

    Raises:
        InputError: the folder holds something else, or cannot be written; it is as it was then.
    """
    path = out / RECIPE_FILE
    try:
        if path.is_file():
            _check_same_run(out, _read_run_metadata(path), identity)
        elif out.exists() and (
            not out.is_dir() or any(each.name != RECIPE_FILE + PARTIAL_SUFFIX for each in out.iterdir())
        ):
            raise InputError(f"{out} is there and is no run's folder; choose another folder with --out")
        else:
            out.mkdir(parents=True, exist_ok=True)
            write_json(path, {**identity, "versions": {name: get_package_version(name) for name in _PACKAGES}})
    except OSError as error:
        raise InputError(f"{out} cannot be written ({error.strerror}); choose another folder with --out") from error


def get_package_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # it is run from its source
        return "unknown"


def write_json(path: Path, value: Any) -> None:
    write_file_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def write_file_atomic(path: Path, content: FileContent) -> None:
    """Writes a file that is complete or absent, whatever happens meanwhile."""
    half = path.with_name(path.name + PARTIAL_SUFFIX)
    if isinstance(content, bytes):
        half.write_bytes(content)
    elif callable(content):
        with half.open("wb") as file:
            content(file)
    else:
        with half.open("wb") as file:
            file.writelines(content)
    os.replace(half, path)


def check_result_dir(directory: Path, names: Collection[str]) -> None:
    """Raises an InputError where findings cannot be left in a folder: before the work, not after it.

    Earlier ones are written over; a run's folder, or any that holds something else, is left alone.

    Args:
        names: of the files that will be left, beside TEST_FILE.
    """
    whole = directory.absolute()
    there = next(each for each in (whole, *whole.parents) if os.path.exists(each))
    if not (there.is_dir() and os.access(there, os.R_OK | os.W_OK | os.X_OK)):
        raise InputError(f"{directory} cannot be written; choose another folder with --out")
    known = {TEST_FILE, *names}
    if there == whole and any(each.name.removesuffix(PARTIAL_SUFFIX) not in known for each in directory.iterdir()):
        raise InputError(f"{directory} is there and holds something else than a test; choose another folder with --out")


def write_result_dir(directory: Path, files: Mapping[str, Callable[[], bytes | Iterable[bytes]]], result: Any) -> None:
    """Leaves all that a test found in a folder; TEST_FILE comes last, and says by being there that the rest is.

    Args:
        files: what makes each file.
        result: the numbers, as JSON has them.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name in (TEST_FILE, *files):
            (directory / name).unlink(missing_ok=True)  # of an earlier test
        for name, content in files.items():
            write_file_atomic(directory / name, content())
        write_json(directory / TEST_FILE, result)
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written ({error.strerror}); make room there, and type the same command again"
        ) from error


def check_file_writable(path: Path) -> None:
    """Raises an InputError where a file cannot be written: before the work, not after it."""
    half = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        half.touch()
        half.unlink()
    except OSError as error:
        raise make_write_error(path, error) from error


def write_file(path: Path, content: FileContent) -> None:
    """As `write_file_atomic`, and nothing unfinished is left.

    Raises:
        InputError: it cannot be written; what was there still is.
    """
    try:
        write_file_atomic(path, content)
    except OSError as error:
        path.with_name(path.name + PARTIAL_SUFFIX).unlink(missing_ok=True)
        raise make_write_error(path, error) from error


def write_file_with_parents(path: Path, content: FileContent) -> None:
    """As `write_file`; the folders above it are made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise make_write_error(path, error) from error
    write_file(path, content)


def check_parent_writable(path: Path) -> None:
    """Raises an InputError where nothing can be written there, nor the folders above it be made."""
    there = next(each for each in path.absolute().parents if os.path.lexists(each))
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise InputError(f"{path} cannot be written; choose another place with --out")


def check_output_file(path: Path) -> None:
    """As `check_file_writable`, with another sentence where it is a folder."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file, or a folder without a dot")
    check_file_writable(path)


def check_output_dir(out: Path, marker_file: str, description: str) -> None:
    """Raises an InputError where answers cannot be written into a folder, or where it holds something else.

    Args:
        marker_file: the name of a file that a folder of such answers has.
        description: they are, in words.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose another folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / marker_file).is_file():
        raise InputError(
            f"{out} is there and holds something else than {description}; choose another folder with --out"
        )
    there = next(each for each in (out.absolute(), *out.absolute().parents) if each.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(f"{out} cannot be written; choose another folder with --out")


def make_file_stems(names: Sequence[str]) -> list[str]:
    """A file's name without its suffix for each video: safe everywhere, each another, none that leaves a folder."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        last = name.rstrip("/").rpartition("/")[2]
        stem = numbered = (
            _UNSAFE_CHARACTERS.sub("_", last.rpartition(".")[0] or last).lstrip(".")[:_MAX_STEM_LENGTH] or "video"
        )
        number = 1
        while numbered.casefold() in taken:
            number += 1
            numbered = f"{stem}-{number}"
        taken.add(numbered.casefold())
        found.append(numbered)
    return found


def make_write_error(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written ({error.strerror or error}); make room, or choose another place")


def _read_run_metadata(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("data"), dict):
            return found
    except ValueError:
        pass
    raise InputError(f"{path} is not as a run writes it; choose another folder with --out")


def _check_same_run(out: Path, previous: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    for word in _IDENTITY_KEYS:
        if different := _find_first_difference(previous.get(word), current.get(word), word):
            raise InputError(f"{out} holds another recipe's run ({different}); choose another folder with --out")
    for part, data in current["data"].items():
        their = previous["data"].get(part) or {}
        if their.get("fingerprint") != data["fingerprint"]:
            what = {
                "train": "on other data",
                "val": "tested on other data",
                "watch": "watched on other data",
            }[part]
            raise InputError(
                f"{out} holds a run {what} ({their.get('source')}, as it was then); choose another folder with --out"
            )


def _find_first_difference(previous: Any, current: Any, key: str) -> str:
    """`recipe.batch is 64, here it is 32`, or nothing."""
    if isinstance(previous, dict) and isinstance(current, dict):
        each = (
            _find_first_difference(previous.get(name), current.get(name), f"{key}.{name}")
            for name in previous | current
        )
        return next(filter(None, each), "")
    return "" if previous == current else f"{key} is {previous}, here it is {current}"


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is complete and on the disk afterwards, or absent, whatever happens meanwhile.

    Raises:
        InputError: it cannot be written, of which nothing is left, or another process is writing it.
    """
    half = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        with open(os.open(half, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as file:
            if not _lock_file(file):
                raise InputError(f"{path} is being written by another process; wait for its end")
            try:
                yield file
                file.truncate()  # to what was written: a kill may have left more
                file.flush()
                os.fsync(file.fileno())
                half.replace(path)
            except BaseException:
                with suppress(OSError):  # a kill would leave it too
                    half.unlink()
                raise
        _fsync_directory(path.parent)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); make room, or make it writable: "
            "the same command goes on"
        ) from error


def _lock_file(file: BinaryIO) -> bool:
    """Keeps others from writing the file until it is closed; False if they do already."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # not every network drive knows how
    return True


def _fsync_directory(directory: Path) -> None:
    """Has the names in a folder on the disk, before anything is written that relies on them."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every network drive knows how
            os.fsync(handle)
    finally:
        os.close(handle)
