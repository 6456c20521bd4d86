"""Processes, device, precision and seeds of a run."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Literal, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vidstill.engine.cpu import describe_overload, find_bf16_flags
from vidstill.engine.interruption import RunStopped
from vidstill.engine.mixed_precision import ParameterCast
from vidstill.utils.rng import derive_sample_seed
from vidstill.utils.types import InputError

T = TypeVar("T")

FixedPrecision = Literal["bf16", "fp16", "fp32"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]


class Runtime:
    """One process of a run, alone or started by `torchrun` or `accelerate launch`, which Accelerate detects.

    Precision and loss scaling are handled here, not by Accelerate: it would leave its autocast on the task for good,
    and allow only one precision per process.
    """

    def __init__(self, precision: Precision = "auto"):
        from accelerate import Accelerator, DistributedDataParallelKwargs  # with boto3 and a parser of YAML

        ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        # without `cpu=True`, Accelerate takes two processes on CPUs for two separate runs
        cpu = not torch.accelerator.is_available()
        self.accelerator = Accelerator(mixed_precision="no", cpu=cpu, kwargs_handlers=[ddp])
        self.device = torch.device(self.accelerator.device)
        self.rank: int = self.accelerator.process_index
        self.world_size: int = self.accelerator.num_processes
        self._messages = list(filter(None, [describe_overload()]))
        self.requested_precision = precision
        self.set_precision(self._select_precision() if precision == "auto" else precision)

    def take_messages(self) -> list[str]:
        """Return what was wrong with the machine when this process started, to be printed once."""
        messages, self._messages = self._messages, []
        return messages

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def set_precision(self, precision: Literal["bf16", "fp16", "fp32"]) -> None:
        """Compute in this precision, with a new loss scale; parameters and optimizer state stay in fp32.

        Raises:
            InputError: fp16 without a GPU.
        """
        if precision == "fp16" and self.device.type != "cuda":
            raise InputError(f"fp16 needs a GPU and this process runs on {self.device.type}; take bf16 or fp32")
        self.precision = precision
        self._casts: WeakKeyDictionary[nn.Module, ParameterCast] = WeakKeyDictionary()
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")  # 2**16, as the papers' code

    def request_precision(self, precision: FixedPrecision) -> None:
        """Compute in this precision as if the run had been started with it."""
        self.requested_precision = precision
        self.set_precision(precision)

    @property
    def compute_dtype(self) -> torch.dtype:
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.precision]

    def compute(self, module: nn.Module) -> AbstractContextManager[object]:
        """Have a module of this package compute in the precision: its forward, and backward, belong inside."""
        if self.precision == "fp32":
            return nullcontext()
        if module not in self._casts:
            self._casts[module] = ParameterCast(module, self.compute_dtype)
        return self._casts[module].apply()

    def autocast(self) -> AbstractContextManager[object]:
        """Have a module of another library compute in the precision."""
        return nullcontext() if self.precision == "fp32" else torch.autocast(self.device.type, self.compute_dtype)

    def prepare(self, task: nn.Module) -> nn.Module:
        """Return the task on this process's device, in DDP if there are several processes."""
        with warnings.catch_warnings():
            # torch 2.15 renames the option; our buffers are constants, and older versions only have this name
            warnings.filterwarnings("ignore", message=".*broadcast_buffers")
            return self.accelerator.prepare_model(task)

    def seed_microbatch(self, seed: int, step: int, microbatch: int) -> None:
        """Seed torch's default generators (drop path) for one micro-batch, whichever process runs it."""
        sample_seed = derive_sample_seed(seed, step, microbatch * self.world_size + self.rank)
        torch.default_generator.manual_seed(sample_seed)  # torch.manual_seed takes 200 times as long: all other devices
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(sample_seed)

    def accumulate_gradients(self, model: nn.Module, *, last: bool) -> AbstractContextManager[object]:
        """Context of a micro-batch's forward and backward: gradients are synchronized after a step's last one only."""
        return nullcontext() if last else self.accelerator.no_sync(model)

    def backward(self, loss: Float[Tensor, ""], accumulation_steps: int) -> None:
        """Add a micro-batch to the gradient of the step, the mean over its micro-batches on all processes."""
        self.scaler.scale(loss / accumulation_steps).backward()

    def clip_grad_norm(
        self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, max_norm: float | None
    ) -> Float[Tensor, ""]:
        """Clip the gradient norm to `max_norm`, unless it is None; return the norm before.

        Args:
            parameters: Whose gradients are clipped.
            optimizer: Whose loss scale is removed first.
            max_norm: Over all parameters together.
        """
        self.scaler.unscale_(optimizer)
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None]).to(self.device)
        if max_norm is not None:
            clip_grads_with_norm_(parameters, max_norm, norm)
        return norm

    def step_optimizer(self, optimizer: torch.optim.Optimizer, *, accept: Bool[Tensor, ""]) -> None:
        """Take the step, or discard its gradients, as the device finds; the host does not wait for it.

        Args:
            optimizer: A fused one, or `LARS`; before any other the host waits.
            accept: Whether loss and gradient are finite on all ranks.
        """
        if getattr(optimizer, "_step_supports_amp_scaling", False):  # torch's name for: it reads `found_inf`
            optimizer.grad_scale, optimizer.found_inf = None, (~accept).float()  # type: ignore[attr-defined]
            optimizer.step()
        elif accept.item():
            optimizer.step()
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def all_reduce_mean(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Return the mean over all processes, on each."""
        return self.accelerator.reduce(values, reduction="mean")

    def all_gather(self, value: T) -> list[T]:
        """Return every rank's value, in the order of the ranks, on each."""
        from accelerate.utils import gather_object

        return gather_object([value])

    def broadcast(self, value: T) -> T:
        """Return rank 0's value on every rank: e.g. what it read from a disk that others may have changed since."""
        return self.all_gather(value)[0]

    def run_on_main(self, fn: Callable[[], T]) -> T:
        """Run `fn` on rank 0 and return its result on every rank.

        Raises:
            InputError: `fn` raised it; it is raised on every rank.
            RunStopped: `fn` raised it, or any other error, which is raised on rank 0 as it is.
        """
        result, error = None, None
        try:
            result = fn() if self.is_main else None
        except Exception as raised:
            error = raised
        result, kind, message = self.broadcast((result, *_describe_error(error)))
        if error is not None:
            raise error
        if kind is not None:
            raise kind(message)
        return cast(T, result)

    @contextmanager
    def enter_on_main(self, context: AbstractContextManager[None]) -> Iterator[None]:
        """Enter a context on rank 0, such as a lock, and leave it after the block.

        Raises:
            InputError: Entering it raised one; it is raised on every rank.
        """
        with ExitStack() as stack:
            self.run_on_main(lambda: stack.enter_context(context))
            yield

    def release_models(self) -> None:
        """Drop references to the prepared tasks, so that their memory is freed."""
        self.accelerator.free_memory()

    def close(self) -> None:
        """Leave the process group; the last call of a program."""
        self.accelerator.end_training()

    def _select_precision(self) -> Literal["bf16", "fp32"]:
        if self.device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        if self.device.type != "cpu":
            return "fp32"
        has_bf16 = all(self.all_gather(bool(find_bf16_flags())))  # the same answer on all ranks
        return "bf16" if has_bf16 else "fp32"


def is_lost_process(error: Exception) -> bool:
    """Return whether an error says that another process of this run has ended while this one waited for it."""
    is_gloo = isinstance(error, RuntimeError) and "gloo/transport" in str(error)  # connection closed, reset or broken
    return is_gloo or isinstance(error, torch.distributed.DistError)


def _describe_error(error: Exception | None) -> tuple[type[Exception] | None, str]:
    """Return what other ranks raise, whether or not the error itself can be sent."""
    if error is None:
        return None, ""
    if isinstance(error, (InputError, RunStopped)):
        return InputError if isinstance(error, InputError) else RunStopped, str(error)
    return RunStopped, f"rank 0 failed, and its own message says where ({type(error).__name__}: {error})"
