"""Sides of a comparison measured in one run: each in a process of its own, in turns, beside the machine's limit."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median

import torch

from vidstill.bench.measurement_config import MeasurementConfig
from vidstill.bench.model_report import OURS, ModelReport, SideResult
from vidstill.bench.report import describe_machine
from vidstill.bench.side import Side, SideProcess, time_in_turns
from vidstill.engine.cpu import set_num_threads
from vidstill.engine.distributed import FixedPrecision, Runtime
from vidstill.engine.matmul_limit import measure_matmul_limit
from vidstill.utils.terminal import show_progress_bar

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def measure_sides(
    builds: Mapping[tuple[str, FixedPrecision], Callable[[], Side]],
    config: MeasurementConfig,
    *,
    command: str,
    title: str,
    flops_per_clip: int,
    missing_sides: Mapping[str, str],
) -> ModelReport:
    """Time sides in turns and report their rates and shares of the machine's limit, which each round measures too.

    Args:
        builds: Make the sides, by their name and precision; each is called in a process of its own.
        config: How often they are measured.
        command: What measures the same again.
        title: What is computed.
        flops_per_clip: That the work needs.
        missing_sides: Those that are not compared, with the reason.

    Raises:
        InputError: A side cannot be built, or the memory does not suffice.
    """
    device = Runtime().device
    set_num_threads(device.type, 0)
    limits: dict[str, list[float]] = {precision: [] for _, precision in builds}
    with ExitStack() as stack, show_progress_bar("rounds") as report_progress:
        sides = {key: stack.enter_context(SideProcess(build)) for key, build in builds.items()}

        def begin_round(number: int) -> None:
            report_progress(number, config.rounds)
            for precision, rates in limits.items():
                rates.append(measure_matmul_limit(device, _DTYPES[precision]))

        seconds = config.turn_seconds
        timings = time_in_turns(sides, rounds=config.rounds, turn_seconds=seconds, begin_round=begin_round)
        steps = {key[1]: side.call("describe") for key, side in sides.items() if key[0] == OURS}
    results = []
    for (side, precision), timing in timings.items():
        rate = config.device_batch / median(timing.seconds)
        results.append(
            SideResult(
                side=side,
                precision=precision,
                all_seconds=timing.seconds,
                clips_per_second=rate,
                limit_share=rate * flops_per_clip / median(limits[precision]),
                memory_bytes=timing.memory_bytes,
            )
        )
    return ModelReport(
        command=command,
        machine=describe_machine(),
        device=describe_device(device),
        threads=torch.get_num_threads(),
        title=title,
        flops_per_clip=flops_per_clip,
        limit_flops=limits,
        results=results,
        missing_sides=dict(missing_sides),
        steps={precision: step for precision, step in steps.items() if step is not None},
    )


def describe_device(device: torch.device) -> str:
    """Return the name of a GPU, or the type of another device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
