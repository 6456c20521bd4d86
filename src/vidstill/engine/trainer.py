"""One loop for every task: steps, epochs, when to save, when to test and when to stop."""

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
"""From the step to begin with (counted from 0): this process's chunks, `accumulation` of them for each step."""


class RunStopped(RuntimeError):
    """A run ended before its last step: the sentence says why, and the same command goes on from the saved state."""

    exit_code = 1


class RunInterrupted(RunStopped):
    """The user or the system asked for it (SIGINT, SIGTERM)."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When a run's state is saved, besides at its end and when it is interrupted: whichever comes first."""

    seconds: float = 600.0
    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """How a run went."""

    steps: int
    resumed_at: int
    """Steps that had been done when this process began."""
    skipped_steps: int
    """Steps of the whole run whose loss or gradient was not finite."""
    best_epoch: int | None
    """Whose weights the task has now, where a score chose among them; None: the last step's."""
    best_score: float | None
    """That chose them."""


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
    """Trains `task(*batch) -> Output` to the end of the plan, from the newest state in `run_dir` where there is one.

    Args:
        task: what it holds outside its `state_dict()` (a frozen teacher) is neither trained nor saved. Where it is
            `loop.ProgressAwareTask`, it hears before each step how far the run has come.
        max_nonfinite_steps: so many steps in a row without a finite loss stop the run.
        validation: what is scored after each epoch, in every process, and may end the run before the plan does.

    Raises:
        RunStopped: the loss stays not finite, or the disk is full: the last saved state stands. `RunInterrupted`: SIGINT
            or SIGTERM; the state is saved first, as it is where `batches` raises anything.
        InputError: `run_dir` holds the state of another run.
    """
    states = run_dir / "state"
    loop = Trainer(task, plan=plan, optim=optim, runtime=runtime, seed=seed)
    begin = saved = loop.restore(states)
    saved_at = time.monotonic()
    stream = make_batches(begin) if begin < plan.total_steps else iter(())
    with (
        SignalHandler() as signals,
        TrainingLogger(run_dir, plan, start_step=begin, is_main=runtime.is_main, title=title) as report,
    ):
        if begin:
            report.print_message(f"goes on after step {begin} of {plan.total_steps}")
        try:
            while not loop.is_finished(validation):
                if validation and loop.needs_validation:
                    found, stop = loop.validate(validation, signals)
                    if not stop:
                        with _stop_on_disk_error(saved):
                            report.log_validation(loop.completed_steps, found)
                else:
                    step, stop = loop.train_step(stream, signals)
                    with _stop_on_disk_error(saved):
                        report.log_step(step)
                    if step.is_skipped:
                        report.print_message(
                            f"step {step.step} is skipped: loss {step.loss}, gradient norm {step.grad_norm}"
                        )
                    if loop.consecutive_nonfinite >= max_nonfinite_steps:
                        raise RunStopped(
                            f"loss or gradient were not finite in {max_nonfinite_steps} steps in a row, up to step {loop.completed_steps} "
                            f"(loss {step.loss}); lower base_lr or train in fp32; the state of step {saved} stands"
                        )
                    if validation and loop.needs_validation and not stop:
                        continue  # a state is saved once the epoch is scored
                last = loop.is_finished(validation)
                due = save_config.steps is not None and loop.completed_steps - saved >= save_config.steps
                if due or stop or last or time.monotonic() - saved_at >= save_config.seconds:
                    with _stop_on_disk_error(saved):
                        loop.save(states)
                    saved, saved_at = loop.completed_steps, time.monotonic()
                if stop and not last:
                    raise _build_interruption(signals, loop.completed_steps)
            if validation and loop.load_best_weights(validation):
                report.print_message(
                    f"takes the weights of epoch {loop.early_stopping.best_epoch}: {validation.metric} {loop.early_stopping.best_score:.4g}"
                )
        except Exception as error:
            if not loop.waiting_for_data:
                raise
            with _stop_on_disk_error(saved):  # the data failed: what has been learned is whole
                loop.save(states)
            if signals.signal_number is None:
                raise
            raise _build_interruption(signals, loop.completed_steps) from error  # a worker has died of the same signal
        finally:
            if isinstance(stream, Generator):
                stream.close()
            runtime.release_models()
    best = loop.early_stopping
    return TrainingResult(
        steps=loop.completed_steps,
        resumed_at=begin,
        skipped_steps=loop.skipped_steps,
        best_epoch=best.best_epoch if best.best_weights else None,
        best_score=best.best_score if best.best_weights else None,
    )


