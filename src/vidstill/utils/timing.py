"""Interleaved timing of functions on one core, so that noise affects all of them."""

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
    """Pin this thread and the threads that it starts to one core, where the system allows it."""
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
    """Return the seconds that each function takes, called in random order."""
    names, seconds = list(functions), {}
    for k in rng.permutation(len(names)):
        start = time.perf_counter()
        functions[names[k]]()
        seconds[names[k]] = time.perf_counter() - start
    return seconds
