"""What a process takes of the CPU: bf16 by the processor's flags, threads, and a word on a busy machine."""

import os
import platform
import subprocess
import sys
import time

import pytest
import torch
from toy_runs import PowerCut, act_at, train

from vidstill.cli.main import main
from vidstill.engine import cpu
from vidstill.engine.distributed import Runtime

on_cpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="asks what a machine without a GPU does")


@pytest.fixture
def free_threads(monkeypatch):
    """As a user has it who says nothing about threads: torch takes 4 of 4 cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cpu, "count_cores", lambda: 4)
    previous = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(previous)


@on_cpu
@pytest.mark.parametrize(
    ("info", "precision"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n", "bf16"),  # AMD Zen 4
        ("processor\t: 0\nflags\t\t: fpu avx512f amx_tile amx_bf16\n", "bf16"),  # Intel Sapphire Rapids
        ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\n", "bf16"),  # Arm Neoverse V1
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512bw avx512_vnni\n", "fp32"),
        ("processor\t: 0\nFeatures\t: fp asimd\n", "fp32"),
        ("", "fp32"),
    ],
)
def test_cpu_computes_in_bf16_if_it_has_the_instructions_and_nothing_is_timed(tmp_path, monkeypatch, info, precision):
    (tmp_path / "cpuinfo").write_text(info)
    monkeypatch.setattr(cpu, "_CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("measures time"))
    assert Runtime().precision == precision


@on_cpu
def test_system_without_proc_computes_in_fp32(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "_CPU_INFO", tmp_path / "none")
    assert Runtime().precision == "fp32"


@pytest.mark.parametrize(
    ("device", "workers", "processes", "threads"),
    [("cpu", 3, 1, 4), ("cpu", 1, 2, 2), ("cpu", 0, 8, 1), ("cuda", 1, 1, 3), ("cuda", 3, 1, 1), ("cuda", 9, 1, 1)],
)
def test_threads_are_the_cores_of_a_process_and_beside_a_gpu_those_that_workers_leave(
    free_threads, monkeypatch, device, workers, processes, threads
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    cpu.set_num_threads(device, workers)
    assert torch.get_num_threads() == threads


def test_number_of_threads_that_a_user_sets_remains(free_threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    cpu.set_num_threads("cuda", 3)
    cpu.restore_num_threads(2)
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(("user_sets", "threads"), [(False, 3), (True, 4)])
def test_resumed_run_has_the_threads_that_it_was_begun_with(tmp_path, free_threads, monkeypatch, user_sets, threads):
    torch.set_num_threads(3)
    with pytest.raises(PowerCut):
        train(tmp_path, batches=act_at(5))
    torch.set_num_threads(4)
    if user_sets:
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
    train(tmp_path)
    assert torch.get_num_threads() == threads


def test_command_lets_threads_sleep_before_torch_is_imported(monkeypatch):
    program = """
import os, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ["GOMP_SPINCOUNT"])
            raise SystemExit
sys.meta_path.insert(0, Finder())
from vidstill.cli.main import main
main(["doctor"])
"""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1000\n"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "7\n"


def test_busy_machine_is_a_problem_that_doctor_names_with_its_numbers(monkeypatch, capsys):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (5.0, 1.0, 1.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "the load average is 5.0 on 2 cores" in printed
    assert "takes about 3.5 times as long as on an idle machine" in printed
    runtime = Runtime("fp32")
    assert [message in printed for message in runtime.take_messages()] == [True]  # a run says the same
    assert runtime.take_messages() == []  # once
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 9.0, 9.0))
    assert main(["doctor"]) == 0
    assert "on 2 cores" not in capsys.readouterr().out


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps freed memory when it is told to")
def test_freed_memory_is_kept_for_the_next_tensors():
    """Counted in a process of its own: pages that the system maps while ten tensors of 40 MB are made and freed."""
    script = """
import resource, sys, torch
from vidstill.engine.cpu import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def count_new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(10_000_000) + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
count_new_pages()
print(count_new_pages())
"""
    counts = {
        word: int(subprocess.run([sys.executable, "-c", script, word], capture_output=True, check=True).stdout)
        for word in ("keep", "give_back")
    }
    assert counts["keep"] < 100 < counts["give_back"]
