"""The report of `bench step` and `bench infer`: rates, share of the machine's limit, memory, parts and counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from vidstill.bench.report import BenchmarkMachine, format_markdown_table

OURS, EAGER, TRANSFORMERS = "vidstill", "eager", "transformers"

_PARTS = (  # in the order of a step
    *("data", "mask", "embed", "student", "teachers", "decoder", "projections", "generators", "head", "target", "loss"),
    *("backward", "optimizer", "loop"),
)


@dataclass(frozen=True, kw_only=True)
class SideResult:
    """What one side took in one precision."""

    side: str
    precision: str
    all_seconds: list[float]  # of one step or forward pass, in each round
    clips_per_second: float  # of the median
    limit_share: float  # of the machine's measured matrix products: MFU
    memory_bytes: int  # peak on the device, or of the process without its code


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """All sides in one run, and what one of our steps consists of."""

    command: str
    machine: BenchmarkMachine
    device: str
    threads: int  # of a model on the CPU
    title: str  # what is computed
    flops_per_clip: int  # that our work needs; a multiply-add counts twice
    limit_flops: dict[str, list[float]]  # the machine's matrix products a second by precision, in each round
    results: list[SideResult]
    missing_sides: dict[str, str]  # that are not compared, with the reason
    steps: Mapping[str, Any]  # StepDescription by precision; empty for a forward pass

    def get_ratio(self, result: SideResult) -> float | None:
        """Return how many times as fast we are as a side, the median over the rounds."""
        ours = next((r for r in self.results if (r.side, r.precision) == (OURS, result.precision)), None)
        if ours is None or ours is result:
            return None
        pairs = zip(result.all_seconds, ours.all_seconds, strict=True)
        return median(theirs / own for theirs, own in pairs)


def format_model_report(report: ModelReport) -> str:
    """Return the report as Markdown that is readable in a terminal too."""
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    limits = ", ".join(f"{name} {median(rates) / 1e9:.0f}" for name, rates in report.limit_flops.items())
    blocks = [
        f"`{report.command}`\n"
        f"{machine.cpu}, {machine.num_cores} cores; {report.device}, {report.threads} threads; {machine.system}; "
        f"{versions}; commit {machine.commit or 'unknown'}\n"
        f"{report.title}; {report.flops_per_clip / 1e9:.1f} GFLOP a clip; limit in GFLOP/s: {limits}",
        format_markdown_table(
            ("side", "precision", "clips/s", "share of limit", "memory, GB", "ours is × as fast"),
            [
                (
                    result.side,
                    result.precision,
                    f"{result.clips_per_second:.3g}",
                    f"{100 * result.limit_share:.0f} %",
                    f"{result.memory_bytes / 1e9:.2f}",
                    "–" if (ratio := report.get_ratio(result)) is None else f"{ratio:.2f}",
                )
                for result in report.results
            ],
        ),
        *(f"{name} is not compared: {reason}." for name, reason in report.missing_sides.items()),
    ]
    if report.steps:
        blocks += [
            "Parts of our step, ms; each is waited for, so that the sum is longer than a step.",
            _format_parts(report.steps),
            "Counted in our step, eager.",
            format_markdown_table(
                ("precision", "kernels", "casts", "host waits"),
                [(name, str(s.kernels), str(s.casts), str(s.synchronizations)) for name, s in report.steps.items()],
            ),
        ]
    return "\n\n".join(blocks)


def _format_parts(steps: Mapping[str, Any]) -> str:
    times = {name: step.part_seconds for name, step in steps.items()}
    parts = {part for each in times.values() for part in each}
    ordered = [*(part for part in _PARTS if part in parts), *sorted(parts - set(_PARTS))]
    rows = [(part, *(f"{1e3 * each.get(part, 0):.1f}" for each in times.values())) for part in ordered]
    return format_markdown_table(("part", *times), rows)
