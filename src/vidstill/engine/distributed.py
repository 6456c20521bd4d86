"""Processes, devices, precision, seeds: what one process of a run stands on."""

import os
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError

T = TypeVar("T")

Precision = Literal["auto", "bf16", "fp16", "fp32"]

_MIN_BF16_SPEEDUP = 1.3  # bf16 has to be so much faster than fp32, or its rounding buys nothing


class Runtime:
    """One process of a run, alone or started by `torchrun` or `accelerate launch`, which Accelerate finds out.

    Autocast and loss scaling are kept here rather than given to Accelerate: it would leave its autocast on the task
    for good, and allow one precision in a process.
    """

    def __init__(self, precision: Precision = "auto"):
        ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        # unless it is told that there is no other device, Accelerate takes two processes on CPUs for two lone ones
        cpu = not torch.accelerator.is_available()
        self.accelerator = Accelerator(mixed_precision="no", cpu=cpu, kwargs_handlers=[ddp])
        self.device = torch.device(self.accelerator.device)
        self.rank: int = self.accelerator.process_index
        self.world_size: int = self.accelerator.num_processes
        self.requested_precision = precision
        self.set_precision(self._select_precision() if precision == "auto" else precision)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def set_precision(self, precision: Literal["bf16", "fp16", "fp32"]) -> None:
        """From now on computes in this precision, with a new loss scale; parameters and optimiser stay in fp32.

        Raises:
            InputError: fp16 is asked of a CPU.
        """
        if precision == "fp16" and self.device.type != "cuda":
            raise InputError(f"fp16 needs a GPU and this process computes on {self.device.type}; take bf16 or fp32")
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")  # 2**16, as the papers' code

    def autocast(self) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def prepare(self, task: nn.Module) -> nn.Module:
        """The task on this process's device, with gradients shared where there are several processes."""
        with warnings.catch_warnings():
            # torch 2.15 renames the option; our buffers are constants, and older versions know this name only
            warnings.filterwarnings("ignore", message=".*broadcast_buffers")
            return self.accelerator.prepare_model(task)

    def seed_microbatch(self, seed: int, step: int, microbatch: int) -> None:
        """Seeds torch's default generators (drop path) for one chunk, the same whichever process meets that chunk."""
        torch.manual_seed(derive_sample_seed(seed, step, microbatch * self.world_size + self.rank))

    def accumulate_gradients(self, model: nn.Module, *, last: bool) -> AbstractContextManager[object]:
        """Around forward and backward of one chunk: gradients are shared after a step's last one only."""
        return nullcontext() if last else self.accelerator.no_sync(model)

    def backward(self, loss: Float[Tensor, ""], accumulation_steps: int) -> None:
        """Adds one chunk's part to the gradient of the step, the mean over its chunks on all processes."""
        self.scaler.scale(loss / accumulation_steps).backward()

    def clip_grad_norm(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float | None
    ) -> Float[Tensor, ""]:
        """Shortens the gradient to `longest`, where that is asked; gives the norm it had before."""
        self.scaler.unscale_(optimizer)
        norm = get_total_norm([p.grad for p in module.parameters() if p.grad is not None]).to(self.device)
        if max_norm is not None:
            clip_grads_with_norm_(module.parameters(), max_norm, norm)
        return norm

    def step_optimizer(self, optimizer: torch.optim.Optimizer, *, accept: bool) -> None:
        """Takes the step, or drops its gradients."""
        if accept:
            self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def all_reduce_mean(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The mean over all processes, the same in each."""
        return self.accelerator.reduce(values, reduction="mean")

    def all_gather(self, value: T) -> list[T]:
        """What each process gives, in the order of their ranks, the same list in each."""
        return gather_object([value])

    def broadcast(self, value: T) -> T:
        """What the first process gives, in each: what it met on a disk that others may already have changed."""
        return self.all_gather(value)[0]

    def run_on_main(self, fn: Callable[[], T]) -> T:
        """What the first process alone finds or does, in each.

        Raises:
            InputError: it refuses, in each.
        """
        found: Any = None
        if self.is_main:
            try:
                found = fn()
            except InputError as error:
                found = error
        found = self.broadcast(found)
        if isinstance(found, InputError):
            raise found
        return found

    def release_models(self) -> None:
        """Forgets the prepared tasks, so that their memory is free for the next one."""
        self.accelerator.free_memory()

    def barrier(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leaves the other processes; the last thing a program does."""
        self.accelerator.end_training()

    def _select_precision(self) -> Literal["bf16", "fp32"]:
        if self.device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        if self.device.type != "cpu":
            return "fp32"
        speedup = self.all_reduce_mean(torch.tensor([measure_bf16_speedup()]))  # one answer for all processes
        return "bf16" if speedup.item() >= _MIN_BF16_SPEEDUP else "fp32"


def count_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure_bf16_speedup() -> float:
    """How many times as fast as fp32 matrices this CPU multiplies bf16 ones, measured in a few hundredths of a second.

    Only a measurement tells: the instructions (AVX512-BF16, AMX, Arm's BF16) have many names, and without them bf16
    still works, slowly. The best of several turns is taken, so that other work does not change the answer.
    """
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(5):
        for dtype in best:
            tokens, weight = torch.ones(256, 384, dtype=dtype), torch.ones(384, 1152, dtype=dtype)
            begun = time.perf_counter()
            tokens @ weight
            best[dtype] = min(best[dtype], time.perf_counter() - begun)
    return best[torch.float32] / best[torch.bfloat16]
