"""One training loop for every task: steps, epochs, checkpoints, validation, interruption."""

import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vidstill.engine.checkpoint import load_state, save_state
from vidstill.engine.distributed import Runtime
from vidstill.engine.early_stopping import EarlyStoppingState, Validation
from vidstill.engine.logger import StepRecord, TrainingLogger
from vidstill.engine.lr_schedule import TrainingPlan
from vidstill.engine.optimizer import OptimConfig
from vidstill.utils.types import InputError

BatchFactory = Callable[[int], Iterator[tuple[Any, ...]]]
"""From the first step (counted from 0): this process's micro-batches, `accumulation_steps` for each step."""


class RunStopped(RuntimeError):
    """A run ended before its last step; the message says why, and the same command resumes it."""

    exit_code = 1


class RunInterrupted(RunStopped):
    """The run was ended by SIGINT or SIGTERM."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When a run's state is saved, besides at its end and at an interruption: whichever comes first."""

    seconds: float = 600.0
    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The outcome of a run."""

    steps: int
    resumed_at: int
    """Steps that were completed before this process started."""
    skipped_steps: int
    """Steps of the whole run whose loss or gradient was not finite."""
    best_epoch: int | None
    """Epoch whose weights the task has now, if early stopping selected one; None: the last step's."""
    best_score: float | None
    """Validation score of that epoch."""


@runtime_checkable
class ProgressAwareTask(Protocol):
    """A task that depends on the progress of the run."""

    def begin_step(self, progress: float) -> None:
        """Called before each step, in every process, with the completed share of all steps: 0 to below 1."""


def train_task(
    task: nn.Module,
    make_batches: BatchFactory,
    *,
    plan: TrainingPlan,
    optim: OptimConfig,
    runtime: Runtime,
    run_dir: Path,
    seed: int,
    save_config: SaveConfig = SaveConfig(),
    max_nonfinite_steps: int = 5,
    validation: Validation | None = None,
    title: str = "train",
) -> TrainingResult:
    """Train `task(*batch) -> Output` to the end of the plan, from the newest state in `run_dir` if there is one.

    Args:
        task: The module that returns the loss.
        make_batches: Yields this process's micro-batches.
        plan: Steps, batches and learning rates.
        optim: Builds the optimizer.
        runtime: Device, precision and processes.
        run_dir: Log and states are written here.
        seed: Of the noise in the task (drop path).
        save_config: When states are saved.
        max_nonfinite_steps: Consecutive steps without a finite loss and gradient that end the run.
        validation: Scored after each epoch, in every process; may end the run before the plan does.
        title: Stands before each message.

    Raises:
        RunStopped: The loss stays non-finite, or the disk is full; the last saved state remains. `RunInterrupted` at
            SIGINT or SIGTERM: the state is saved first, as it is if `make_batches` raises.
        InputError: `run_dir` holds the state of another run.
    """
    state_dir = run_dir / "state"
    trainer = Trainer(task, plan=plan, optim=optim, runtime=runtime, seed=seed, validation=validation)
    start_step = saved_step = trainer.restore(state_dir)
    saved_time = time.monotonic()
    batches = make_batches(start_step) if start_step < plan.total_steps else iter(())
    logger = TrainingLogger(run_dir, plan, start_step=start_step, is_main=runtime.is_main, title=title)
    with SignalHandler() as signals, logger:
        if start_step:
            logger.print_message(f"resuming after step {start_step} of {plan.total_steps}")
        try:
            while not trainer.is_finished:
                if trainer.needs_validation:
                    scores, stop = trainer.validate(signals)
                    with _stop_on_disk_error(saved_step):
                        if not stop:
                            logger.log_validation(trainer.completed_steps, scores)
                else:
                    record, stop = trainer.train_step(batches, signals)
                    with _stop_on_disk_error(saved_step):
                        logger.log_step(record)
                    if trainer.consecutive_nonfinite >= max_nonfinite_steps:
                        raise RunStopped(
                            f"loss or gradient were not finite in {max_nonfinite_steps} consecutive steps, up to step "
                            f"{record.step} (loss {record.loss}); lower --optim.base-lr or train with --precision "
                            "fp32; "
                            f"the state of step {saved_step} remains"
                        )
                    if trainer.needs_validation and not stop:
                        continue  # the state is saved after the epoch's validation
                seconds, steps = time.monotonic() - saved_time, trainer.completed_steps - saved_step
                due = seconds >= save_config.seconds or (save_config.steps is not None and steps >= save_config.steps)
                if due or stop or trainer.is_finished:
                    with _stop_on_disk_error(saved_step):
                        trainer.save(state_dir)
                    saved_step, saved_time = trainer.completed_steps, time.monotonic()
                if stop and not trainer.is_finished:
                    raise signals.build_interruption(trainer.completed_steps)
        except Exception as error:
            if not trainer.is_waiting_for_data:
                raise
            with _stop_on_disk_error(saved_step):  # the data failed; the state is consistent
                trainer.save(state_dir)
            if signals.signal_number is None:
                raise
            raise signals.build_interruption(trainer.completed_steps) from error  # a worker died of the same signal
        finally:
            if isinstance(batches, Generator):
                batches.close()
            runtime.release_models()
        best = trainer.load_best_weights()
        if best:
            logger.print_message(f"selected epoch {best.best_epoch}: {trainer.metric} {best.best_score:.4g}")
    return TrainingResult(
        steps=trainer.completed_steps,
        resumed_at=start_step,
        skipped_steps=trainer.skipped_steps,
        best_epoch=best.best_epoch if best else None,
        best_score=best.best_score if best else None,
    )


