"""The machine's measured limit of matrix products."""

import time

import pytest
import torch

from vidstill.engine import matmul_limit
from vidstill.engine.matmul_limit import measure_matmul_limit

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_limit_is_a_rate_that_the_clock_confirms(dtype):
    side = 512
    left, right = torch.rand(2, side, side).to(dtype)
    left @ right
    start = time.perf_counter()
    left @ right
    rate = 2 * side**3 / (time.perf_counter() - start)
    assert rate / 30 < measure_matmul_limit(CPU, dtype) < rate * 300


def test_the_fastest_product_counts_and_sizes_that_take_too_long_are_not_tried(monkeypatch):
    now, seconds, sides = [0.0], {64: 0.002, 128: 0.010, 256: 0.160}, []

    def multiply(left, right, out):
        sides.append(len(left))
        now[0] += seconds[len(left)]

    monkeypatch.setattr(matmul_limit, "_CPU_SIDES", tuple(seconds))
    monkeypatch.setattr(matmul_limit.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(matmul_limit.torch, "mm", multiply)
    assert measure_matmul_limit(CPU, torch.float32) == pytest.approx(2 * 128**3 / 0.010)
    assert set(sides) == {64, 128}  # at this rate, 256 would take 0.32 s
    assert now[0] < 0.3


def test_random_numbers_of_the_run_stay_as_they_are():
    torch.manual_seed(0)
    before = torch.default_generator.get_state()
    measure_matmul_limit(CPU, torch.float32)
    assert torch.equal(torch.default_generator.get_state(), before)
