"""Files of the training state: complete or absent, each with its checksum beside it; the newest good one is read."""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import torch

from vidstill.utils.checksums import (
    CHECKSUMS_FILE,
    SIDECAR_SUFFIX,
    HashingWriter,
    forget_checksums,
    record_checksums,
    verify_sidecar,
    write_sidecar,
)
from vidstill.utils.files import (
    PARTIAL_SUFFIX,
    RECIPE_FILE,
    atomic_write,
    convert_write_errors,
    rename_durably,
    write_bytes,
)
from vidstill.utils.text import join_first
from vidstill.utils.types import InputError

STATE_DIR = "state"
LOG_FILE = "log.jsonl"

DAMAGED_DIR = "damaged"  # of states that could not be read, beside the states
_FORKS_DIR = "forks"  # of what a run had been before it went on from an earlier step
_ENTRIES = {"run": dict, "precision": str, "progress": dict, "task": dict, "optimizer": dict, "scaler": dict}
_ENTRIES |= {"validation": dict}  # of every state since the first version; newer ones have more
_STATE_NAME = re.compile(r"step-(\d+)\.pt")


def save_state(
    directory: Path, step: int, state: Mapping[str, Any], *, keep: int = 2, keep_every: int | None = None
) -> None:
    """Write the state after `step` steps and delete older ones, once the new one is safely on disk.

    Args:
        keep: The number of states that remain: this one and those before it.
        keep_every: States of steps that this divides remain besides.

    Raises:
        OSError: It cannot be written (full disk); the previous ones are unchanged.
    """
    path, sidecar = _get_path(directory, step), _get_sidecar(_get_path(directory, step))
    previous = sidecar.read_bytes() if path.exists() and sidecar.exists() else b""  # the step was saved before
    try:
        with atomic_write(path) as file:
            writer = HashingWriter(file)
            torch.save(state, cast(IO[bytes], writer))
            if path.exists():
                sidecar.unlink(missing_ok=True)  # one of another state would make this one a damaged one
            else:
                write_sidecar(path, writer.hexdigest())
        if not sidecar.exists():
            write_sidecar(path, writer.hexdigest())
    except (InputError, RuntimeError, OSError) as error:  # torch's writer reports a failed write as a RuntimeError
        with suppress(InputError, OSError):
            write_bytes(sidecar, previous) if previous else sidecar.unlink(missing_ok=True)
        raise OSError(f"the state of step {step} cannot be written to {directory}: {error}") from error
    _prune_states(directory, keep, keep_every)


def load_state(directory: Path, *, warn: Callable[[str], object] = warnings.warn) -> dict[str, Any] | None:
    """Read the newest good state, on the CPU; None if there is no state. Nothing in a file is executed.

    Newer states that are damaged are moved to the directory `damaged`. A state without a checksum is of an older
    version, and read only if no state has one.

    Args:
        warn: Called with a sentence on each damaged state, if there is a good one.

    Raises:
        InputError: There are states, and none is good.
    """
    states, problems = list_states(directory), dict[Path, str]()
    has_checksums = any(_get_sidecar(path).exists() for path in states)
    for path in reversed(states):
        try:
            state = read_state(path, needs_checksum=has_checksums)
        except InputError as error:
            problems[path] = str(error)
            continue
        for damaged, problem in problems.items():
            _move([damaged, _get_sidecar(damaged)], directory / DAMAGED_DIR)
            warn(f"{problem}; it is kept in {directory / DAMAGED_DIR}, and the state of step {get_step(path)} is used")
        return state
    if problems:
        raise InputError(
            f"no state in {directory} can be used ({join_first(list(problems.values()), 3, '; ')}); copy a good one "
            f"there with its {SIDECAR_SUFFIX} file, or delete this directory to start again"
        )
    return None


def read_state(path: Path, *, needs_checksum: bool = False) -> dict[str, Any]:
    """Read one state, on the CPU. Nothing in the file is executed.

    Args:
        needs_checksum: Refuse a state without a checksum.

    Raises:
        InputError: The file is damaged, or no state.
    """
    if not verify_sidecar(path) and needs_checksum:
        raise InputError(f"{path} has no checksum, which other states have")
    if not path.stat().st_size:
        raise InputError(f"{path} is empty")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} cannot be read ({str(error).partition(chr(10))[0]})") from error
    if not isinstance(state, dict):
        raise InputError(f"{path} holds no training state but {type(state).__name__}")
    for name, expected in _ENTRIES.items():
        if not isinstance(state.get(name), expected):
            raise InputError(f"{path} holds no training state: its entry {name} is {type(state.get(name)).__name__}")
    return state


