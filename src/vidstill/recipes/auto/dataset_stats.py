"""What the automatic recipe decides by: counts of the data and of the machine, and no measured time."""

import os
import re
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from vidstill.data.decode.images import is_image_file
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.tools.probe import VideoStats, read_manifest_stats, read_video_facts
from vidstill.engine.cpu import count_cores
from vidstill.recipes.auto.defaults import MAX_PROBED_FILES, DeviceKind
from vidstill.utils.rng import numpy_rng
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class DatasetStats:
    """Counts of the training set; medians are over the probed files."""

    num_clips: int
    class_counts: tuple[int, ...]  # clips of each class
    is_images: bool
    median_frames: int
    median_seconds: float | None  # None: the frame rate is unknown
    frame_rate: float | None
    median_short_side: int  # pixels
    aspect_ratio: float  # longer side / shorter side, the median
    has_left_right_classes: bool  # a class is called left or right: a flipped clip may belong to another class


@dataclass(frozen=True, kw_only=True)
class Hardware:
    device_kind: DeviceKind
    count: int  # cores, or GPUs
    processes: int = 1

    def __str__(self) -> str:
        noun = "core" if self.device_kind == "cpu" else "GPU"
        return f"{self.count} {noun}{'' if self.count == 1 else 's'}"


def compute_dataset_stats(manifest: Manifest) -> DatasetStats:
    """Return what the manifest states about its videos, or what some of the files are.

    Raises:
        InputError: None of the probed files decodes.
    """
    rows = manifest.rows
    stats, first_error = read_manifest_stats([manifest.rows]), ""
    if not len(stats) or not stats.count().resolution_counts:
        stats = VideoStats()
        for index in sorted(numpy_rng(0, "auto").permutation(len(rows))[:MAX_PROBED_FILES].tolist()):
            try:
                stats.add(read_video_facts(rows[index]))
            except BrokenVideo as error:
                first_error = first_error or str(error)
    if not len(stats):
        raise InputError(f"none of the probed videos of {manifest.source} decodes; {first_error}")
    counts = stats.count()
    sizes = [tuple(map(int, size.split("x"))) for size, count in counts.resolution_counts.items() for _ in range(count)]
    words = {word for name in manifest.classes for word in re.findall(r"[a-z]+", name.lower())}
    return DatasetStats(
        num_clips=len(rows),
        class_counts=tuple(np.bincount(rows.list_label_pairs()[1], minlength=len(manifest.classes)).tolist()),
        is_images=is_image_file(rows.get_name(0)),
        median_frames=int(median(stats.frames)),
        median_seconds=float(np.median(stats.seconds)) if len(stats.seconds) else None,
        frame_rate=float(next(iter(counts.frame_rate_counts))) if counts.frame_rate_counts else None,
        median_short_side=int(median(map(min, sizes))),
        aspect_ratio=round(median(max(size) / min(size) for size in sizes), 2),
        has_left_right_classes=bool(words & {"left", "right", "leftwards", "rightwards"}),
    )


def detect_hardware() -> Hardware:
    """Return this machine's cores, or the GPUs of the processes that were started."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if torch.accelerator.is_available():
        return Hardware(device_kind="gpu", count=processes, processes=processes)
    return Hardware(device_kind="cpu", count=count_cores(), processes=processes)
