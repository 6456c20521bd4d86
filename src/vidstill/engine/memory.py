"""How much memory this process may use: the machine's, and the limits of its control groups (containers, Slurm)."""

import os
from collections.abc import Iterator
from pathlib import Path

_MEMORY_INFO = Path("/proc/meminfo")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")

# of each version of control groups: the file of the limit, that of the use, and its part that the kernel can take back
_CGROUP_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def count_total_memory() -> int:
    """Return the bytes of memory that this process may use when nothing else runs."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *(limit for limit, _ in _read_cgroup_limits())])


def count_available_memory() -> int:
    """Return the bytes of memory that are free now, or can be freed; without Linux, all of it."""
    lines = _MEMORY_INFO.read_text().splitlines() if _MEMORY_INFO.is_file() else []
    kib = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    limits = (limit - used for limit, used in _read_cgroup_limits())
    return max(0, min([count_total_memory(), *(1024 * each for each in kib), *limits]))


def _read_cgroup_limits() -> Iterator[tuple[int, int]]:
    """Yield the limit and the use, in bytes, of each control group that holds this process and has a limit."""
    for version, group in _list_cgroups():
        limit_file, use_file, cache_key = _CGROUP_FILES[version]
        try:
            limit, used = (group / limit_file).read_text().strip(), int((group / use_file).read_text())
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except OSError:  # the group is outside of the container, or the system hides it
            continue
        if limit != "max":
            yield int(limit), used - int(stat.get(cache_key, 0))


def _list_cgroups() -> Iterator[tuple[int, Path]]:
    """Yield the version and the directory of each control group of this process, from the innermost to the root."""
    for line in _OWN_CGROUPS.read_text().splitlines() if _OWN_CGROUPS.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            root = _CGROUPS / "memory" if controllers else _CGROUPS
            group = root / path.lstrip("/")
            yield from (
                (1 if controllers else 2, each) for each in (group, *group.parents) if root in (each, *each.parents)
            )
