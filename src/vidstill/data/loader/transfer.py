"""Batches on their way from the host's memory to a device."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class PendingBatch(NamedTuple):
    """A batch's columns, on the device as soon as the event has happened; None: they are not copied yet."""

    columns: tuple[Tensor, ...]
    copied: torch.cuda.Event | None


class Transfer:
    """Copies batches to a GPU on a stream of its own, while the GPU computes with the batch before.

    Args:
        device: Where batches go; for any that is no GPU, `finish` copies.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def begin(self, batches: Iterable[tuple[Tensor, ...]]) -> Iterator[PendingBatch]:
        """Begin to copy each batch when it is requested, from page-locked memory, in the thread that requests it."""
        for columns in batches:
            if self.stream is None:
                yield PendingBatch(columns, None)
                continue
            with torch.cuda.stream(self.stream):
                copies = tuple(column.to(self.device, non_blocking=True) for column in columns)
                copied = self.stream.record_event()
            yield PendingBatch(copies, copied)

    def finish(self, batch: PendingBatch) -> tuple[Tensor, ...]:
        """Return a batch's columns on the device; the stream that computes waits for them, and the host does not."""
        if batch.copied is None:
            return tuple(column.to(self.device) for column in batch.columns)
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(batch.copied)
        for column in batch.columns:
            column.record_stream(stream)  # its memory was allocated for the other stream
        return batch.columns
