"""`vidstill bench attention`: the speed of every kernel of attention, by precision, number of tokens and head width."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from statistics import median

import torch

from vidstill.bench.measure import describe_device
from vidstill.bench.report import BenchmarkMachine, describe_machine, format_markdown_table
from vidstill.bench.side import order_turns
from vidstill.engine.cpu import set_num_threads
from vidstill.engine.distributed import FixedPrecision, Runtime
from vidstill.engine.matmul_limit import synchronize
from vidstill.models.attention import KERNELS, choose_kernel
from vidstill.utils.terminal import show_progress_bar
from vidstill.utils.types import check_range

_DTYPES: dict[FixedPrecision, torch.dtype] = {"bf16": torch.bfloat16, "fp32": torch.float32}
_TURN_SECONDS = 0.2  # a kernel is called as often as fits, at least once


@dataclass(frozen=True, kw_only=True)
class AttentionBenchmark:
    """What is measured: every kernel for each combination."""

    lengths: tuple[int, ...]  # tokens
    head_dims: tuple[int, ...]  # channels of a head
    heads: int
    batch: int  # clips
    precisions: tuple[FixedPrecision, ...]
    rounds: int

    def __post_init__(self) -> None:
        check_range(1, math.inf, heads=self.heads, batch=self.batch, rounds=self.rounds)
        for length, head_dim in product(self.lengths, self.head_dims):
            check_range(1, math.inf, lengths=length, head_dims=head_dim)


@dataclass(frozen=True, kw_only=True)
class KernelTiming:
    """The kernels for tensors of one kind: milliseconds, the median over the rounds."""

    precision: str
    length: int
    head_dim: int
    training_ms: dict[str, float]  # forward and backward, by kernel
    inference_ms: dict[str, float]  # forward without gradients
    selected: str  # by `choose_kernel`


@dataclass(frozen=True, kw_only=True)
class AttentionReport:
    """The timings, and where they were taken."""

    machine: BenchmarkMachine
    device: str
    threads: int
    heads: int
    batch: int
    timings: list[KernelTiming]


def measure_attention(config: AttentionBenchmark) -> AttentionReport:
    """Time all kernels in turns, in the reverse order every second round."""
    device = Runtime("fp32").device
    set_num_threads(device.type, 0)
    cases = list(product(config.precisions, config.lengths, config.head_dims))
    timings = []
    with show_progress_bar("shapes") as report_progress:
        for number, (precision, length, head_dim) in enumerate(cases):
            report_progress(number, len(cases))
            shape, dtype = (config.batch, config.heads, length, head_dim), _DTYPES[precision]
            timings.append(
                KernelTiming(
                    precision=precision,
                    length=length,
                    head_dim=head_dim,
                    training_ms=_time_kernels(shape, dtype, device, config.rounds, trains=True),
                    inference_ms=_time_kernels(shape, dtype, device, config.rounds, trains=False),
                    selected=choose_kernel(device.type, dtype, length),
                )
            )
        report_progress(len(cases), len(cases))
    return AttentionReport(
        machine=describe_machine(),
        device=describe_device(device),
        threads=torch.get_num_threads(),
        heads=config.heads,
        batch=config.batch,
        timings=timings,
    )


def _time_kernels(
    shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device, rounds: int, *, trains: bool
) -> dict[str, float]:
    """Return the milliseconds of a call of each kernel, with its backward pass or without gradients."""
    inputs = [torch.randn(shape, device=device).to(dtype).requires_grad_(trains) for _ in range(3)]
    gradient = torch.randn(shape, device=device).to(dtype)

    def call(kernel: Callable[..., torch.Tensor]) -> None:
        with torch.set_grad_enabled(trains):
            output = kernel(*inputs)
        if trains:
            torch.autograd.grad(output, inputs, gradient)

    def time_calls(name: str, count: int) -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(count):
            call(kernels[name])
        synchronize(device)
        return 1e3 * (time.perf_counter() - start) / count

    kernels: dict[str, Callable[..., torch.Tensor]] = {str(name): kernel for name, kernel in KERNELS.items()}
    for name in kernels:
        time_calls(name, 1)  # the first call chooses and allocates
    counts = {name: max(1, round(1e3 * _TURN_SECONDS / time_calls(name, 1))) for name in kernels}
    times: dict[str, list[float]] = {name: [] for name in kernels}
    for number in range(rounds):
        for name in order_turns(list(kernels), number):
            times[name].append(time_calls(name, counts[name]))
    return {name: median(each) for name, each in times.items()}


def format_attention_report(report: AttentionReport) -> str:
    """Return the timings as a Markdown table, and the fastest kernels as models/attention.py has them."""
    machine = report.machine
    header = (
        "precision",
        "tokens",
        "head width",
        *(f"{n}, ms" for n in KERNELS),
        *(f"{n}, inference" for n in KERNELS),
    )
    rows = [
        (
            t.precision,
            str(t.length),
            str(t.head_dim),
            *(f"{t.training_ms[name]:.2f}" for name in KERNELS),
            *(f"{t.inference_ms[name]:.2f}" for name in KERNELS),
            t.selected,
            min(t.training_ms, key=lambda name: t.training_ms[name]),
        )
        for t in report.timings
    ]
    return "\n\n".join(
        [
            f"{machine.cpu}, {machine.num_cores} cores; {report.device}, {report.threads} threads; torch "
            f"{machine.versions['torch']}; commit {machine.commit or 'unknown'}\n"
            f"{report.batch} clips, {report.heads} heads; forward and backward, and forward alone without gradients",
            format_markdown_table((*header, "selected", "fastest in training"), rows),
        ]
    )
