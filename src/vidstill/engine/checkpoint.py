"""What training changes, saved and restored: a state is complete or absent."""

import os
from pathlib import Path
from typing import Any

import torch

from vidstill.utils.types import InputError


def save_state(directory: Path, step: int, state: dict[str, Any]) -> None:
    """Writes the state after `step` steps and deletes older ones, once the new one is safely on the disk.

    Raises:
        OSError: it cannot be written (a full disk); the one before is as it was.
    """
    directory.mkdir(parents=True, exist_ok=True)
    new = directory / f"step-{step:09d}.pt"
    unfinished = directory / "unfinished"
    try:
        with unfinished.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(new)
    except (OSError, RuntimeError) as error:  # torch's writer tells of a failed write by a RuntimeError
        unfinished.unlink(missing_ok=True)
        raise OSError(f"the state of step {step} cannot be written to {directory}: {error}") from error
    _fsync_directory(directory)
    for old in list_states(directory)[:-1]:
        old.unlink(missing_ok=True)


def load_state(directory: Path) -> dict[str, Any] | None:
    """The newest state in the folder, on the CPU; None where there is none. Nothing in the file is executed.

    Raises:
        InputError: the file is damaged.
    """
    states = list_states(directory)
    if not states:
        return None
    try:
        state: dict[str, Any] = torch.load(states[-1], map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{states[-1]} cannot be read ({reason}); delete it to begin again") from error
    return state


def list_states(directory: Path) -> list[Path]:
    """The complete states in a folder, the newest last."""
    return sorted(directory.glob("step-*.pt"))


def _fsync_directory(directory: Path) -> None:
    """Makes the renaming itself survive a power cut; where folders cannot be opened (Windows) nothing need be done."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
