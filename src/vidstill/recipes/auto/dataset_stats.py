"""What the automatic recipe decides by: what can be counted of videos and of a machine, and nothing that takes time."""

import os
import re
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from vidstill.data.decode.images import is_image_file
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.tools.preview import add_video_stats
from vidstill.data.tools.stats import VideoStats, read_manifest_stats
from vidstill.engine.distributed import count_cores
from vidstill.recipes.auto.defaults import AUTO_RULES, DeviceKind
from vidstill.utils.rng import numpy_rng
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class DatasetStats:
    """What is known of the videos to train on.

    Args:
        class_counts: clips of each class.
        frames, seconds, rate, short_side, wide: of a clip in the middle of those that were looked at; how many times
            as long the longer side is as the shorter one. Without a frame rate, no seconds.
        has_left_right_classes: a class is called left or right, so that a mirrored clip may be another class's.
        num_probed_files: files.
    """

    num_clips: int
    class_counts: tuple[int, ...]
    is_images: bool
    median_frames: int
    median_seconds: float | None
    frame_rate: float | None
    median_short_side: int
    aspect_ratio: float
    has_left_right_classes: bool
    num_probed_files: int


EXAMPLE_STATS = DatasetStats(
    num_clips=400,
    class_counts=(100, 100, 100, 100),
    is_images=False,
    median_frames=100,
    median_seconds=4.0,
    frame_rate=25.0,
    median_short_side=240,
    aspect_ratio=1.33,
    has_left_right_classes=False,
    num_probed_files=0,
)
"""What stands for the data where there are none to look at."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    device_kind: DeviceKind
    count: int  # cores, or GPUs
    processes: int = 1

    def __str__(self) -> str:
        noun = "core" if self.device_kind == "cpu" else "GPU"
        return f"{self.count} {noun}{'' if self.count == 1 else 's'}"


def compute_dataset_stats(manifest: Manifest, *, max_files: int = AUTO_RULES.max_probed_files) -> DatasetStats:
    """What a list states of its videos, or what some of their files are.

    Raises:
        InputError: none of those that were looked at decodes.
    """
    rows = manifest.rows
    known, wrong = read_manifest_stats([manifest.source]), ""
    if not len(known) or not known.resolution_counts:
        known = VideoStats()
        for place in sorted(numpy_rng(0, "auto").permutation(len(rows))[:max_files].tolist()):
            try:
                add_video_stats(rows[place], known)
            except BrokenVideo as error:
                wrong = wrong or str(error)
    if not len(known):
        raise InputError(f"none of the videos of {manifest.source} that were looked at decodes; {wrong}")
    sizes = [tuple(map(int, size.split("x"))) for size, count in known.resolution_counts.items() for _ in range(count)]
    words = {word for name in manifest.classes for word in re.findall(r"[a-z]+", name.lower())}
    return DatasetStats(
        num_clips=len(rows),
        class_counts=tuple(np.bincount(rows.list_label_pairs()[1], minlength=len(manifest.classes)).tolist()),
        is_images=is_image_file(rows.get_name(0)),
        median_frames=int(median(known.frames)),
        median_seconds=float(np.median(known.seconds)) if len(known.seconds) else None,
        frame_rate=float(next(iter(known.frame_rate_counts))) if known.frame_rate_counts else None,
        median_short_side=int(median(map(min, sizes))),
        aspect_ratio=round(median(max(size) / min(size) for size in sizes), 2),
        has_left_right_classes=bool(words & {"left", "right", "leftwards", "rightwards"}),
        num_probed_files=min(max_files, len(known)),
    )


def detect_hardware() -> Hardware:
    """This one, and the processes that were started on it."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if torch.accelerator.is_available():
        return Hardware(device_kind="gpu", count=processes, processes=processes)
    return Hardware(device_kind="cpu", count=count_cores(), processes=processes)
