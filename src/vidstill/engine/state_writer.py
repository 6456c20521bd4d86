"""States are written by a thread; training waits for a copy of the state, and for an earlier one in progress."""

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidstill.engine.checkpoint import save_state
from vidstill.engine.state import map_leaves


class StateWriter:
    """Writes states in the background, one at a time.

    A copy of the state stays in the memory of the host, so that the next one is copied into the same place; it is
    page-locked if the tensors come from a GPU.

    Args:
        directory: Of the states.
        keep: As for `save_state`.
        keep_every: As for `save_state`.
    """

    def __init__(self, directory: Path, *, keep: int, keep_every: int | None):
        self.directory, self.keep, self.keep_every = directory, keep, keep_every
        self.saved_step = 0  # of the newest state on the disk
        self._buffers: list[Tensor] = []  # in the order of the state
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def reserve(self, state: Mapping[str, Any]) -> None:
        """Begin to allocate the memory for the copies of a state, so that the first one takes no longer than the next.

        Args:
            state: What training changes, as for `save`.
        """
        tensors: list[Tensor] = []
        map_leaves(state, Tensor, tensors.append)
        self._start(self._allocate, [(tensor.shape, tensor.dtype, tensor.is_cuda) for tensor in tensors])

    def save(self, step: int, state: Mapping[str, Any], constants: Mapping[str, Any], log_file: int) -> None:
        """Copy a state and begin to write it; the caller may change its tensors then.

        Args:
            step: Completed steps.
            state: What training changes.
            constants: Entries of the state whose tensors are never changed, and not copied.
            log_file: File descriptor of the log, whose lines so far are on the disk before the state is.

        Raises:
            OSError: The state before could not be written.
        """
        self.wait()
        snapshot = {**self._copy(state), **map_leaves(constants, Tensor, lambda tensor: tensor)}
        self._start(self._write, step, snapshot, log_file)

    def check(self) -> None:
        """Raise the error of a state that could not be written, without waiting."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Wait until the state is on the disk.

        Raises:
            OSError: It could not be written.
        """
        self.close()
        self.check()

    def close(self) -> None:
        """Wait until the thread has ended; its error remains."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _start(self, function: Callable[..., None], *args: Any) -> None:
        def run() -> None:
            try:
                function(*args)
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def _allocate(self, layouts: Iterable[tuple[torch.Size, torch.dtype, bool]]) -> None:
        self._buffers = [torch.zeros(shape, dtype=dtype, pin_memory=is_cuda) for shape, dtype, is_cuda in layouts]

    def _write(self, step: int, state: Mapping[str, Any], log_file: int) -> None:
        os.fsync(log_file)
        save_state(self.directory, step, state, keep=self.keep, keep_every=self.keep_every)
        self.saved_step = step

    def _copy(self, state: Mapping[str, Any]) -> dict[str, Any]:
        buffers = iter(self._buffers)
        self._buffers = []

        def copy(tensor: Tensor) -> Tensor:
            buffer = next(buffers, tensor)
            if buffer is tensor or (buffer.shape, buffer.dtype) != (tensor.shape, tensor.dtype):
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._buffers.append(buffer)
            return buffer.copy_(tensor.detach(), non_blocking=True)

        copied: dict[str, Any] = map_leaves(state, Tensor, copy)
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        return copied
