"""The report of a data benchmark: what was measured, on which machine, as Markdown tables."""

import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from vidstill.bench.reading import ReaderTiming
from vidstill.data.tools.transcode import TranscodeConfig
from vidstill.engine.cpu import count_cores
from vidstill.utils.files import get_package_version

# ---- The machine ----------------------------------------------------------------------------------------------------


_PACKAGES = ("vidstill", "av", "decord", "torchcodec", "torch", "numpy", "pillow")


@dataclass(frozen=True, kw_only=True)
class BenchmarkMachine:
    """The conditions of a measurement."""

    cpu: str
    num_cores: int  # that this process may use
    system: str
    versions: dict[str, str]
    # of the checkout that the package runs from, with "and changes" if files differ; None: no checkout
    commit: str | None


def describe_machine() -> BenchmarkMachine:
    versions = {name: version for name in _PACKAGES if (version := get_package_version(name)) != "unknown"}
    return BenchmarkMachine(
        cpu=_read_cpu_name(),
        num_cores=count_cores(),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        versions=versions | {"FFmpeg of av": av.ffmpeg_version_info} | _get_torchcodec_ffmpeg_version(),
        commit=_read_commit(),
    )


def _read_cpu_name() -> str:
    try:
        match = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # not Linux
        match = None
    return match[1] if match else platform.processor() or platform.machine()


def _get_torchcodec_ffmpeg_version() -> dict[str, str]:
    """Return the version of the system's FFmpeg, which torchcodec loads."""
    try:
        from torchcodec._core import get_ffmpeg_library_versions

        return {"FFmpeg of torchcodec": str(get_ffmpeg_library_versions()["ffmpeg_version"])}
    except (ImportError, OSError, RuntimeError, KeyError):
        return {}


def _read_commit() -> str | None:
    file = Path(__file__)
    tracked = ["ls-files", "--error-unmatch", file.name]  # fails in another project's checkout
    commit = ["describe", "--always", "--exclude=*", "--abbrev=10", "--dirty= and changes"]
    output = None
    for command in (tracked, commit):
        try:
            result = subprocess.run(["git", *command], cwd=file.parent, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):  # no checkout, or git is not installed
            return None
        output = result.stdout.strip()
    return output


# ---- The report -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PackingCost:
    """What packing costs where videos keep their size: means over the videos."""

    config: TranscodeConfig  # settings of `vidstill data pack`
    raw_bytes: float  # per video
    packed_bytes: float
    psnr: float  # dB, of each video's first clip against the raw clip
    ssim: float  # of the same clips' luma


@dataclass(frozen=True, kw_only=True)
class LoaderTiming:
    """Clips per second from raw and from packed videos, with a number of worker processes."""

    num_workers: int
    raw_clips_per_second: float
    packed_clips_per_second: float


@dataclass(frozen=True, kw_only=True)
class BenchmarkReport:
    """All measurements and their conditions."""

    command: str
    machine: BenchmarkMachine
    data_description: str
    num_videos: int
    clips_per_video: int  # drawn from each
    clip_description: str  # frames of a clip, in words
    reader_timings: list[ReaderTiming]
    missing_readers: dict[str, str]  # that are not compared, with the reason
    packing: PackingCost
    augmentation_clips_per_second: float  # that one core flips and augments by RandAugment
    loader_timings: list[LoaderTiming]


def format_benchmark_report(report: BenchmarkReport) -> str:
    """Return the report as Markdown that is readable in a terminal too."""
    machine, packing = report.machine, report.packing
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    conditions = f"{machine.cpu}, {machine.num_cores} cores; {machine.system}; {versions}"
    errors = [f"{t.reader}, {t.file_kind}: {t.error}." for t in report.reader_timings if t.error]
    missing = [f"{name} is not compared: {reason}." for name, reason in report.missing_readers.items()]
    raw, packed = packing.raw_bytes / 1e3, packing.packed_bytes / 1e3
    packing_row = f"{raw:.0f}", f"{packed:.0f}", f"{packed / raw:.2f}", f"{packing.psnr:.1f}", f"{packing.ssim:.3f}"
    loader_rows = [
        (str(t.num_workers), f"{t.raw_clips_per_second:.1f}", f"{t.packed_clips_per_second:.1f}")
        for t in report.loader_timings
    ]
    blocks = [
        f"`{report.command}`\n"
        f"{conditions}; commit {machine.commit or 'unknown'}\n"
        f"{report.num_videos} videos, {report.data_description}; clips of {report.clip_description}",
        f"Reading, one thread, one core, readers interleaved; medians of {report.clips_per_video} clips of each video.",
        _format_readers(report.reader_timings),
        "× decord, × PyAV: speed-up over decord and over PyAV's plain loop on the raw files; worst: the smallest "
        "speed-up over PyAV's plain loop on the same file. used: share of the decoded frames that were requested.",
        *errors,
        *missing,
        "Cost of packing, at the videos' own size.",
        format_markdown_table(("raw, kB per video", "packed, kB", "ratio", "PSNR, dB", "SSIM"), [packing_row]),
        "Augmentation in a loader worker: horizontal flip and RandAugment of crops.",
        format_markdown_table(("clips/s per core",), [(f"{report.augmentation_clips_per_second:.1f}",)]),
        "Loading: frames decoded and cropped as in training.",
        format_markdown_table(("worker processes", "raw, clips/s", "packed, clips/s"), loader_rows),
    ]
    return "\n\n".join(blocks)


def _format_readers(timings: Sequence[ReaderTiming]) -> str:
    header = ("reader", "files", "ms per clip", "clips/s", "× decord, raw", "× PyAV, raw", "× PyAV, worst", "used")
    rows = [
        (
            t.reader,
            t.file_kind,
            _format_number(t.seconds_per_clip and 1e3 * t.seconds_per_clip),
            _format_number(t.clips_per_second),
            _format_number(t.speedup_over_decord, 2),
            _format_number(t.speedup_over_pyav, 2),
            _format_number(t.min_speedup_over_pyav, 2),
            _format_number(t.frame_utilization and 100 * t.frame_utilization, 0, " %"),
        )
        for t in timings
    ]
    return format_markdown_table(header, rows)


def format_markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns: words to the left, numbers to the right."""
    widths = [max(len(row[k]) for row in (header, *rows)) for k in range(len(header))]
    is_text = [all(row[k][:1].isalpha() for row in rows) for k in range(len(header))]

    def format_row(cells: Sequence[str]) -> str:
        columns = zip(cells, widths, is_text, strict=True)
        return f"| {' | '.join(cell.ljust(width) if text else cell.rjust(width) for cell, width, text in columns)} |"

    rule = [f"{'-' * (width - 1)}{'-' if text else ':'}" for width, text in zip(widths, is_text, strict=True)]
    return "\n".join([format_row(header), format_row(rule), *map(format_row, rows)])


def _format_number(value: float | None, digits: int = 1, suffix: str = "") -> str:
    return "–" if value is None else f"{value:.{digits}f}{suffix}"
