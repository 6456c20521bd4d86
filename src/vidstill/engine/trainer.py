"""One training loop for every task: steps, epochs, checkpoints, validation, interruption."""

import math
import time
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidstill.engine.checkpoint import STATE_DIR
from vidstill.engine.cpu import keep_freed_memory, restore_num_threads
from vidstill.engine.distributed import Runtime
from vidstill.engine.ema import WeightAverage
from vidstill.engine.garbage import GarbageCollector
from vidstill.engine.health import LossHistory
from vidstill.engine.interruption import SignalHandler
from vidstill.engine.logger import StepRecord, TrainingLogger
from vidstill.engine.lr_schedule import TrainingPlan
from vidstill.engine.optimizer import OptimConfig
from vidstill.engine.protocols import BatchFactory, ProgressAwareTask
from vidstill.engine.state import check_state, convert_content_errors, load_optimizer, load_scaler, read_newest_state
from vidstill.engine.state_saver import StateSaver
from vidstill.engine.state_writer import StateWriter
from vidstill.engine.step_reader import PendingStep, StepReader
from vidstill.engine.validation import Validation, ValidationHistory

_STEP_COUNTS = ("skipped_steps", "consecutive_nonfinite")  # saved, as attributes of the reader of steps


class Trainer:
    """A task with its optimizer, and their progress.

    Args:
        task: A module that returns the loss.
        make_batches: Yields this process's micro-batches.
        plan: Steps, batches and learning rates.
        optim: Builds the optimizer.
        runtime: Device, precision and processes.
        run_dir: Log and states are written here.
        seed: Of the noise in the task (drop path).
        save_seconds: The state is saved at the end, at an interruption, and after so much time.
        save_steps: Or after so many steps, if that comes first.
        keep_states: States that remain, the newest ones.
        keep_every: The state is saved after each so many steps, and remains.
        fork_step: The state of this step may be of other learning rates, epochs or precision: the run goes on from it
            with these.
        max_nonfinite_steps: Consecutive steps without a finite loss and gradient that end the run.
        ema_decay: Of an average of the weights, which is scored beside them; None: there is none.
        flops_per_clip: Floating point operations of a step, per clip; None: unknown.
        validation: Scored after each epoch, in every process; may end the run before the plan does.
        advice: What a user can do about a loss that explodes.
        title: Stands before each message.
        noun: What the clips are called, such as "image".
    """

    def __init__(
        self,
        task: nn.Module,
        make_batches: BatchFactory,
        *,
        plan: TrainingPlan,
        optim: OptimConfig,
        runtime: Runtime,
        run_dir: Path,
        seed: int,
        save_seconds: float = 600.0,
        save_steps: int | None = None,
        keep_states: int = 2,
        keep_every: int | None = None,
        fork_step: int | None = None,
        max_nonfinite_steps: int = 20,
        ema_decay: float | None = None,
        flops_per_clip: int | None = None,
        validation: Validation | None = None,
        advice: str = "lower the learning rate or train in fp32",
        title: str = "train",
        noun: str = "clip",
    ):
        self.task, self.make_batches, self.plan, self.optim, self.runtime = task, make_batches, plan, optim, runtime
        self.run_dir, self.state_dir, self.seed = run_dir, run_dir / STATE_DIR, seed
        self.title, self.noun = title, noun
        self.flops_per_clip = flops_per_clip
        self.max_nonfinite_steps, self.fork_step, self.validation = max_nonfinite_steps, fork_step, validation
        runtime.set_precision(runtime.precision)  # with a loss scale of this run's own
        if runtime.device.type == "cpu":
            keep_freed_memory()
        self.model = runtime.prepare(task)
        self.model.train()
        self.optimizer, self.ema = optim.build(task), WeightAverage(task, ema_decay)
        self.parameters = [p for p in task.parameters() if p.requires_grad]  # to list them takes long in small models
        self.start_step = 0  # steps that were completed before this process started
        writer = StateWriter(self.state_dir, keep=keep_states, keep_every=keep_every) if runtime.is_main else None
        self.saver = StateSaver(writer, save_seconds, save_steps, keep_every, advice)
        self.completed_steps = 0
        self.steps = StepReader(plan, self.saver, searches_loss_scale=lambda: runtime.scaler.is_enabled())
        self.is_waiting_for_data = False  # then the state is consistent
        self.must_stop = False  # any rank got a signal, and all ranks know it
        self.validation_history = ValidationHistory()
        self.signals = SignalHandler()

    def train(self) -> None:
        """Train to the end of the plan; if the best epoch is kept, the task has its weights then.

        Raises:
            RunStopped: The loss stays non-finite, or the disk is full; the last saved state remains. `RunInterrupted`
                at SIGINT or SIGTERM: the state is saved first, as it is if `make_batches` raises.
            InputError: `run_dir` holds the state of another run.
        """
        plan, runtime = self.plan, self.runtime
        position = self.restore()
        batches = self.make_batches(self.start_step) if self.start_step < plan.total_steps else iter(())
        start, is_main, title, noun = self.start_step, runtime.is_main, self.title, self.noun
        logger = TrainingLogger(
            self.run_dir, plan, start_step=start, position=position, is_main=is_main, title=title, noun=noun
        )
        if is_main and self.flops_per_clip and not self.is_finished:
            self.steps.measure_limit(runtime, self.flops_per_clip)
        with self.signals, logger, GarbageCollector() as garbage:
            if self.start_step:
                logger.print_message(f"resuming after step {self.start_step} of {plan.total_steps}")
            try:
                while not self.is_finished:
                    if self.validation and self.needs_validation:
                        with garbage.allow():
                            scores = self.validate()
                        if not self.must_stop:
                            metric, best = self.validation.metric, self.validation_history.best
                            self.saver.write(logger.log_validation, self.completed_steps, scores, metric, best)
                    else:
                        self._log(logger, self.train_step(batches))
                        self._check_steps()
                        if self.completed_steps == self.start_step + 1:
                            self.saver.reserve(self._gather_state)  # the optimizer has its tensors now
                        garbage.end_step()
                    is_due = self.saver.is_due(self.completed_steps)
                    if self.needs_validation or self.is_finished:
                        self._log(logger, self.steps.read())
                        self._check_steps()
                        if self.needs_validation and not self.must_stop:
                            continue  # the state is saved after the epoch's validation
                    elif is_due or self.must_stop:
                        # one rank may save where others do not: what this step says is acted on after the next one
                        self._log(logger, self.steps.read())
                    self.saver.write(self.saver.check)
                    if (is_last := self.must_stop or self.is_finished) or is_due:
                        self.saver.write(self.save, logger, is_last)
                    if self.must_stop and not self.is_finished:
                        raise self.signals.build_interruption(self.completed_steps)
            except Exception as error:
                if not self.is_waiting_for_data:
                    raise
                self._log(logger, self.steps.read())
                self.saver.write(self.save, logger, True)  # the data failed; the state is consistent
                if self.signals.signal_number is None:
                    raise
                raise self.signals.build_interruption(self.completed_steps) from error  # a worker died of it too
            finally:
                self.saver.close()
                if isinstance(batches, Generator):
                    batches.close()
                runtime.release_models()
            self.saver.check_weights(self.task)
            if self.validation:
                history = self.validation_history
                logger.print_message(history.summarize(self.validation.metric))
                self.task.load_state_dict(history.best_weights, strict=False)  # if they are kept; as in `restore`
                self.ema.select_best()

    def train_step(self, batches: Iterator[tuple[Any, ...]]) -> StepRecord | None:
        """Run one optimizer step; return the record of the step before, unless it has been read.

        The host does not wait for this step: the device decides whether it is accepted, so that a step that is not
        finite on one rank is skipped on all of them, and its numbers are read when the next step has been submitted,
        or by `steps.read`.
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
            is_last = micro == plan.accumulation_steps - 1
            with runtime.accumulate_gradients(self.model, last=is_last), runtime.compute(self.task):
                output = self.model(*batch)
                runtime.backward(output.loss, plan.accumulation_steps)
            names = list(output.parts)
            losses.append(torch.stack([v.detach().float() for v in (output.loss, *output.parts.values())]))
        norm = runtime.clip_grad_norm(self.parameters, self.optimizer, self.optim.max_grad_norm)
        has_signal = torch.full_like(norm, self.signals.signal_number is not None, dtype=torch.float32)
        numbers = torch.cat([torch.stack(losses).mean(0), torch.stack([norm.float(), has_signal])])
        numbers = runtime.all_reduce_mean(numbers)
        is_finite = numbers[0].isfinite() & numbers[-2].isfinite()
        runtime.step_optimizer(self.optimizer, accept=is_finite)
        self.ema.update(accepted=is_finite)
        scale = runtime.scaler.scale(torch.ones_like(numbers[:1]))
        read_numbers = self.steps.buffers.copy(torch.cat([numbers, scale]))
        self.completed_steps += 1
        return self.steps.exchange(
            PendingStep(
                step=self.completed_steps,
                lr=lr,
                part_names=names,
                read_numbers=read_numbers,
                data_seconds=data_seconds,
                start_time=start_time,
            )
        )

    def _log(self, logger: TrainingLogger, record: StepRecord | None) -> None:
        if record is not None:
            self.saver.write(logger.log_step, record)

    def _check_steps(self) -> None:
        """Look whether the steps that were read end the run; all ranks have read the same ones."""
        alone = self.runtime.world_size == 1  # then no step has to tell other ranks of it
        self.must_stop = self.steps.has_signal or (alone and self.signals.signal_number is not None)
        self.steps.check(self.max_nonfinite_steps)

    @property
    def is_finished(self) -> bool:
        """Whether neither a step nor the validation of the last epoch is left."""
        stopped_early = self.validation is not None and self.validation_history.should_stop(self.validation.patience)
        return stopped_early or (self.completed_steps == self.plan.total_steps and not self.needs_validation)

    @property
    def needs_validation(self) -> bool:
        """Whether an epoch has ended that has no validation score yet."""
        epochs, remainder = divmod(self.completed_steps, self.plan.steps_per_epoch)
        return self.validation is not None and not remainder and epochs > len(self.validation_history.scores)

    def validate(self) -> dict[str, float]:
        """Score the epoch that has ended.

        If any rank got a signal, the scores are discarded, and computed again by the process that resumes: workers may
        have died of the signal, so that their videos were not scored.
        """
        assert self.validation is not None
        epoch = self.completed_steps // self.plan.steps_per_epoch
        self.is_waiting_for_data = True
        scores = self.ema.score_both(partial(self.validation.score_epoch, epoch))
        self.task.train()
        self.must_stop = any(self.runtime.all_gather(self.signals.signal_number is not None))
        self.steps.has_signal = self.must_stop
        self.is_waiting_for_data = False
        if not self.must_stop:
            value = scores.get(self.validation.metric, math.nan)
            self.validation_history.update(value, self.task if self.validation.keep_best else None)
            self.ema.record(scores, self.validation)
        return scores

    @property
    def _identity(self) -> dict[str, Any]:
        return {**self.plan.get_identity(), "seed": self.seed}

    def save(self, logger: TrainingLogger, is_last: bool) -> None:
        """Begin to save the state, or wait until the last one is on the disk."""
        progress = self.completed_steps, len(self.validation_history.scores)
        self.saver.save(*progress, self.task, self._gather_state, logger, is_last=is_last)

    def _gather_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the entries of the state whose tensors training changes in place, and the others."""
        changing = {"task": self.task.state_dict(), "optimizer": self.optimizer.state_dict(), "ema": self.ema.tensors}
        counts = {name: getattr(self.steps, name) for name in _STEP_COUNTS}
        constants = {
            "run": self._identity,
            "precision": self.runtime.precision,
            "threads": torch.get_num_threads(),
            "progress": {"completed_steps": self.completed_steps, **counts},
            "scaler": self.runtime.scaler.state_dict(),
            "validation": vars(self.validation_history),
            **self.ema.get_history(),
        }
        return changing, constants

    def restore(self) -> dict[str, Any] | None:
        """Load the newest state, if there is one; return where the log was then, if the state says so.

        Raises:
            InputError: It belongs to another run, or its content is no state's.
        """
        if (state := read_newest_state(self.state_dir, self.runtime, title=self.title)) is None:
            return None
        with convert_content_errors(self.state_dir):
            names, fork_step = set(self.task.state_dict()), self.fork_step
            check_state(self.state_dir, state, identity=self._identity, names=names, fork_step=fork_step)
            is_fork = state["progress"]["completed_steps"] == fork_step
            load_scaler(self.state_dir, state, self.runtime, is_fork=is_fork)
            restore_num_threads(state.get("threads"))
            # not strict: a task may keep a frozen teacher out of its state_dict, and the names were compared above
            self.task.load_state_dict(state["task"], strict=False)
            load_optimizer(self.state_dir, self.optimizer, state["optimizer"])
            self.validation_history = ValidationHistory(**state["validation"])
            self.ema.restore(state)
            for name in _STEP_COUNTS:
                setattr(self.steps, name, state["progress"][name])
            self.start_step = self.completed_steps = state["progress"]["completed_steps"]
            losses = state.get("losses", {}) if not is_fork else {}  # an older version did not save them
            self.saver.begin(self.start_step, len(self.validation_history.scores), LossHistory(**losses))
        return state.get("log")
