"""What is timed is done once, on one core, and leaves the process as it was."""

import os
from functools import partial

import numpy as np
import pytest
import torch

from vidstill.bench.timing import pin_to_one_core, time_in_random_order


def test_everything_is_done_once_and_in_another_order_from_turn_to_turn():
    done: list[str] = []
    works = {name: partial(done.append, name) for name in "abc"}
    orders = set()
    for seed in range(20):
        done.clear()
        assert set(time_in_random_order(works, np.random.default_rng(seed))) == set("abc")
        assert sorted(done) == ["a", "b", "c"]
        orders.add("".join(done))
    assert len(orders) > 3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not let a process choose its cores")
def test_one_core_is_one_core_and_then_all_are_there_again_even_after_an_error():
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()

    def fail():
        with pin_to_one_core():
            assert len(os.sched_getaffinity(0)) == 1
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert os.sched_getaffinity(0) == cores
    assert torch.get_num_threads() == threads
