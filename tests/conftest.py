"""What all tests share: one thread, and for properties no deadline, and the same examples in every run."""

import gc
import os

import pytest
import torch
from hypothesis import settings

from vidstill.data.storage import addresses

torch.set_num_threads(1)  # sums do not depend on the machine's cores then
# A first call imports and compiles: its time says nothing. Examples follow from the test alone, so that what passed
# passes again; `pytest --hypothesis-profile=searching` looks for new ones.
settings.register_profile("vidstill", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None)
settings.load_profile("vidstill")


@pytest.fixture(scope="module")
def memory_addresses():
    """Let this module read `memory://…`, which stands for a server and which no user can read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(addresses, "SCHEMES", addresses.SCHEMES | {"memory"})
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_finish():
    """Take what imports and 10,000 tests have made out of the garbage collector's walks: each training's end is one."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    _give_up_real_time()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call():
    _give_up_real_time()


def _give_up_real_time() -> None:
    """FFmpeg's AV1 encoder (SVT-AV1) makes root's process a real-time one, whose loops then stop all others."""
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
