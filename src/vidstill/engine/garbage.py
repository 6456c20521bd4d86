"""Python's garbage collector in a training loop: between steps, and seldom."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_WARMUP_STEPS = 3  # by then everything exists that lives as long as the run
_INTERVAL = 100  # steps; what is collected are cycles, which steps make few of


class GarbageCollector:
    """Within the context, collects cycles after every hundredth step only; what the first steps leave is never visited.

    By itself Python collects in the middle of a step, when it has allocated many objects, and visits all of torch's;
    meanwhile no kernel is launched, and other ranks wait.
    """

    def __init__(self) -> None:
        self._num_steps = 0

    def __enter__(self) -> "GarbageCollector":
        self._was_enabled, self._num_steps = gc.isenabled(), 0
        return self

    def __exit__(self, *_: object) -> None:
        if self._num_steps >= _WARMUP_STEPS:
            gc.unfreeze()
        if self._was_enabled:
            gc.enable()

    @contextmanager
    def allow(self) -> Iterator[None]:
        """Let Python collect as it likes within the block, which is no step."""
        is_enabled = gc.isenabled()
        gc.enable()
        try:
            yield
        finally:
            if not is_enabled:
                gc.disable()

    def end_step(self) -> None:
        """Called after each step."""
        self._num_steps += 1
        if self._num_steps == _WARMUP_STEPS:
            gc.freeze()
            gc.disable()
        elif self._num_steps % _INTERVAL == 0:
            gc.collect()