@contextmanager
def _stop_on_disk_error(saved_step: int) -> Iterator[None]:
    """Says what a full disk means for the run."""
    try:
        yield
    except OSError as error:
        raise RunStopped(
            f"{error}; the state of step {saved_step} stands: make room and run the same command again"
        ) from error


class SignalHandler:
    """Turns SIGINT and SIGTERM into a wish that is granted between two steps; who insists is obeyed at once."""

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

    def _handle_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number, self.signal_time = number, time.monotonic()
        elif (
            time.monotonic() - self.signal_time > 3
        ):  # torchrun passes a terminal's Ctrl-C on: that comes twice, at once
            raise KeyboardInterrupt


def _build_interruption(signals: SignalHandler, completed_steps: int) -> RunInterrupted:
    number = signals.signal_number or signal.SIGTERM  # another process may have been the one that was asked
    return RunInterrupted(f"interrupted after step {completed_steps}; the same command goes on from there", number)


@runtime_checkable
class ProgressAwareTask(Protocol):
    """A task that wants to know how far the run has come."""

    def begin_step(self, progress: float) -> None:
        """Called before each step, in every process, with the share of all steps that is done: 0 to below 1."""


class Trainer:
    """A task with its optimiser, and how far they have come."""

    def __init__(self, task: nn.Module, *, plan: TrainingPlan, optim: OptimConfig, runtime: Runtime, seed: int):
        self.task, self.plan, self.optim, self.runtime, self.seed = task, plan, optim, runtime, seed
        runtime.set_precision(runtime.precision)  # with a loss scale of this run's own
        self.model = runtime.prepare(task)
        self.model.train()
        self.optimizer = optim.build(task)
        self.completed_steps = self.skipped_steps = self.consecutive_nonfinite = 0
        self.waiting_for_data = False  # for data: then nothing is half changed
        self.early_stopping = EarlyStoppingState()

    def train_step(self, stream: Iterator[tuple[Any, ...]], signals: SignalHandler) -> tuple[StepRecord, bool]:
        """One step of the optimiser; and whether any process has been asked to stop.

        The host reads the device once: all numbers in one tensor, before a step is accepted, so that a step that
        is not finite in one process is skipped in all of them.
        """
        plan, runtime = self.plan, self.runtime
        rate = plan.compute_lr(self.completed_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        if isinstance(self.task, ProgressAwareTask):
            self.task.begin_step(self.completed_steps / plan.total_steps)
        begun, waited = time.perf_counter(), 0.0
        chunks: list[Tensor] = []
        names: list[str] = []
        for micro in range(plan.accumulation_steps):
            asked = time.perf_counter()
            self.waiting_for_data = True
            batch = next(stream, None)
            if batch is None:
                raise RuntimeError(f"the batches ended at step {self.completed_steps} of {plan.total_steps}")
            self.waiting_for_data = False
            waited += time.perf_counter() - asked
            runtime.seed_microbatch(self.seed, self.completed_steps, micro)
            with runtime.accumulate_gradients(self.model, last=micro == plan.accumulation_steps - 1):
                with runtime.autocast():
                    output = self.model(*batch)
                runtime.backward(output.loss, plan.accumulation_steps)
            names = list(output.parts)
            chunks.append(torch.stack([v.detach().float() for v in (output.loss, *output.parts.values())]))
        norm = runtime.clip_grad_norm(self.task, self.optimizer, self.optim.max_grad_norm)
        asked_to_stop = norm.new_tensor(signals.signal_number is not None)
        numbers = torch.cat([torch.stack(chunks).mean(0), torch.stack([norm.float(), asked_to_stop])])
        loss, *parts, grad_norm, stop = runtime.all_reduce_mean(numbers).tolist()
        accept = math.isfinite(loss) and math.isfinite(grad_norm)
        runtime.step_optimizer(self.optimizer, accept=accept)
        self._count_step(loss, accept)
        seconds = time.perf_counter() - begun
        step = StepRecord(
            step=self.completed_steps,
            epoch=self.completed_steps / plan.steps_per_epoch,
            loss=loss,
            parts=dict(zip(names, parts, strict=True)),
            lr=rate,
            grad_norm=grad_norm,
            data_seconds=waited,
            step_seconds=seconds,
            clips_per_second=plan.clips_per_step / seconds,
            is_skipped=not accept,
        )
        return step, stop > 0

    def _count_step(self, loss: float, accepted: bool) -> None:
        self.completed_steps += 1
        self.skipped_steps += not accepted
        scaler = self.runtime.scaler
        # fp16 finds its loss scale by overflowing, which is a failure only where no scale is left to try
        if accepted:
            self.consecutive_nonfinite = 0
        elif not (scaler.is_enabled() and math.isfinite(loss) and scaler.get_scale() >= 1):
            self.consecutive_nonfinite += 1

    def is_finished(self, validation: Validation | None) -> bool:
        """Whether nothing is left to do: neither a step, nor a score of the last epoch."""
        if validation is None:
            return self.completed_steps == self.plan.total_steps
        return self.early_stopping.should_stop(validation.patience) or (
            self.completed_steps == self.plan.total_steps and not self.needs_validation
        )

    @property
    def needs_validation(self) -> bool:
        """Whether an epoch has just ended that is not scored yet."""
        epochs, within = divmod(self.completed_steps, self.plan.steps_per_epoch)
        return not within and epochs > self.early_stopping.scored_epochs

    def validate(self, validation: Validation, signals: SignalHandler) -> tuple[dict[str, float], bool]:
        """Scores the epoch that has ended; and whether any process has been asked to stop.

        What was found counts for nothing then, and is found again by the process that goes on: workers may have died of
        the signal, and their videos were not scored.
        """
        epoch = self.completed_steps // self.plan.steps_per_epoch
        self.waiting_for_data = True  # nothing is half changed by what fails here
        found = dict(validation.score_epoch(epoch))
        self.task.train()
        stop = any(self.runtime.all_gather(signals.signal_number is not None))
        self.waiting_for_data = False
        if not stop:
            self.early_stopping.update(
                epoch, found.get(validation.metric, math.nan), self.task if validation.patience else None
            )
        return found, stop

    def load_best_weights(self, validation: Validation) -> bool:
        """Gives the task the weights of its best epoch, if a score was to choose among them and there is one."""
        if validation.patience is not None and self.early_stopping.best_weights:
            self.task.load_state_dict(self.early_stopping.best_weights, strict=False)  # as in `restore`
            return True
        return False

    def save(self, directory: Path) -> None:
        if not self.runtime.is_main:
            return
        state = {
            "run": {**self.plan.get_identity(), "seed": self.seed},
            "precision": self.runtime.precision,
            "progress": {
                "done": self.completed_steps,
                "skipped": self.skipped_steps,
                "in_a_row": self.consecutive_nonfinite,
            },
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.runtime.scaler.state_dict(),
        }
        if self.early_stopping.scored_epochs:
            state["watched"] = self.early_stopping.to_dict()
        save_state(directory, self.completed_steps, state)

    def restore(self, directory: Path) -> int:
        """Takes over the newest state, if there is one; gives the steps that are done.

        Raises:
            InputError: it is another run's.
        """
        state = load_state(directory)
        if state is None:
            return 0
        run = {**self.plan.get_identity(), "seed": self.seed}
        for name, value in run.items():
            if state["run"].get(name) != value:
                raise InputError(
                    f"{directory} holds the state of a run whose {name} is {state['run'].get(name)}, here it is {value}; "
                    "choose another output folder, or the settings of that run"
                )
        if strangers := state["task"].keys() ^ self.task.state_dict().keys():
            raise InputError(
                f"{directory} holds the state of another model ({min(strangers)} is in one of them only); "
                "choose another output folder"
            )
        if state["precision"] != self.runtime.precision:
            self._resume_precision(directory, state["precision"])
        # not strict: a task may keep a frozen teacher out of its state_dict, and the names have just been compared
        self.task.load_state_dict(state["task"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.runtime.scaler.load_state_dict(state["scaler"])
        self.early_stopping = EarlyStoppingState(**state.get("watched", {}))
        progress = state["progress"]
        self.completed_steps, self.skipped_steps, self.consecutive_nonfinite = (
            progress["done"],
            progress["skipped"],
            progress["in_a_row"],
        )
        return self.completed_steps

    def _resume_precision(self, directory: Path, precision: Any) -> None:
        if self.runtime.requested_precision != "auto":
            raise InputError(
                f"{directory} holds the state of a run in {precision} and {self.runtime.requested_precision} is asked for; "
                "choose another output folder, or the precision of that run"
            )
        self.runtime.set_precision(precision)
