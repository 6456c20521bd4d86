"""Times pieces of work against one another: on one core, in turns, so that what disturbs one disturbs all."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch

K = TypeVar("K")


@contextmanager
def pin_to_one_core() -> Iterator[None]:
    """Within it, this thread and those that it starts stay on one core, where the system lets us say so."""
    threads = torch.get_num_threads()
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    torch.set_num_threads(1)
    try:
        if allowed:
            os.sched_setaffinity(0, {max(allowed)})
        yield
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)
        torch.set_num_threads(threads)


def time_in_random_order(functions: Mapping[K, Callable[[], Any]], rng: np.random.Generator) -> dict[K, float]:
    """The seconds that each takes, done in an order that is drawn."""
    names, took = list(functions), {}
    for k in rng.permutation(len(names)):
        begun = time.perf_counter()
        functions[names[k]]()
        took[names[k]] = time.perf_counter() - begun
    return took
