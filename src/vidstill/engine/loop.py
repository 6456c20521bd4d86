"""A task with its optimiser: one step of them, and what of them is saved and restored."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vidstill.engine.optim import OptimConfig
from vidstill.engine.report import Step
from vidstill.engine.resume import load_state, save_state
from vidstill.engine.runtime import Runtime
from vidstill.engine.schedule import Plan
from vidstill.engine.signals import Signals
from vidstill.engine.stopping import Watch, Watched
from vidstill.types import InputError


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
