"""The numbers that the automatic recipe goes by; none is a paper's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["cpu", "gpu"]
UP = float("inf")  # ends a table whose rows are for up to so many clips


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the automatic recipe goes by."""

    minutes: Mapping[Kind, float]  # of training, about
    speed: Mapping[Kind, float]  # billions of multiply-adds a second, of a core or of the GPU
    encoders: Mapping[Kind, tuple[tuple[float, int, int, int], ...]]  # up to so many clips: width, blocks, heads
    tubelets: Mapping[int, tuple[int, int, int]]  # by the rows and columns of a clip
    flat_tubelets: Mapping[int, tuple[int, int, int]]  # the same of pictures
    largest_side: Mapping[Kind, int]
    enlarged: float = 1.15  # a clip may have so many times the rows of its video
    frames: int = 16
    whole_seconds: float = 3.0  # shorter videos are seen from end to end
    span_seconds: float = 2.0  # of longer ones, so much is seen at once
    batches: Mapping[Kind, tuple[tuple[float, int], ...]]  # up to so many clips: clips in a step
    shown: int = 160_000  # clips that a training is to show in all
    epochs: tuple[int, int] = (30, 400)
    fewest_epochs: int = 10  # for which time is always taken
    rate: Mapping[Literal["shallow", "deep"], float]  # the highest, of a batch as it is
    deep: int = 12  # blocks, from which an encoder counts as such
    layer_decay: float = 0.75  # of deep ones that are not from scratch
    drop_path: float = 0.1  # of deep ones
    mixed_from: int = 50  # clips a class, on average
    unequal: float = 3.0  # times as many clips as the smallest class, from which classes are balanced
    balance: float = 0.5
    patience: float = 0.2  # of the epochs, where there are videos to watch; 10 epochs at least
    looked_at: int = 32  # files


RULES = Rules(
    minutes={"cpu": 15.0, "gpu": 180.0},
    speed={"cpu": 15.0, "gpu": 30_000.0},
    encoders={
        "cpu": ((500.0, 96, 4, 3), (UP, 192, 6, 3)),
        "gpu": ((1_000.0, 192, 6, 3), (20_000.0, 384, 12, 6), (UP, 768, 12, 12)),
    },
    tubelets={32: (4, 8, 8), 48: (4, 8, 8), 64: (4, 8, 8), 112: (4, 16, 16), 224: (2, 16, 16)},
    flat_tubelets={32: (1, 4, 4), 48: (1, 8, 8), 64: (1, 8, 8), 112: (1, 8, 8), 224: (1, 16, 16)},
    largest_side={"cpu": 48, "gpu": 224},
    batches={"cpu": ((200.0, 16), (UP, 32)), "gpu": ((1_000.0, 32), (10_000.0, 64), (UP, 128))},
    rate={"shallow": 5e-4, "deep": 5e-4},
)