@contextmanager
def _stop_on_disk_error(saved_step: int) -> Iterator[None]:
    """Turn a full disk into a RunStopped."""
    try:
        yield
    except OSError as error:
        raise RunStopped(
            f"{error}; the state of step {saved_step} remains: free disk space and run the same command again"
        ) from error


class SignalHandler:
    """Records SIGINT and SIGTERM, so that the run ends after the current step; a second one ends it at once."""

    def __enter__(self) -> "SignalHandler":
        self.signal_number: int | None = None
        self.signal_time = 0.0
        self.previous_handlers: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self.previous_handlers = {
                number: signal.signal(number, self._handle_signal) for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self.previous_handlers.items():
            signal.signal(number, handler)

    def build_interruption(self, completed_steps: int) -> RunInterrupted:
        number = self.signal_number or signal.SIGTERM  # another rank may have got the signal
        return RunInterrupted(f"interrupted after step {completed_steps}; the same command resumes the run", number)

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number, self.signal_time = number, time.monotonic()
        elif time.monotonic() - self.signal_time > 3:  # torchrun forwards a terminal's Ctrl-C: it comes twice, at once
            raise KeyboardInterrupt


class Trainer:
    """A task with its optimizer, and their progress."""

    def __init__(
        self,
        task: nn.Module,
        *,
        plan: TrainingPlan,
        optim: OptimConfig,
        runtime: Runtime,
        seed: int,
        validation: Validation | None = None,
    ):
        self.task, self.plan, self.optim, self.runtime, self.seed = task, plan, optim, runtime, seed
        self.validation = validation
        runtime.set_precision(runtime.precision)  # with a loss scale of this run's own
        self.model = runtime.prepare(task)
        self.model.train()
        self.optimizer = optim.build(task)
        self.completed_steps = self.skipped_steps = self.consecutive_nonfinite = 0
        self.is_waiting_for_data = False  # then the state is consistent
        self.early_stopping = EarlyStoppingState()

    def train_step(self, batches: Iterator[tuple[Any, ...]], signals: SignalHandler) -> tuple[StepRecord, bool]:
        """Run one optimizer step; also return whether any rank got a signal to stop.

        The host reads the device once: all numbers in one tensor, before the step is accepted, so that a step that is
        not finite on one rank is skipped on all of them.
        """
        plan, runtime = self.plan, self.runtime
        lr = plan.compute_lr(self.completed_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        if isinstance(self.task, ProgressAwareTask):
            self.task.begin_step(self.completed_steps / plan.total_steps)
        start_time, data_seconds = time.perf_counter(), 0.0
        losses: list[Tensor] = []
        names: list[str] = []
        for micro in range(plan.accumulation_steps):
            request_time = time.perf_counter()
            self.is_waiting_for_data = True
            batch = next(batches, None)
            if batch is None:
                raise RuntimeError(f"the batches ended at step {self.completed_steps} of {plan.total_steps}")
            self.is_waiting_for_data = False
            data_seconds += time.perf_counter() - request_time
            runtime.seed_microbatch(self.seed, self.completed_steps, micro)
            with runtime.accumulate_gradients(self.model, last=micro == plan.accumulation_steps - 1):
                with runtime.autocast():
                    output = self.model(*batch)
                runtime.backward(output.loss, plan.accumulation_steps)
            names = list(output.parts)
            losses.append(torch.stack([v.detach().float() for v in (output.loss, *output.parts.values())]))
        norm = runtime.clip_grad_norm(self.task, self.optimizer, self.optim.max_grad_norm)
        has_signal = norm.new_tensor(signals.signal_number is not None)
        numbers = torch.cat([torch.stack(losses).mean(0), torch.stack([norm.float(), has_signal])])
        loss, *parts, grad_norm, stop = runtime.all_reduce_mean(numbers).tolist()
        is_finite = math.isfinite(loss) and math.isfinite(grad_norm)
        runtime.step_optimizer(self.optimizer, accept=is_finite)
        self._count_step(loss, is_finite)
        seconds = time.perf_counter() - start_time
        record = StepRecord(
            step=self.completed_steps,
            epoch=self.completed_steps / plan.steps_per_epoch,
            loss=loss,
            parts=dict(zip(names, parts, strict=True)),
            lr=lr,
            grad_norm=grad_norm,
            data_seconds=data_seconds,
            step_seconds=seconds,
            clips_per_second=plan.clips_per_step / seconds,
            is_skipped=not is_finite,
        )
        return record, stop > 0

    def _count_step(self, loss: float, is_finite: bool) -> None:
        self.completed_steps += 1
        self.skipped_steps += not is_finite
        scaler = self.runtime.scaler
        # fp16 finds its loss scale by overflows, which count as failures only if no scale is left to try
        if is_finite:
            self.consecutive_nonfinite = 0
        elif not (scaler.is_enabled() and math.isfinite(loss) and scaler.get_scale() >= 1):
            self.consecutive_nonfinite += 1

    @property
    def is_finished(self) -> bool:
        """Whether neither a step nor the validation of the last epoch is left."""
        stopped_early = self.validation is not None and self.early_stopping.should_stop(self.validation.patience)
        return stopped_early or (self.completed_steps == self.plan.total_steps and not self.needs_validation)

    @property
    def needs_validation(self) -> bool:
        """Whether an epoch has ended that has no validation score yet."""
        epochs, remainder = divmod(self.completed_steps, self.plan.steps_per_epoch)
        return self.validation is not None and not remainder and epochs > self.early_stopping.scored_epochs

    @property
    def metric(self) -> str:
        return self.validation.metric if self.validation else ""

    def validate(self, signals: SignalHandler) -> tuple[dict[str, float], bool]:
        """Score the epoch that has ended; also return whether any rank got a signal to stop.

        The scores are discarded then, and computed again by the process that resumes: workers may have died of the
        signal, so that their videos were not scored.
        """
        assert self.validation is not None
        epoch = self.completed_steps // self.plan.steps_per_epoch
        self.is_waiting_for_data = True
        scores = dict(self.validation.score_epoch(epoch))
        self.task.train()
        stop = any(self.runtime.all_gather(signals.signal_number is not None))
        self.is_waiting_for_data = False
        if not stop:
            keeps_best = self.validation.patience is not None
            self.early_stopping.update(epoch, scores.get(self.metric, math.nan), self.task if keeps_best else None)
        return scores, stop

    def load_best_weights(self) -> EarlyStoppingState | None:
        """Load the best epoch's weights into the task, if early stopping selects an epoch; return its scores then."""
        if not self.early_stopping.best_weights:
            return None
        self.task.load_state_dict(self.early_stopping.best_weights, strict=False)  # as in `restore`
        return self.early_stopping

    def save(self, directory: Path) -> None:
        """Save the state, on the main process."""
        if not self.runtime.is_main:
            return
        state = {
            "run": {**self.plan.get_identity(), "seed": self.seed},
            "precision": self.runtime.precision,
            "progress": {
                "completed_steps": self.completed_steps,
                "skipped_steps": self.skipped_steps,
                "consecutive_nonfinite": self.consecutive_nonfinite,
            },
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.runtime.scaler.state_dict(),
            "early_stopping": self.early_stopping.to_dict(),
        }
        save_state(directory, self.completed_steps, state)

    def restore(self, directory: Path) -> int:
        """Load the newest state, if there is one; return the number of completed steps.

        Raises:
            InputError: It belongs to another run.
        """
        state = load_state(directory)
        if state is None:
            return 0
        run = {**self.plan.get_identity(), "seed": self.seed}
        for name, value in run.items():
            if state["run"].get(name) != value:
                raise InputError(
                    f"{directory} holds the state of a run with {name} {state['run'].get(name)}, here it is {value}; "
                    "take another --out, or the settings of that run"
                )
        if differing := state["task"].keys() ^ self.task.state_dict().keys():
            raise InputError(
                f"{directory} holds the state of another model ({min(differing)} is in one of them only); "
                "take another --out"
            )
        if state["precision"] != self.runtime.precision:
            if self.runtime.requested_precision != "auto":
                raise InputError(
                    f"{directory} holds the state of a run in {state['precision']}, and this one is in "
                    f"{self.runtime.requested_precision}; take another --out, or --precision {state['precision']}"
                )
            self.runtime.set_precision(state["precision"])
        # not strict: a task may keep a frozen teacher out of its state_dict, and the names were compared above
        self.task.load_state_dict(state["task"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.runtime.scaler.load_state_dict(state["scaler"])
        self.early_stopping = EarlyStoppingState(**state["early_stopping"])
        for name, value in state["progress"].items():
            setattr(self, name, value)
        return self.completed_steps
