"""What a benchmark of the data found, and how it is told."""

from dataclasses import dataclass

from vidstill.bench.augmentation import Augmented, Device
from vidstill.bench.loader import Loaded
from vidstill.bench.machine import Machine
from vidstill.bench.reading import Reading
from vidstill.bench.words import number, table
from vidstill.data.tools.transcode import RecodeConfig


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What packing costs where videos keep their size: means over the videos.

    Args:
        settings: of `vidstill data pack`.
        raw, packed: bytes of a video.
        psnr: of its first clip's pixels against the raw clip's, in dB.
        ssim: of that clip's brightness.
    """

    settings: RecodeConfig
    raw: float
    packed: float
    psnr: float
    ssim: float


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that was measured, and on what.

    Args:
        clip: which frames it has, in words.
        rounds: clips that were drawn from each video.
        missing: readers that are not compared, and why.
    """

    command: str
    machine: Machine
    data: str
    videos: int
    rounds: int
    clip: str
    reading: list[Reading]
    missing: dict[str, str]
    packing: Packing
    device: Device
    augmentation: list[Augmented]
    loading: list[Loaded]


def tables(found: Findings) -> str:
    """All of it in Markdown, which a terminal shows as well."""
    return "\n\n".join([_about(found), _readers(found), _packs(found.packing), _places(found), _loaders(found)])


def _about(found: Findings) -> str:
    machine = found.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"`{found.command}`\n"
        f"{machine.cpu}, {machine.cores} cores; {machine.system}; {versions}; commit {machine.commit or 'unknown'}\n"
        f"{found.videos} videos, {found.data}; clips of {found.clip}"
    )


def _readers(found: Findings) -> str:
    rows = [
        (
            each.reader,
            each.files,
            number(each.seconds and 1e3 * each.seconds),
            number(each.clips_per_second),
            number(each.times_decord, 2),
            number(each.times_plain, 2),
            number(each.least, 2),
            number(each.used and 100 * each.used, 0, " %"),
        )
        for each in found.reading
    ]
    heads = ("reader", "files", "ms a clip", "clips/s a core", "× decord, raw", "× PyAV, raw", "× PyAV, least", "used")
    notes = [f"{each.reader}, {each.files}: {each.wrong}." for each in found.reading if each.wrong]
    notes += [f"{name} is not compared: {why}." for name, why in found.missing.items()]
    return "\n\n".join(
        [
            f"Reading, one thread on one core; medians of {found.rounds} clips of each video, all readers in turns.",
            table(heads, rows),
            "× decord, × PyAV: times as fast as decord and as PyAV's plain loop on the raw files; least: as PyAV's "
            "plain loop on the same file, for the file where it is least. used: of the frames that were decoded, those "
            "that were asked for.",
            *notes,
        ]
    )


def _packs(packing: Packing) -> str:
    row = (
        f"{packing.raw / 1e3:.0f}",
        f"{packing.packed / 1e3:.0f}",
        f"{packing.packed / packing.raw:.2f}",
        f"{packing.psnr:.1f}",
        f"{packing.ssim:.3f}",
    )
    return "What packing costs, at the size that the videos had.\n\n" + table(
        ("raw, kB a video", "packed, kB", "ratio", "PSNR, dB", "SSIM"), [row]
    )


def _places(found: Findings) -> str:
    """Where to augment."""
    heads = ("clips at once", "workers, clips/s a core", f"{found.device.name}, clips/s", "is worth, cores", "off by")
    rows = [
        (
            str(each.batch),
            number(each.workers),
            number(each.device),
            number(each.device / each.workers),
            number(each.difference, 3),
        )
        for each in found.augmentation
    ]
    last = found.augmentation[-1]
    worth = last.device / last.workers
    if found.device.threads:  # they are the workers' own cores
        better = "device" if worth > found.device.threads else "workers"
        means = f"The device is the CPU, where both take the same cores: the {better} make more of them."
    else:
        means = (
            f"The device does what {worth:.0f} cores would do in workers: take it where fewer can be spared for it. "
            f"It takes {1e3 * last.batch / last.device:.0f} ms of the device for {last.batch} clips."
        )
    title = "Augmenting, flip and RandAugment of crops; off by: levels between the two, mean over all pixels."
    return "\n\n".join([title, table(heads, rows), means])


def _loaders(found: Findings) -> str:
    rows = [(str(each.workers), number(each.raw), number(each.packed)) for each in found.loading]
    heads = ("worker processes", "raw, clips/s", "packed, clips/s")
    return "Loading, read and cropped, as training takes them.\n\n" + table(heads, rows)