def list_states(directory: Path) -> list[Path]:
    """Return the complete states in a directory, the newest last."""
    return sorted((path for path in directory.glob("step-*.pt") if _STATE_NAME.fullmatch(path.name)), key=get_step)


def get_step(path: Path) -> int:
    """Return the completed steps of a state."""
    match = _STATE_NAME.fullmatch(path.name)
    assert match, path
    return int(match[1])


def find_good_step(directory: Path, step: int | None = None) -> int:
    """Return the completed steps of the newest good state, or `step` if its state is good.

    Raises:
        InputError: There is no such state.
    """
    states = {get_step(path): path for path in list_states(directory)}
    if step is not None and step not in states:
        steps = join_first([str(each) for each in states], 20) or "no step"
        raise InputError(f"{directory} holds no state of step {step}, but of {steps}; resume from one of them")
    needs_checksum, problem = any(_get_sidecar(path).exists() for path in states.values()), "there is none"
    for each in reversed(states) if step is None else [step]:
        try:
            read_state(states[each], needs_checksum=needs_checksum)
        except InputError as error:
            problem = str(error)
        else:
            return each
    raise InputError(f"no state in {directory} can be used ({problem}); resume from another one, or start again")


def set_aside(run_dir: Path, step: int) -> Path:
    """Move what came after the state of a step to `forks/N`, so that the run goes on from this state.

    These are the later states, and what the finished run left: the model, its test. The recipe and the log are copied:
    `forks/N` is a run directory of its own. A kill at any moment loses nothing, and the same call goes on.

    Args:
        step: The completed steps of the state.

    Returns:
        The directory of what was moved.

    Raises:
        InputError: There is no good state of this step; nothing is changed.
    """
    find_good_step(run_dir / STATE_DIR, step)
    states = {get_step(path): path for path in list_states(run_dir / STATE_DIR)}
    forks = run_dir / _FORKS_DIR
    numbers = [int(path.name) for path in forks.iterdir() if path.name.isdecimal()] if forks.is_dir() else []
    fork = forks / str(max(numbers, default=0) + 1)
    for name in (RECIPE_FILE, LOG_FILE):
        if (run_dir / name).is_file():
            write_bytes(fork / name, (run_dir / name).read_bytes())
    stays = {RECIPE_FILE, LOG_FILE, CHECKSUMS_FILE, STATE_DIR, _FORKS_DIR}
    results = [
        path
        for path in sorted(run_dir.iterdir())
        if path.name not in stays and not path.name.startswith((".", "events."))
    ]
    later = [path for each, path in sorted(states.items(), reverse=True) if each > step]
    forget_checksums(run_dir, [run_dir / LOG_FILE, *results])
    _move(results, fork)
    for path in later:
        _move([path, _get_sidecar(path)], fork / STATE_DIR)
    record_checksums(fork, [path for path in fork.iterdir() if path.is_file()])
    return fork


def _move(paths: Iterable[Path], directory: Path) -> None:
    with convert_write_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        for path in paths:
            with suppress(FileNotFoundError):
                rename_durably(path, directory / path.name)


def _prune_states(directory: Path, keep: int, keep_every: int | None) -> None:
    states = list_states(directory)
    good = [path for path in states if _get_sidecar(path).exists()]  # the others are an older version's
    remaining = {*good[-keep:], *(path for path in good if keep_every and not get_step(path) % keep_every)}
    names = {sidecar.name for sidecar in map(_get_sidecar, remaining)}
    sidecars = (path for path in directory.glob(f"*{SIDECAR_SUFFIX}") if path.name not in names)
    for old in (*(path for path in states if path not in remaining), *sidecars, *directory.glob(f"*{PARTIAL_SUFFIX}")):
        old.unlink(missing_ok=True)


def _get_path(directory: Path, step: int) -> Path:
    return directory / f"step-{step:09d}.pt"


def _get_sidecar(path: Path) -> Path:
    return path.with_name(path.name + SIDECAR_SUFFIX)
