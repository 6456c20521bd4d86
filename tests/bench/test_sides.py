"""Sides take turns, each in its own process; rates, shares and memory follow from what they took."""

import time
from functools import partial

import pytest
import torch

from vidstill.bench.measurement_config import MeasurementConfig
from vidstill.bench.model_report import ModelReport, SideResult, format_model_report
from vidstill.bench.report import describe_machine
from vidstill.bench.side import Side, SideProcess, Timing, order_turns, time_in_turns
from vidstill.bench.training_sides import StepDescription
from vidstill.utils.types import InputError


class Sleeper(Side):
    """Takes a known time and memory, or fails."""

    def __init__(self, seconds: float, problem: str = ""):
        super().__init__(torch.device("cpu"))
        self.seconds, self.problem, self.memory = seconds, problem, None

    def run(self) -> None:
        time.sleep(self.seconds)
        self.memory = torch.ones(25_000_000)  # 100 MB
        if self.problem:
            raise InputError(self.problem)


class FakeSide(SideProcess):
    """Answers as a side's process, and writes down in which order it was called."""

    def __init__(self, name: str, seconds: float, calls: list):
        self.name, self.seconds, self.calls = name, seconds, calls

    def call(self, method, *args):
        if method == "read_memory":
            return 7
        self.calls.append((self.name, *args))
        return self.seconds


def test_turns_are_reversed_every_second_round():
    keys = ["a", "b", "c"]
    assert [order_turns(keys, number) for number in range(3)] == [keys, ["c", "b", "a"], keys]


def test_every_side_has_its_turn_in_every_round_and_slow_work_is_done_once():
    calls, rounds = [], []
    sides = {name: FakeSide(name, seconds, calls) for name, seconds in (("fast", 0.1), ("slow", 5.0))}
    timings = time_in_turns(sides, rounds=3, turn_seconds=1.0, begin_round=rounds.append)
    assert rounds == [0, 1, 2]
    turn = [("fast", 10), ("slow", 1)]
    assert calls == [("fast", 1), ("fast", 1), ("slow", 1), ("slow", 1), *turn, *turn[::-1], *turn]
    assert timings == {"fast": Timing([0.1] * 3, 7), "slow": Timing([5.0] * 3, 7)}


def test_a_process_works_only_when_it_is_called_and_reports_time_and_peak_memory():
    with SideProcess(partial(Sleeper, 0.05)) as side:
        assert 0.05 <= side.call("time", 2) < 5
        assert side.call("describe") is None
        assert 95e6 < side.call("read_memory") < 600e6
        process = side._process
    assert not process.is_alive()


def test_an_error_of_a_side_reaches_the_user_as_it_is():
    with SideProcess(partial(Sleeper, 0.0, "this recipe does not fit")) as side:
        with pytest.raises(InputError, match="this recipe does not fit"):
            side.call("time", 1)
        with pytest.raises(RuntimeError, match="no attribute 'unknown'"):
            side.call("unknown")
        side._process.kill()
        with pytest.raises(InputError, match=r"the measuring process ended .* take a smaller --device-batch"):
            side.call("time", 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device_batch": 0}, "device_batch is 0; take 1 or more"),
        ({"rounds": 0}, "rounds is 0; take 1 or more"),
        ({"turn_seconds": -1.0}, r"turn_seconds is -1.0; take 0 or more"),
    ],
)
def test_impossible_measurements_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        MeasurementConfig(**values)


def test_the_report_divides_rates_by_the_limit_and_compares_round_by_round():
    def result(side: str, seconds: list[float], precision: str = "bf16") -> SideResult:
        rate = 4 / sorted(seconds)[1]
        return SideResult(
            side=side,
            precision=precision,
            all_seconds=seconds,
            clips_per_second=rate,
            limit_share=rate * 50e9 / 1e12,
            memory_bytes=2_500_000_000,
        )

    step = StepDescription(
        part_seconds={"backward": 0.2, "novel": 0.001, "data": 0.01},
        kernels=12,
        casts=3,
        synchronizations=0,
        kernel_names={"mm": 12},
    )
    report = ModelReport(
        command="vidstill bench step x",
        machine=describe_machine(),
        device="cpu",
        threads=2,
        title="x, 4 clips",
        flops_per_clip=50_000_000_000,
        limit_flops={"bf16": [0.9e12, 1.0e12, 1.1e12]},
        results=[
            result("vidstill", [0.4, 0.5, 1.0]),
            result("eager", [0.8, 1.5, 0.9]),
            result("eager", [1.0] * 3, "fp32"),
        ],
        missing_sides={"transformers": "it is not installed"},
        steps={"bf16": step},
    )
    text = format_model_report(report)
    assert "| vidstill | bf16      |       8 |           40 % |       2.50 |                 – |" in text
    assert (
        "| eager    | bf16      |    4.44 |           22 % |       2.50 |              2.00 |" in text
    )  # of 2, 3, 0.9
    assert (
        "| eager    | fp32      |       4 |           20 % |       2.50 |                 – |" in text
    )  # we have no fp32
    assert "50.0 GFLOP a clip; limit in GFLOP/s: bf16 1000" in text
    assert "transformers is not compared: it is not installed." in text
    lines = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert lines.index("data") < lines.index("backward") < lines.index("novel")
    assert "| bf16      |      12 |     3 |          0 |" in text
