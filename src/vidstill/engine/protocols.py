"""What the training loop asks of the data and of a task."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

BatchFactory = Callable[[int], Iterator[tuple[Any, ...]]]
"""From the first step (counted from 0): this process's micro-batches, `accumulation_steps` for each step."""


@runtime_checkable
class ProgressAwareTask(Protocol):
    """A task that depends on the progress of the run."""

    def begin_step(self, progress: float) -> None:
        """Called before each step, in every process, with the completed share of all steps: 0 to below 1."""


@runtime_checkable
class RegionalModule(Protocol):
    """One of a model's alike modules, such as a block, of which parts can be compiled or recomputed on their own."""

    regions: tuple[str, ...]
    """Names of its methods that are such parts: they draw no random numbers, and return what follows from arguments and
    weights."""
