"""The training state: everything that training changes, saved and restored; a file is complete or absent."""

from pathlib import Path
from typing import Any

import torch

from vidstill.utils.files import PARTIAL_SUFFIX, atomic_write
from vidstill.utils.types import InputError


def save_state(directory: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state after `step` steps and delete older ones, once the new one is safely on disk.

    Raises:
        OSError: It cannot be written (full disk); the previous one is unchanged.
    """
    try:
        with atomic_write(directory / f"step-{step:09d}.pt") as file:
            torch.save(state, file)
    except (InputError, RuntimeError) as error:  # torch's writer reports a failed write as a RuntimeError
        raise OSError(f"the state of step {step} cannot be written to {directory}: {error}") from error
    for old in (*list_states(directory)[:-1], *directory.glob(f"*{PARTIAL_SUFFIX}")):
        old.unlink(missing_ok=True)


def load_state(directory: Path) -> dict[str, Any] | None:
    """Read the newest state, on the CPU; None if there is none. Nothing in the file is executed.

    Raises:
        InputError: The file is damaged.
    """
    states = list_states(directory)
    if not states:
        return None
    try:
        state: dict[str, Any] = torch.load(states[-1], map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{states[-1]} cannot be read ({reason}); delete it to start again") from error
    return state


def list_states(directory: Path) -> list[Path]:
    """Return the complete states in a directory, the newest last."""
    return sorted(directory.glob("step-*.pt"))
