"""The numbers that the automatic recipe goes by; none is a paper's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["cpu", "gpu"]
UNLIMITED = float("inf")  # ends a table whose rows are for up to so many clips


@dataclass(frozen=True, kw_only=True)
class AutoRules:
    """What the automatic recipe goes by."""

    training_minutes: Mapping[DeviceKind, float]  # of training, about
    gmacs_per_second: Mapping[DeviceKind, float]  # billions of multiply-adds a second, of a core or of the GPU
    encoder_sizes: Mapping[
        DeviceKind, tuple[tuple[float, int, int, int], ...]
    ]  # up to so many clips: width, blocks, heads
    tubelets: Mapping[int, tuple[int, int, int]]  # by the rows and columns of a clip
    image_tubelets: Mapping[int, tuple[int, int, int]]  # the same of pictures
    max_side: Mapping[DeviceKind, int]
    max_upscale: float = 1.15  # a clip may have so many times the rows of its video
    frames: int = 16
    whole_video_seconds: float = 3.0  # shorter videos are seen from end to end
    clip_seconds: float = 2.0  # of longer ones, so much is seen at once
    batch_sizes: Mapping[DeviceKind, tuple[tuple[float, int], ...]]  # up to so many clips: clips in a step
    total_clips: int = 160_000  # clips that a training is to show in all
    epoch_range: tuple[int, int] = (30, 400)
    min_epochs: int = 10  # for which time is always taken
    peak_lr: Mapping[Literal["shallow", "deep"], float]  # the highest, of a batch as it is
    min_deep_depth: int = 12  # blocks, from which an encoder counts as such
    layer_decay: float = 0.75  # of deep ones that are not from scratch
    drop_path: float = 0.1  # of deep ones
    min_mixup_clips_per_class: int = 50  # clips a class, on average
    max_class_ratio: float = 3.0  # times as many clips as the smallest class, from which classes are balanced
    class_balance: float = 0.5
    patience_ratio: float = 0.2  # of the epochs, where there are videos to watch; 10 epochs at least
    max_probed_files: int = 32  # files


AUTO_RULES = AutoRules(
    training_minutes={"cpu": 15.0, "gpu": 180.0},
    gmacs_per_second={"cpu": 15.0, "gpu": 30_000.0},
    encoder_sizes={
        "cpu": ((500.0, 96, 4, 3), (UNLIMITED, 192, 6, 3)),
        "gpu": ((1_000.0, 192, 6, 3), (20_000.0, 384, 12, 6), (UNLIMITED, 768, 12, 12)),
    },
    tubelets={32: (4, 8, 8), 48: (4, 8, 8), 64: (4, 8, 8), 112: (4, 16, 16), 224: (2, 16, 16)},
    image_tubelets={32: (1, 4, 4), 48: (1, 8, 8), 64: (1, 8, 8), 112: (1, 8, 8), 224: (1, 16, 16)},
    max_side={"cpu": 48, "gpu": 224},
    batch_sizes={"cpu": ((200.0, 16), (UNLIMITED, 32)), "gpu": ((1_000.0, 32), (10_000.0, 64), (UNLIMITED, 128))},
    peak_lr={"shallow": 5e-4, "deep": 5e-4},
)
