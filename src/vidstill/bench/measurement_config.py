"""The options of `vidstill bench step` and `bench infer`."""

import math
from dataclasses import dataclass
from typing import Literal

from vidstill.engine.compile import RequestedCompileMode
from vidstill.engine.distributed import FixedPrecision, Runtime
from vidstill.utils.types import check_range


@dataclass(frozen=True, kw_only=True)
class MeasurementConfig:
    """How often what is measured, and against whom."""

    device_batch: int = 4  # clips that the device processes at once
    # bf16, fp32, or both; none: the one that a run takes on this machine
    precision: tuple[Literal["bf16", "fp32"], ...] = ()
    rounds: int = 5  # turns of each side
    turn_seconds: float = 2.0  # the work is repeated as often as fits a turn, at least once
    alone: bool = False  # measure vidstill only

    def __post_init__(self) -> None:
        check_range(1, math.inf, device_batch=self.device_batch, rounds=self.rounds)
        check_range(0, math.inf, turn_seconds=self.turn_seconds)

    def list_precisions(self) -> list[FixedPrecision]:
        """Return the precisions that are measured."""
        return list(dict.fromkeys(self.precision)) or [Runtime().precision]


@dataclass(frozen=True, kw_only=True)
class StepConfig(MeasurementConfig):
    """What `bench step` measures."""

    # torch.compile of our step, as in a run: of the blocks (one graph for all of a kind) or of everything in one graph
    # (full); auto: blocks on a GPU, off on a CPU
    compile: RequestedCompileMode = "auto"
    # keep only the inputs of our blocks for the backward pass and compute them twice: less memory, more time
    activation_checkpointing: bool = False
