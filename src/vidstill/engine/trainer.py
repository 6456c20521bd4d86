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
from vidstill.engine.early_stopping import Watch, Watched
from vidstill.engine.logger import Report, Step
from vidstill.engine.lr_schedule import Plan
from vidstill.engine.optimizer import OptimConfig
from vidstill.utils.types import InputError

Batches = Callable[[int], Iterator[tuple[Any, ...]]]
"""From the step to begin with (counted from 0): this process's chunks, `accumulation` of them for each step."""


class RunStopped(RuntimeError):
    """A run ended before its last step: the sentence says why, and the same command goes on from the saved state."""

    exit_code = 1


class Interrupted(RunStopped):
    """The user or the system asked for it (SIGINT, SIGTERM)."""

    def __init__(self, sentence: str, number: int):
        super().__init__(sentence)
        self.exit_code = 128 + number


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """When a run's state is saved, besides at its end and when it is interrupted: whichever comes first."""

    seconds: float = 600.0
    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a run went."""

    steps: int
    resumed_at: int
    """Steps that had been done when this process began."""
    skipped: int
    """Steps of the whole run whose loss or gradient was not finite."""
    epoch: int | None
    """Whose weights the task has now, where a score chose among them; None: the last step's."""
    score: float | None
    """That chose them."""


def fit(
    task: nn.Module,
    batches: Batches,
    *,
    plan: Plan,
    optim: OptimConfig,
    runtime: Runtime,
    run_dir: Path,
    seed: int,
    save: SaveConfig = SaveConfig(),
    patience: int = 5,
    watch: Watch | None = None,
    title: str = "train",
) -> Fitted:
    """Trains `task(*batch) -> Output` to the end of the plan, from the newest state in `run_dir` where there is one.

    Args:
        task: what it holds outside its `state_dict()` (a frozen teacher) is neither trained nor saved. Where it is
            `loop.Paced`, it hears before each step how far the run has come.
        patience: so many steps in a row without a finite loss stop the run.
        watch: what is scored after each epoch, in every process, and may end the run before the plan does.

    Raises:
        RunStopped: the loss stays not finite, or the disk is full: the last saved state stands. `Interrupted`: SIGINT
            or SIGTERM; the state is saved first, as it is where `batches` raises anything.
        InputError: `run_dir` holds the state of another run.
    """
    states = run_dir / "state"
    loop = Loop(task, plan=plan, optim=optim, runtime=runtime, seed=seed)
    begin = saved = loop.restore(states)
    saved_at = time.monotonic()
    stream = batches(begin) if begin < plan.total_steps else iter(())
    with Signals() as signals, Report(run_dir, plan, begin=begin, main=runtime.is_main, title=title) as report:
        if begin:
            report.say(f"goes on after step {begin} of {plan.total_steps}")
        try:
            while not loop.ended(watch):
                if watch and loop.unwatched:
                    found, stop = loop.watch(watch, signals)
                    if not stop:
                        with _disk(saved):
                            report.validation(loop.done, found)
                else:
                    step, stop = loop.step(stream, signals)
                    with _disk(saved):
                        report.step(step)
                    if step.skipped:
                        report.say(f"step {step.step} is skipped: loss {step.loss}, gradient norm {step.grad_norm}")
                    if loop.in_a_row >= patience:
                        raise RunStopped(
                            f"loss or gradient were not finite in {patience} steps in a row, up to step {loop.done} "
                            f"(loss {step.loss}); lower base_lr or train in fp32; the state of step {saved} stands"
                        )
                    if watch and loop.unwatched and not stop:
                        continue  # a state is saved once the epoch is scored
                last = loop.ended(watch)
                due = save.steps is not None and loop.done - saved >= save.steps
                if due or stop or last or time.monotonic() - saved_at >= save.seconds:
                    with _disk(saved):
                        loop.save(states)
                    saved, saved_at = loop.done, time.monotonic()
                if stop and not last:
                    raise _interrupted(signals, loop.done)
            if watch and loop.take_best(watch):
                report.say(f"takes the weights of epoch {loop.watched.best}: {watch.by} {loop.watched.score:.4g}")
        except Exception as error:
            if not loop.waiting:
                raise
            with _disk(saved):  # the data failed: what has been learned is whole
                loop.save(states)
            if signals.caught is None:
                raise
            raise _interrupted(signals, loop.done) from error  # a worker has died of the same signal
        finally:
            if isinstance(stream, Generator):
                stream.close()
            runtime.release()
    best = loop.watched
    return Fitted(
        steps=loop.done,
        resumed_at=begin,
        skipped=loop.skipped,
        epoch=best.best if best.weights else None,
        score=best.score if best.weights else None,
    )


