"""One loop for every task: steps, epochs, when to save, when to test and when to stop."""

import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vidstill.engine.loop import Loop
from vidstill.engine.optim import OptimConfig
from vidstill.engine.report import Report
from vidstill.engine.runtime import Runtime
from vidstill.engine.schedule import Plan
from vidstill.engine.signals import Signals
from vidstill.engine.stopping import Watch

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


def _interrupted(signals: Signals, done: int) -> Interrupted:
    number = signals.caught or signal.SIGTERM  # another process may have been the one that was asked
    return Interrupted(f"interrupted after step {done}; the same command goes on from there", number)
