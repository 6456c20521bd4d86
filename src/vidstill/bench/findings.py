"""What a benchmark of the data found, and how it is told."""

from dataclasses import dataclass

from vidstill.bench.loader import LoaderTiming
from vidstill.bench.machine import BenchmarkMachine
from vidstill.bench.reading import ReaderTiming
from vidstill.bench.words import format_markdown_table, format_number
from vidstill.data.tools.transcode import TranscodeConfig


@dataclass(frozen=True, kw_only=True)
class PackingCost:
    """What packing costs where videos keep their size: means over the videos.

    Args:
        config: of `vidstill data pack`.
        raw, packed: bytes of a video.
        psnr: of its first clip's pixels against the raw clip's, in dB.
        ssim: of that clip's brightness.
    """

    config: TranscodeConfig
    raw_bytes: float
    packed_bytes: float
    psnr: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class BenchmarkReport:
    """All that was measured, and on what.

    Args:
        clip_description: which frames it has, in words.
        clips_per_video: clips that were drawn from each video.
        missing_readers: readers that are not compared, and why.
        augmentation_clips_per_second: Clips that one core flips and changes by RandAugment.
    """

    command: str
    machine: BenchmarkMachine
    data_description: str
    num_videos: int
    clips_per_video: int
    clip_description: str
    reader_timings: list[ReaderTiming]
    missing_readers: dict[str, str]
    packing: PackingCost
    augmentation_clips_per_second: float
    loader_timings: list[LoaderTiming]


def format_benchmark_report(report: BenchmarkReport) -> str:
    """All of it in Markdown, which a terminal shows as well."""
    return "\n\n".join(
        [
            _format_setup(report),
            _format_readers(report),
            _format_packing(report.packing),
            _format_augmentation(report),
            _format_loading(report),
        ]
    )


def _format_setup(found: BenchmarkReport) -> str:
    machine = found.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"`{found.command}`\n"
        f"{machine.cpu}, {machine.num_cores} cores; {machine.system}; {versions}; commit {machine.commit or 'unknown'}\n"
        f"{found.num_videos} videos, {found.data_description}; clips of {found.clip_description}"
    )


def _format_readers(found: BenchmarkReport) -> str:
    rows = [
        (
            each.reader,
            each.file_kind,
            format_number(each.seconds_per_clip and 1e3 * each.seconds_per_clip),
            format_number(each.clips_per_second),
            format_number(each.speedup_over_decord, 2),
            format_number(each.speedup_over_pyav, 2),
            format_number(each.min_speedup_over_pyav, 2),
            format_number(each.frame_utilization and 100 * each.frame_utilization, 0, " %"),
        )
        for each in found.reader_timings
    ]
    heads = ("reader", "files", "ms a clip", "clips/s a core", "× decord, raw", "× PyAV, raw", "× PyAV, least", "used")
    notes = [f"{each.reader}, {each.file_kind}: {each.error}." for each in found.reader_timings if each.error]
    notes += [f"{name} is not compared: {why}." for name, why in found.missing_readers.items()]
    return "\n\n".join(
        [
            f"Reading, one thread on one core; medians of {found.clips_per_video} clips of each video, all readers in turns.",
            format_markdown_table(heads, rows),
            "× decord, × PyAV: times as fast as decord and as PyAV's plain loop on the raw files; least: as PyAV's "
            "plain loop on the same file, for the file where it is least. used: of the frames that were decoded, those "
            "that were asked for.",
            *notes,
        ]
    )


def _format_packing(packing: PackingCost) -> str:
    row = (
        f"{packing.raw_bytes / 1e3:.0f}",
        f"{packing.packed_bytes / 1e3:.0f}",
        f"{packing.packed_bytes / packing.raw_bytes:.2f}",
        f"{packing.psnr:.1f}",
        f"{packing.ssim:.3f}",
    )
    return "What packing costs, at the size that the videos had.\n\n" + format_markdown_table(
        ("raw, kB a video", "packed, kB", "ratio", "PSNR, dB", "SSIM"), [row]
    )


def _format_augmentation(report: BenchmarkReport) -> str:
    return "Augmenting, horizontal flip and RandAugment of crops, in a loader worker.\n\n" + format_markdown_table(
        ("clips/s a core",), [(format_number(report.augmentation_clips_per_second),)]
    )


def _format_loading(found: BenchmarkReport) -> str:
    rows = [
        (str(each.num_workers), format_number(each.raw_clips_per_second), format_number(each.packed_clips_per_second))
        for each in found.loader_timings
    ]
    heads = ("worker processes", "raw, clips/s", "packed, clips/s")
    return "Loading, read and cropped, as training takes them.\n\n" + format_markdown_table(heads, rows)
