"""The numbers that the automatic recipe decides by; none is a paper's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["cpu", "gpu"]
UNLIMITED = float("inf")  # ends a table whose rows are for up to so many clips


@dataclass(frozen=True, kw_only=True)
class AutoRules:
    """Limits and tables; tables by the number of clips are ascending."""

    training_minutes: Mapping[DeviceKind, float]  # target for the whole training
    gmacs_per_second: Mapping[DeviceKind, float]  # 10^9 multiply-adds per second of a core or a GPU
    encoder_sizes: Mapping[DeviceKind, tuple[tuple[float, int, int, int], ...]]  # up to n clips: width, depth, heads
    tubelets: Mapping[int, tuple[int, int, int]]  # by the side of a clip in pixels
    image_tubelets: Mapping[int, tuple[int, int, int]]  # the same for images
    max_side: Mapping[DeviceKind, int]  # pixels
    max_upscale: float = 1.15  # side of a clip / short side of the video, at most
    frames: int = 16  # per clip
    whole_video_seconds: float = 3.0  # up to this length, a clip spans the whole video
    clip_seconds: float = 2.0  # span of a clip in longer videos
    batch_sizes: Mapping[DeviceKind, tuple[tuple[float, int], ...]]  # up to n clips: batch
    total_clips: int = 160_000  # clips shown in the whole training
    epoch_range: tuple[int, int] = (30, 400)
    min_epochs: int = 10  # even if they take more than the target time
    peak_lr: Mapping[Literal["shallow", "deep"], float]
    min_deep_depth: int = 12  # blocks from which an encoder counts as deep
    layer_decay: float = 0.75  # of deep pre-trained encoders
    drop_path: float = 0.1  # of deep encoders
    min_mixup_clips_per_class: int = 50  # on average
    max_class_ratio: float = 3.0  # largest class / smallest class; above, classes are balanced
    class_balance: float = 0.5
    patience_ratio: float = 0.2  # patience / epochs, with a validation set; 10 epochs at least
    max_probed_files: int = 32


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
