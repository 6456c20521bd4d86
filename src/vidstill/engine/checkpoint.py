"""What training changes, saved and restored: a state is complete or absent."""

from pathlib import Path
from typing import Any

import torch

from vidstill.utils.files import PARTIAL_SUFFIX, atomic_write
from vidstill.utils.types import InputError


def save_state(directory: Path, step: int, state: dict[str, Any]) -> None:
    """Writes the state after `step` steps and deletes older ones, once the new one is safely on the disk.

    Raises:
        OSError: it cannot be written (a full disk); the one before is as it was.
    """
    try:
        with atomic_write(directory / f"step-{step:09d}.pt") as file:
            torch.save(state, file)
    except (InputError, RuntimeError) as error:  # torch's writer tells of a failed write by a RuntimeError
        raise OSError(f"the state of step {step} cannot be written to {directory}: {error}") from error
    for old in (*list_states(directory)[:-1], *directory.glob(f"*{PARTIAL_SUFFIX}")):
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
