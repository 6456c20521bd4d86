"""Steps as the host sees them: submitted, and read one step later, when the device has finished them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vidstill.engine.distributed import Runtime
from vidstill.engine.logger import StepRecord
from vidstill.engine.lr_schedule import TrainingPlan
from vidstill.engine.matmul_limit import measure_matmul_limit
from vidstill.engine.state_saver import StateSaver

_get_matmul_limit = cache(measure_matmul_limit)  # which takes a quarter of a second


class HostBuffers:
    """Host memory for a few numbers of each step, on their way from the device; page-locked for a GPU."""

    def __init__(self) -> None:
        self._free: list[tuple[Tensor, np.ndarray]] = []  # the same memory, as torch and as NumPy see it

    def copy(self, numbers: Float[Tensor, "n"]) -> Callable[[], list[float]]:
        """Begin to copy numbers, equally many each time; return what waits for the copy and reads it, once."""
        is_cuda = numbers.device.type == "cuda"
        if self._free:
            buffer, array = self._free.pop()
        else:
            buffer = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=is_cuda)
            array = buffer.numpy()
        buffer.copy_(numbers, non_blocking=is_cuda)
        copied = torch.cuda.Event() if is_cuda else None
        if copied is not None:
            copied.record()

        def read() -> list[float]:
            if copied is not None:
                copied.synchronize()
            self._free.append((buffer, array))
            return array.tolist()

        return read


@dataclass(kw_only=True)
class PendingStep:
    """What the host knows of a step that it has submitted."""

    step: int  # completed steps, including this one
    lr: float
    part_names: list[str]
    # returns, over all ranks, the loss, its parts, the gradient norm and the share of ranks that got a signal to stop;
    # then the loss scale after the step, or 1
    read_numbers: Callable[[], list[float]]
    data_seconds: float
    start_time: float  # of time.perf_counter


class StepReader:
    """Reads each step's numbers one step late, counts the steps and judges them.

    Args:
        plan: Says what a step is.
        saver: Learns whether the run is healthy.
        searches_loss_scale: Whether fp16's loss scale is looked for, which makes steps fail at first.
    """

    def __init__(self, plan: TrainingPlan, saver: StateSaver, *, searches_loss_scale: Callable[[], bool]):
        self.plan, self.saver, self.searches_loss_scale = plan, saver, searches_loss_scale
        self.buffers = HostBuffers()
        self.pending: tuple[PendingStep, float] | None = None  # with its seconds so far
        self.skipped_steps = 0  # of the whole run, whose loss or gradient was not finite
        self.consecutive_nonfinite = 0
        self.has_signal = False  # any rank got one, as the steps say
        self.last_record: StepRecord | None = None
        self.max_clips_per_second: float | None = None  # of matrix products alone, on all devices; None: unknown

    def exchange(self, step: PendingStep) -> StepRecord | None:
        """Take a step that was submitted; return the record of the one before, unless it has been read."""
        previous, self.pending = self.pending, None
        record = None if previous is None else self._count(*previous, previous[0].read_numbers())
        self.pending = step, time.perf_counter() - step.start_time
        return record

    def read(self) -> StepRecord | None:
        """Wait for the last step and return its record; None if it has been read."""
        if self.pending is None:
            return None
        (step, seconds), self.pending = self.pending, None
        start_time = time.perf_counter()
        numbers = step.read_numbers()
        return self._count(step, seconds + time.perf_counter() - start_time, numbers)

    def check(self, max_nonfinite_steps: int) -> None:
        """Raise RunStopped if so many consecutive steps were not finite."""
        if self.consecutive_nonfinite >= max_nonfinite_steps and (record := self.last_record):
            self.saver.write(self.saver.wait)
            reason = f"loss or gradient were not finite in {max_nonfinite_steps} consecutive steps"
            raise self.saver.build_stop(f"{reason}, up to step {record.step} (loss {record.loss})")

    def measure_limit(self, runtime: Runtime, flops_per_clip: int) -> None:
        """Measure what this process's device computes at best, for the records' `mfu`; all ranks have such a device."""
        limit = _get_matmul_limit(runtime.device, runtime.compute_dtype) * runtime.world_size
        self.max_clips_per_second = limit / flops_per_clip

    def _count(self, step: PendingStep, seconds: float, numbers: list[float]) -> StepRecord:
        loss, *parts, grad_norm, stop, scale = numbers
        is_finite = math.isfinite(loss) and math.isfinite(grad_norm)
        self.skipped_steps += not is_finite
        # fp16 finds its loss scale by overflows, which count as failures only if no scale is left to try
        is_failure = not (is_finite or (self.searches_loss_scale() and math.isfinite(loss) and scale >= 1))
        if is_finite:
            self.consecutive_nonfinite = 0
        elif is_failure:
            self.consecutive_nonfinite += 1
        self.saver.judge_step(step.step, loss, is_accepted=is_finite, is_failure=is_failure)
        self.has_signal = self.has_signal or stop > 0
        rate = self.plan.clips_per_step / seconds
        self.last_record = StepRecord(
            step=step.step,
            epoch=step.step / self.plan.steps_per_epoch,
            loss=loss,
            parts=dict(zip(step.part_names, parts, strict=True)),
            lr=step.lr,
            grad_norm=grad_norm,
            data_seconds=step.data_seconds,
            step_seconds=seconds,
            clips_per_second=rate,
            is_skipped=not is_finite,
            mfu=self.max_clips_per_second and rate / self.max_clips_per_second,
        )
        return self.last_record
