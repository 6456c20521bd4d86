"""One loop for every task: steps, epochs, when to save and when to test."""

import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from vidstill.engine.optim import AdamWConfig
from vidstill.engine.report import Report, Step
from vidstill.engine.resume import load_state, save_state
from vidstill.engine.runtime import Runtime
from vidstill.engine.schedule import Plan
from vidstill.types import InputError

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


def fit(
    task: nn.Module,
    batches: Batches,
    *,
    plan: Plan,
    optim: AdamWConfig,
    runtime: Runtime,
    run_dir: Path,
    seed: int,
    save: SaveConfig = SaveConfig(),  # noqa: B008 (frozen)
    patience: int = 5,
    validate: Callable[[int], Mapping[str, float]] | None = None,
    title: str = "train",
) -> Fitted:
    """Trains `task(*batch) -> Output` to the end of the plan, from the newest state in `run_dir` where there is one.

    Args:
        task: what it holds outside its `state_dict()` (a frozen teacher) is neither trained nor saved.
        patience: so many steps in a row without a finite loss stop the run.
        validate: called after each epoch, in every process, with the number of epochs done; what it gives is logged.

    Raises:
        RunStopped: the loss stays not finite, or the disk is full; `Interrupted`: SIGINT or SIGTERM. The state is saved.
        InputError: `run_dir` holds the state of another run.
    """
    loop = _Loop(task, plan=plan, optim=optim, runtime=runtime, seed=seed)
    resumed = loop.restore(run_dir / "state")
    report = Report(run_dir, plan, begin=loop.done, main=runtime.is_main, title=title)
    with _Signals() as signals, report:
        if resumed:
            report.say(f"goes on from step {loop.done}")
        stream = batches(loop.done) if loop.done < plan.total_steps else iter(())
        begin, saved, saved_at = loop.done, loop.done, time.monotonic()
        try:
            while loop.done < plan.total_steps:
                step, stop = loop.step(stream, stop=signals.caught is not None)
                report.step(step)
                if step.skipped:
                    report.say(f"step {step.step} is skipped: loss {step.loss}, gradient norm {step.grad_norm}")
                if loop.in_a_row >= patience:
                    raise RunStopped(
                        f"the loss or its gradient was not finite in {patience} steps in a row, up to step {loop.done} "
                        f"(loss {step.loss}); lower base_lr, or train in fp32"
                    )
                if validate and loop.done % plan.steps_per_epoch == 0:
                    report.validation(loop.done, validate(loop.done // plan.steps_per_epoch))
                    task.train()
                due = save.steps is not None and loop.done - saved >= save.steps
                due = due or time.monotonic() - saved_at >= save.seconds
                if due or stop or loop.done == plan.total_steps:
                    loop.save(run_dir / "state")
                    saved, saved_at = loop.done, time.monotonic()
                if stop and loop.done < plan.total_steps:
                    raise _interrupted(signals, loop.done)
        except OSError as error:
            raise RunStopped(f"{error}; the state of step {saved} is intact: make room and run it again") from error
        except Exception as error:
            # a worker that the same signal has ended is no failure; what this step had begun is forgotten
            if signals.caught is None or isinstance(error, RunStopped):
                raise
            loop.save(run_dir / "state")
            raise _interrupted(signals, loop.done) from error
        finally:
            if isinstance(stream, Generator):
                stream.close()
    return Fitted(steps=loop.done, resumed_at=begin, skipped=loop.skipped)


class _Loop:
    """A task with its optimiser, and how far they have come."""

    def __init__(self, task: nn.Module, *, plan: Plan, optim: AdamWConfig, runtime: Runtime, seed: int):
        self.task, self.plan, self.optim, self.runtime, self.seed = task, plan, optim, runtime, seed
        self.model = runtime.prepare(task)
        self.model.train()
        self.optimizer = optim.build(task)
        self.done = self.skipped = self.in_a_row = 0

    def step(self, stream: Iterator[tuple[Any, ...]], *, stop: bool) -> tuple[Step, bool]:
        """One step of the optimiser; and whether any process has been asked to stop.

        The host reads the device once: all numbers in one tensor, before a step is accepted, so that a step that
        is not finite in one process is skipped in all of them.
        """
        plan, runtime = self.plan, self.runtime
        rate = plan.rate(self.done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        begun, waited = time.perf_counter(), 0.0
        chunks: list[Tensor] = []
        names: list[str] = []
        for micro in range(plan.accumulation):
            asked = time.perf_counter()
            batch = next(stream)
            waited += time.perf_counter() - asked
            runtime.seed_chunk(self.seed, self.done, micro)
            with runtime.accumulate(self.model, last=micro == plan.accumulation - 1):
                with runtime.autocast():
                    output = self.model(*batch)
                runtime.backward(output.loss, plan.accumulation)
            names = list(output.parts)
            chunks.append(torch.stack([v.detach().float() for v in (output.loss, *output.parts.values())]))
        norm = runtime.clip(self.task, self.optimizer, self.optim.clip_norm)
        numbers = torch.cat([torch.stack(chunks).mean(0), torch.stack([norm.float(), norm.new_tensor(stop)])])
        loss, *parts, grad_norm, wish = runtime.mean(numbers).tolist()
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
        return step, wish > 0

    def _count(self, loss: float, accept: bool) -> None:
        self.done += 1
        self.skipped += not accept
        # fp16 looks for its loss scale by overflowing: only below a scale of 1 is that a failure
        searching = math.isfinite(loss) and self.runtime.scaler.is_enabled() and self.runtime.scaler.get_scale() >= 1
        self.in_a_row = 0 if accept else self.in_a_row + (not searching)

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
        save_state(folder, self.done, state)

    def restore(self, folder: Path) -> bool:
        """Takes over the newest state, if there is one.

        Raises:
            InputError: it is another run's.
        """
        state = load_state(folder)
        if state is None:
            return False
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
        progress = state["progress"]
        self.done, self.skipped, self.in_a_row = progress["done"], progress["skipped"], progress["in_a_row"]
        return True

    def _take_precision(self, folder: Path, precision: Any) -> None:
        if self.runtime.asked != "auto":
            raise InputError(
                f"{folder} holds the state of a run in {precision} and {self.runtime.asked} is asked for; "
                "choose another output folder, or the precision of that run"
            )
        self.runtime.use(precision)


def _interrupted(signals: "_Signals", done: int) -> Interrupted:
    number = signals.caught or signal.SIGTERM  # another process may have been the one that was asked
    return Interrupted(f"interrupted after step {done}; the same command goes on from there", number)


class _Signals:
    """Turns SIGINT and SIGTERM into a wish that is granted between two steps; who insists is obeyed at once."""

    def __enter__(self) -> Self:
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
