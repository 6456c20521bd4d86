"""How a command uses this machine, and where a run reads and writes."""

import os
from dataclasses import dataclass
from pathlib import Path

from vidstill.engine.distributed import Precision, count_cores
from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The options that every command on videos takes; its results depend on them only by rounding."""

    workers: int = -1  # decoding processes per device; -1: the device's share of the CPU cores, minus one
    device_batch: int | None = None  # clips that a device processes at once; None: all clips of a batch
    precision: Precision = "auto"  # auto: bf16 where the device computes it fast, else fp32

    def __post_init__(self) -> None:
        if self.workers < -1:
            raise InputError(f"--workers is {self.workers}; give 0 or more, or -1 for one less than there are cores")
        if self.device_batch is not None and self.device_batch < 1:
            raise InputError(f"--device-batch is {self.device_batch}; give 1 or more clips")

    @property
    def num_workers(self) -> int:
        """Decoding processes of this process: `workers`, or its share of the cores minus one where that is -1."""
        if self.workers >= 0:
            return self.workers
        local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that torchrun started here
        return max(1, count_cores() // local_world_size - 1)


@dataclass(frozen=True, kw_only=True)
class BaseRunConfig(Workers):
    """What every training needs beside its recipe."""

    data: str | Path  # directory of videos or of class directories, list, or packed shards; a path or URL
    out: Path  # run directory; the same command again resumes the run in it
    save_seconds: float = 600.0  # seconds between two checkpoints

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.save_seconds >= 0:
            raise InputError(f"--save-seconds is {self.save_seconds}; give 0 or more seconds")
