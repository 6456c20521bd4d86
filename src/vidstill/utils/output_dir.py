"""Output directories: made for one work, locked while it goes on, their complete files listed with checksums."""

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidstill.utils.checksums import (
    CHECKSUMS_FILE,
    SIDECAR_SUFFIX,
    forget_checksums,
    read_checksums,
    record_checksums,
    verify_file,
)
from vidstill.utils.files import (
    PARTIAL_SUFFIX,
    TEST_FILE,
    FileContent,
    convert_write_errors,
    find_difference,
    write_bytes,
    write_json,
)
from vidstill.utils.locks import LOCK_FILE, hold_lock
from vidstill.utils.types import InputError


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
    path = out / marker
    with lock_output_dir(out, kind=kind, marker=marker):
        if not path.is_file():
            write_json(path, {**identity, **(metadata or {})})
        else:
            verify_file(out, path, mend="restore it from a copy, or choose another directory")
            try:
                previous = dict(json.loads(path.read_text("utf-8")))
            except (ValueError, TypeError):
                raise InputError(f"{path} is damaged; choose another directory") from None
            if difference := find_difference(previous, identity):
                raise InputError(f"{out} holds {kind} with other settings ({difference}); choose another directory")
        if marker not in read_checksums(out):
            record_checksums(out, [path])
        yield


@contextmanager
def lock_output_dir(out: Path, *, kind: str, marker: str, earlier: Collection[str] = ()) -> Iterator[None]:
    """Make a directory, or check that it holds earlier work of this kind, and lock it during the block.

    Args:
        kind, marker, earlier: As for `check_output_dir`.

    Raises:
        InputError: As for `check_output_dir`, or another process is writing it.
    """
    check_output_dir(out, kind, marker, earlier=earlier)
    with hold_lock(out / LOCK_FILE, out):
        yield


def check_output_dir(
    out: Path, kind: str, marker: str, files: Collection[str] = (), *, earlier: Collection[str] = ()
) -> None:
    """Raise an InputError unless `out` can be made, is empty, or holds earlier results of this kind; before the work.

    Args:
        kind: What will be written there, for messages: "predictions".
        marker: A file that such a directory has when it is complete.
        files: Names of all other files that it can have; if empty, they are not checked.
        earlier: Names of what may have been written there before the marker.
    """
    existing = next(each for each in (out.absolute(), *out.absolute().parents) if os.path.lexists(each))
    if existing == out.absolute() and not existing.is_dir():
        raise InputError(f"{out} is a file; choose a directory")
    if not (existing.is_dir() and os.access(existing, os.R_OK | os.W_OK | os.X_OK)):
        raise InputError(f"{out} cannot be written; choose another directory")
    if existing != out.absolute():
        return
    names = {each.name.removesuffix(PARTIAL_SUFFIX) for each in out.iterdir() if not each.name.startswith(".")}
    names -= set(earlier)
    if not (names <= {marker, CHECKSUMS_FILE, *files} or ((out / marker).is_file() and not files)):
        raise InputError(f"{out} exists and holds something else than {kind}; choose another directory")


def forget_results(out: Path, marker: str) -> None:
    """Leave only the marker in the list of checksums, while the other files of a directory are written again."""
    forget_checksums(out, [out / name for name in read_checksums(out) if name != marker])


def record_results(out: Path) -> None:
    """List the checksums of the files of a directory that are not listed yet; not of those in its subdirectories."""
    others, listed = (PARTIAL_SUFFIX, SIDECAR_SUFFIX, CHECKSUMS_FILE), read_checksums(out)
    paths = [path for path in out.iterdir() if not path.name.startswith(".") and not path.name.endswith(others)]
    new = [path for path in paths if path.name not in listed and path.is_file()]
    with convert_write_errors(out):
        if new:
            record_checksums(out, new)


def write_result_dir(
    out: Path, files: Mapping[str, Callable[[], FileContent]], result: Any, *, obsolete: Collection[str] = ()
) -> None:
    """Write the files of an evaluation; TEST_FILE comes last, so that its presence says that all others are complete.

    Args:
        files: Functions that make the content, by file name.
        result: The metrics, as JSON values.
        obsolete: Names of files that an earlier evaluation may have written, and this one does not.
    """
    names = (TEST_FILE, *files)
    forget_checksums(out, [out / name for name in (*names, *obsolete)])
    for name in (*names, *obsolete):
        with convert_write_errors(out):
            (out / name).unlink(missing_ok=True)  # of an earlier evaluation
    for name, content in files.items():
        write_bytes(out / name, content())
    write_json(out / TEST_FILE, result)
    record_checksums(out, [out / name for name in names])


def read_result(out: Path) -> dict[str, Any]:
    """Return the metrics that `write_result_dir` wrote.

    Raises:
        InputError: The file is damaged.
    """
    path, mend = out / TEST_FILE, "delete it and run the same command again, which tests again"
    verify_file(out, path, mend=mend)
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        raise InputError(f"{path} cannot be read; {mend}") from None
