"""What a process may use of the CPU: cores, threads, bf16, and whether other processes take it."""

import ctypes
import os
from pathlib import Path

import torch

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # the last one is Arm's
_CPU_INFO = Path("/proc/cpuinfo")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _MAX_INT = -1, -3, 2**31 - 1  # of mallopt(3)


def count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_local_processes() -> int:
    """Return the number of processes that torchrun has started on this machine, which share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def find_bf16_flags() -> list[str]:
    """Return the processor's flags for bf16 instructions (AVX512-BF16, AMX, Arm's BF16), as Linux names them.

    Without them, and on other systems, bf16 is emulated: it works, slowly.
    """
    if not _CPU_INFO.is_file():
        return []
    lines = (line.partition(":") for line in _CPU_INFO.read_text().splitlines())
    flags = next((value.split() for name, _, value in lines if name.strip() in ("flags", "Features")), [])
    return [flag for flag in flags if flag in _BF16_FLAGS]


def set_num_threads(device_type: str, workers: int) -> None:
    """Choose the number of torch's threads, unless the user has with OMP_NUM_THREADS.

    A model on the CPU gets all cores of this process: its workers wait for it most of the time, and of two cores the
    second gave more than it took from the workers, even on a busy machine (docs/performance.md). Beside a GPU, it is
    the cores that the workers leave.

    Args:
        device_type: Where the model is.
        workers: Decoding processes of this process.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        cores = max(1, count_cores() // count_local_processes())
        num_threads = cores if device_type == "cpu" else max(1, cores - workers)
        torch.set_num_threads(min(torch.get_num_threads(), num_threads))  # torch takes one thread a physical core


def restore_num_threads(num_threads: int | None) -> None:
    """Take the number of threads that a run was begun with, since sums on the CPU depend on it by rounding.

    Args:
        num_threads: As the state has it; None: one of an older version, whose number was what torch takes.
    """
    if num_threads is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(num_threads)


def keep_freed_memory() -> None:
    """Let the C library keep what this process frees, for the tensors of the next step; this is a setting of glibc.

    Otherwise each large tensor is new memory, which the system first fills with zeros, page by page: a third of a step
    of small models. The process takes no more than its peak.
    """
    if hasattr(libc := ctypes.CDLL(None), "gnu_get_libc_version"):
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            libc.mallopt(option, _MAX_INT)


def describe_overload() -> str:
    """Return a sentence that says how busy other processes keep the machine, and what it costs; empty if they do not.

    The load average counts what was running or waiting for a core during the last minute.
    """
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    if load < cores:
        return ""
    slowdown = (load + torch.get_num_threads()) / cores
    return (
        f"the load average is {load:.1f} on {cores} cores: if other processes go on like this, a step on the CPU takes "
        f"about {slowdown:.1f} times as long as on an idle machine"
    )
