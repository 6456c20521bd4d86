"""Verify every file of runs: listed checksums, those beside states and in weights, the log's and TensorBoard's own."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from vidstill.checkpoints.io import MODEL_FILE, read_checkpoint, read_own_checksum
from vidstill.engine.checkpoint import DAMAGED_DIR, LOG_FILE, STATE_DIR, list_states, read_state
from vidstill.utils.checksums import (
    CHECKSUMS_FILE,
    SIDECAR_SUFFIX,
    VerificationReport,
    verify_directory,
    verify_sidecar,
)
from vidstill.utils.files import PARTIAL_SUFFIX, RECIPE_FILE
from vidstill.utils.types import InputError

_EVENTS_PREFIX = "events.out.tfevents."
_RUN_FILES = {RECIPE_FILE, MODEL_FILE}


def verify_runs(
    directory: Path, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> VerificationReport:
    """Verify every file of a run, or of all runs below a directory; nothing is changed.

    Args:
        progress: Called with the number of files that are verified, and of all files.

    Raises:
        InputError: There is no run.
    """
    if not directory.is_dir():
        raise InputError(f"there is no directory {directory}; give a run directory, or one that holds runs")
    files = list(_iter_files(directory))
    if not any(path.name in _RUN_FILES for path in files):
        raise InputError(f"{directory} holds no run; give a run directory, or one that holds runs")
    problems: dict[Path, str] = {}  # of each verified file; empty: it is good
    for path, problem in _iter_results(files):
        if not problems.get(path):
            problems[path] = problem
        progress(min(len(problems), len(files)), len(files))
    unverified = [path for path in files if path not in problems]
    progress(len(files), len(files))
    return VerificationReport(
        num_files=len(problems),
        num_bytes=sum(path.stat().st_size for path in problems if path.is_file()),
        problems=tuple(filter(None, problems.values())),
        unverified=tuple(map(str, unverified)),
    )


def _iter_files(directory: Path) -> Iterator[Path]:
    """Yield the files of runs, but those that are being written, and states that were found damaged earlier."""
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != DAMAGED_DIR)
        for name in sorted(names):
            path = Path(folder, name)
            if not name.startswith(".") and not name.endswith(PARTIAL_SUFFIX) and path.is_file():
                yield path


def _iter_results(files: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield the path of each file that has a checksum, and what is wrong with it."""
    listed = set[Path]()
    for path in files:
        if path.name == CHECKSUMS_FILE:
            yield path, ""
            for listed_path, problem in verify_directory(path.parent):
                listed.add(listed_path)
                yield listed_path, problem
    for path in files:
        if path.name.endswith(SIDECAR_SUFFIX):
            target = path.with_name(path.name.removesuffix(SIDECAR_SUFFIX))
            yield path, ""
            yield target, _find_problem(verify_sidecar, target)
        elif path in listed:
            continue
        elif path.suffix == ".safetensors":
            problem = _find_problem(read_checkpoint, path)
            if problem or read_own_checksum(path):
                yield path, problem
        elif path.name == LOG_FILE:
            yield from _verify_log(path)
        elif path.name.startswith(_EVENTS_PREFIX):
            yield path, _find_torn_record(path)


def _find_problem(verify: Callable[[Path], object], path: Path) -> str:
    try:
        verify(path)
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    return ""


def _verify_log(path: Path) -> Iterator[tuple[Path, str]]:
    """Compare the log of an unfinished run with what its newest good state says of it: its length and its checksum."""
    for state_path in reversed(list_states(path.parent / STATE_DIR)):
        try:
            position = read_state(state_path).get("log")
        except InputError:
            continue  # it is reported by its own checksum
        if position is None:
            return  # of an older version
        with path.open("rb") as file:
            content = file.read(position["bytes"])
        is_good = len(content) == position["bytes"] and hashlib.sha256(content).hexdigest() == position["sha256"]
        yield path, "" if is_good else f"{path} is damaged: it is not what was logged up to {state_path.name}"
        return


def _find_torn_record(path: Path) -> str:
    """Return what is wrong with TensorBoard's records, which have checksums; a last one that a kill has cut is fine."""
    from tensorboard.compat.tensorflow_stub import errors  # it takes a second
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    reader = PyRecordReader_New(str(path))
    try:
        while True:
            reader.GetNext()
    except errors.OutOfRangeError:
        return ""
    except errors.DataLossError as error:
        return "" if "truncated" in str(error) else f"{path} is damaged: a record does not have its checksum"
