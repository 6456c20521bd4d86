"""The memory that a process may use: the machine's, and what its control groups leave."""

from pathlib import Path

import pytest

from vidstill.engine import memory

GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Sets up a machine of 1 TiB, of which some is free, with files of control groups below a root."""
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**40 // 4096}.__getitem__)
    for name in ("_MEMORY_INFO", "_OWN_CGROUPS", "_CGROUPS"):
        monkeypatch.setattr(memory, name, tmp_path / name)

    def set_up(available: int | None = None, own: str = "", files: dict[str, str] | None = None) -> None:
        if available is not None:
            (tmp_path / "_MEMORY_INFO").write_text(f"MemTotal: 1 kB\nMemAvailable:   {available // 1024} kB\n")
        (tmp_path / "_OWN_CGROUPS").write_text(own)
        for name, text in (files or {}).items():
            path = Path(tmp_path / "_CGROUPS" / name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return set_up


def group(name: str, limit: str, used: int, cached: int) -> dict[str, str]:
    """The files of a control group of the second version."""
    texts = {"memory.max": f"{limit}\n", "memory.current": f"{used}\n"}
    return {f"{name}{file}": text for file, text in texts.items()} | {
        f"{name}memory.stat": f"anon 7\ninactive_file {cached}\n"
    }


def test_without_linux_all_memory_counts_as_free(machine):
    assert memory.count_total_memory() == memory.count_available_memory() == 2**40


def test_a_machine_without_limits_has_what_it_states(machine):
    machine(100 * GIB, "0::/\n")
    assert (memory.count_total_memory(), memory.count_available_memory()) == (2**40, 100 * GIB)


def test_the_narrowest_group_counts_and_what_the_kernel_can_take_back_is_free(machine):
    files = group("job/", "max", 0, 0) | group("job/step/", str(16 * GIB), 10 * GIB, 4 * GIB)
    files |= group("", str(64 * GIB), 60 * GIB, 5 * GIB)
    machine(100 * GIB, "0::/job/step\n", files)
    assert (memory.count_total_memory(), memory.count_available_memory()) == (16 * GIB, 9 * GIB)


def test_a_container_sees_its_own_group_as_the_root(machine):
    machine(100 * GIB, "0::/docker/0123\n", group("", str(8 * GIB), 2 * GIB, GIB))
    assert (memory.count_total_memory(), memory.count_available_memory()) == (8 * GIB, 7 * GIB)


def test_the_first_version_of_control_groups_is_read(machine):
    files = {
        "memory/job/memory.limit_in_bytes": f"{4 * GIB}\n",
        "memory/job/memory.usage_in_bytes": f"{3 * GIB}\n",
        "memory/job/memory.stat": f"cache 1\ntotal_inactive_file {GIB}\n",
    }
    machine(100 * GIB, "4:cpu,cpuacct:/\n3:memory:/job\n0::/\n", files)
    assert (memory.count_total_memory(), memory.count_available_memory()) == (4 * GIB, 2 * GIB)


def test_a_group_that_has_used_all_leaves_nothing(machine):
    machine(100 * GIB, "0::/\n", group("", str(GIB), 2 * GIB, 0))
    assert memory.count_available_memory() == 0