@contextmanager
def _disk(saved: int) -> Iterator[None]:
    """Says what a full disk means for the run."""
    try:
        yield
    except OSError as error:
        raise RunStopped(
            f"{error}; the state of step {saved} stands: make room and run the same command again"
        ) from error


class Signals:
    """Turns SIGINT and SIGTERM into a wish that is granted between two steps; who insists is obeyed at once."""

    def __enter__(self) -> "Signals":
        self.caught: int | None = None
        self.when = 0.0
        self.former: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self.former = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught, self.when = number, time.monotonic()
        elif time.monotonic() - self.when > 3:  # torchrun passes a terminal's Ctrl-C on: that comes twice, at once
            raise KeyboardInterrupt


def _interrupted(signals: Signals, done: int) -> Interrupted:
    number = signals.caught or signal.SIGTERM  # another process may have been the one that was asked
    return Interrupted(f"interrupted after step {done}; the same command goes on from there", number)


@runtime_checkable
class Paced(Protocol):
    """A task that wants to know how far the run has come."""

    def begin_step(self, progress: float) -> None:
        """Called before each step, in every process, with the share of all steps that is done: 0 to below 1."""


class Loop:
    """A task with its optimiser, and how far they have come."""

    def __init__(self, task: nn.Module, *, plan: Plan, optim: OptimConfig, runtime: Runtime, seed: int):
        self.task, self.plan, self.optim, self.runtime, self.seed = task, plan, optim, runtime, seed
        runtime.use(runtime.precision)  # with a loss scale of this run's own
        self.model = runtime.prepare(task)
        self.model.train()
        self.optimizer = optim.build(task)
        self.done = self.skipped = self.in_a_row = 0
        self.waiting = False  # for data: then nothing is half changed
        self.watched = Watched()

    def step(self, stream: Iterator[tuple[Any, ...]], signals: Signals) -> tuple[Step, bool]:
        """One step of the optimiser; and whether any process has been asked to stop.

        The host reads the device once: all numbers in one tensor, before a step is accepted, so that a step that
        is not finite in one process is skipped in all of them.
        """
        plan, runtime = self.plan, self.runtime
        rate = plan.rate(self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        if isinstance(self.task, Paced):
            self.task.begin_step(self.done / plan.total_steps)
        begun, waited = time.perf_counter(), 0.0
        chunks: list[Tensor] = []
        names: list[str] = []
        for micro in range(plan.accumulation):
            asked = time.perf_counter()
            self.waiting = True
            batch = next(stream, None)
            if batch is None:
                raise RuntimeError(f"the batches ended at step {self.done} of {plan.total_steps}")
            self.waiting = False
            waited += time.perf_counter() - asked
            runtime.seed_chunk(self.seed, self.done, micro)
            with runtime.accumulate(self.model, last=micro == plan.accumulation - 1):
                with runtime.autocast():
                    output = self.model(*batch)
                runtime.backward(output.loss, plan.accumulation)
            names = list(output.parts)
            chunks.append(torch.stack([v.detach().float() for v in (output.loss, *output.parts.values())]))
        norm = runtime.clip(self.task, self.optimizer, self.optim.clip_norm)
        asked_to_stop = norm.new_tensor(signals.caught is not None)
        numbers = torch.cat([torch.stack(chunks).mean(0), torch.stack([norm.float(), asked_to_stop])])
        loss, *parts, grad_norm, stop = runtime.mean(numbers).tolist()
        accept = math.isfinite(loss) and math.isfinite(grad_norm)
        runtime.update(self.optimizer, accept=accept)
        self._count(loss, accept)
        seconds = time.perf_counter() - begun
        step = Step(
            step=self.done,
            epoch=self.done / plan.steps_per_epoch,
            loss=loss,
            parts=dict(zip(names, parts, strict=True)),
            rate=rate,
            grad_norm=grad_norm,
            seconds_data=waited,
            seconds_step=seconds,
            clips_per_second=plan.clips_per_step / seconds,
            skipped=not accept,
        )
        return step, stop > 0

    def _count(self, loss: float, accept: bool) -> None:
        self.done += 1
        self.skipped += not accept
        scaler = self.runtime.scaler
        # fp16 finds its loss scale by overflowing, which is a failure only where no scale is left to try
        if accept:
            self.in_a_row = 0
        elif not (scaler.is_enabled() and math.isfinite(loss) and scaler.get_scale() >= 1):
            self.in_a_row += 1

    def ended(self, watch: Watch | None) -> bool:
        """Whether nothing is left to do: neither a step, nor a score of the last epoch."""
        if watch is None:
            return self.done == self.plan.total_steps
        return self.watched.ended(watch.patience) or (self.done == self.plan.total_steps and not self.unwatched)

    @property
    def unwatched(self) -> bool:
        """Whether an epoch has just ended that is not scored yet."""
        epochs, within = divmod(self.done, self.plan.steps_per_epoch)
        return not within and epochs > self.watched.epochs

    def watch(self, watch: Watch, signals: Signals) -> tuple[dict[str, float], bool]:
        """Scores the epoch that has ended; and whether any process has been asked to stop.

        What was found counts for nothing then, and is found again by the process that goes on: workers may have died of
        the signal, and their videos were not scored.
        """
        epoch = self.done // self.plan.steps_per_epoch
        self.waiting = True  # nothing is half changed by what fails here
        found = dict(watch.scores(epoch))
        self.task.train()
        stop = any(self.runtime.gathered(signals.caught is not None))
        self.waiting = False
        if not stop:
            self.watched.note(epoch, found.get(watch.by, math.nan), self.task if watch.patience else None)
        return found, stop

    def take_best(self, watch: Watch) -> bool:
        """Gives the task the weights of its best epoch, if a score was to choose among them and there is one."""
        if watch.patience is not None and self.watched.weights:
            self.task.load_state_dict(self.watched.weights, strict=False)  # as in `restore`
            return True
        return False

    def save(self, folder: Path) -> None:
        if not self.runtime.is_main:
            return
        state = {
            "run": {**self.plan.identity(), "seed": self.seed},
            "precision": self.runtime.precision,
            "progress": {"done": self.done, "skipped": self.skipped, "in_a_row": self.in_a_row},
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.runtime.scaler.state_dict(),
        }
        if self.watched.epochs:
            state["watched"] = self.watched.plain()
        save_state(folder, self.done, state)

    def restore(self, folder: Path) -> int:
        """Takes over the newest state, if there is one; gives the steps that are done.

        Raises:
            InputError: it is another run's.
        """
        state = load_state(folder)
        if state is None:
            return 0
        run = {**self.plan.identity(), "seed": self.seed}
        for name, value in run.items():
            if state["run"].get(name) != value:
                raise InputError(
                    f"{folder} holds the state of a run whose {name} is {state['run'].get(name)}, here it is {value}; "
                    "choose another output folder, or the settings of that run"
                )
        if strangers := state["task"].keys() ^ self.task.state_dict().keys():
            raise InputError(
                f"{folder} holds the state of another model ({min(strangers)} is in one of them only); "
                "choose another output folder"
            )
        if state["precision"] != self.runtime.precision:
            self._take_precision(folder, state["precision"])
        # not strict: a task may keep a frozen teacher out of its state_dict, and the names have just been compared
        self.task.load_state_dict(state["task"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.runtime.scaler.load_state_dict(state["scaler"])
        self.watched = Watched(**state.get("watched", {}))
        progress = state["progress"]
        self.done, self.skipped, self.in_a_row = progress["done"], progress["skipped"], progress["in_a_row"]
        return self.done

    def _take_precision(self, folder: Path, precision: Any) -> None:
        if self.runtime.asked != "auto":
            raise InputError(
                f"{folder} holds the state of a run in {precision} and {self.runtime.asked} is asked for; "
                "choose another output folder, or the precision of that run"
            )
        self.runtime.use(precision)
