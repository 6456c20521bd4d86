"""What a run tells: a JSON line a step, TensorBoard, and a progress bar or a plain line now and then."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch.utils.tensorboard import SummaryWriter

from vidstill.engine.lr_schedule import Plan
from vidstill.utils.files import write_whole

_PLAIN_SECONDS = 10.0  # between two lines where the output is no terminal
_SMOOTHING = 0.05  # weight of the newest step in what the bar shows


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of log.jsonl: a step, as it went on all processes together."""

    step: int
    """Steps done, this one included."""
    epoch: float
    """Epochs done."""
    loss: float
    parts: Mapping[str, float]
    rate: float
    grad_norm: float
    """Before clipping."""
    seconds_data: float
    """Spent waiting for data, of `seconds_step`."""
    seconds_step: float
    clips_per_second: float
    skipped: bool
    """The loss or its gradient was not finite; nothing was changed."""


class Report:
    """Writes and shows a run's steps. Only the main process's report does anything.

    The log and the curves are first cut back to the step that the run goes on from, so that no step is told twice.
    """

    def __init__(self, folder: Path, plan: Plan, *, begin: int, main: bool, title: str, console: Console | None = None):
        self.plan, self.begin, self.main, self.title = plan, begin, main, title
        self.console = console or Console(stderr=True)
        self.seconds = self.waiting = 0.0  # of a step, smoothed
        if not main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        cut_log(folder / "log.jsonl", begin)
        self.log = (folder / "log.jsonl").open("a", buffering=1, encoding="utf-8")
        self.curves = SummaryWriter(str(folder), purge_step=begin + 1 if begin else None)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[now]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.shown = self.bar.add_task(title, total=plan.total_steps, completed=begin, now="")
        self.told = time.monotonic() - _PLAIN_SECONDS  # the first step is told at once

    def __enter__(self) -> "Report":
        if self.main:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.main:
            return
        self.bar.stop()
        for file in (self.curves, self.log):
            try:
                file.close()
            except OSError:  # the disk is full: that has been said, or is about to be
                continue

    def say(self, sentence: str) -> None:
        """Shows a sentence above the bar."""
        if self.main:
            self.console.print(f"{self.title}: {sentence}", markup=False, highlight=False, soft_wrap=True)

    def step(self, done: Step) -> None:
        """Logs one step.

        Raises:
            OSError: the log cannot be written.
        """
        if not self.main:
            return
        self._write(asdict(done))
        curves = {"loss": done.loss, **{f"parts/{name}": value for name, value in done.parts.items()}}
        curves |= {"rate": done.rate, "grad_norm": done.grad_norm, "clips_per_second": done.clips_per_second}
        for name, value in curves.items():
            if math.isfinite(value):
                self.curves.add_scalar(name, value, done.step)
        self._show(done)

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Logs what a test after an epoch found, in a line of its own."""
        if not self.main:
            return
        self._write({"step": step, "epoch": step / self.plan.steps_per_epoch, "validation": dict(values)})
        for name, value in values.items():
            self.curves.add_scalar(f"validation/{name}", value, step)
        self.say(", ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def _write(self, line: dict[str, Any]) -> None:
        self.log.write(json.dumps(_strict(line), allow_nan=False) + "\n")

    def _show(self, done: Step) -> None:
        first = done.step <= self.begin + 2  # kernels are chosen and caches filled in the first step: forget it
        weight = 1.0 if first else _SMOOTHING
        self.seconds += weight * (done.seconds_step - self.seconds)
        self.waiting += weight * (done.seconds_data - self.waiting)
        left = timedelta(seconds=round((self.plan.total_steps - done.step) * self.seconds))
        now = (
            f"loss {done.loss:.4f}  {self.plan.clips_per_step / self.seconds:.1f} clips/s  "
            f"{100 * self.waiting / self.seconds:.0f} % waiting for data  {left} left"
        )
        self.bar.update(self.shown, completed=done.step, now=now)
        if not self.console.is_terminal:
            last = done.step == self.plan.total_steps
            if last or time.monotonic() - self.told >= _PLAIN_SECONDS:
                self.told = time.monotonic()
                self.say(f"step {done.step}/{self.plan.total_steps}  {now}")


def cut_log(path: Path, step: int) -> None:
    """Drops every line of a later step, and a last line that was never finished."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _belongs(line, step)]
    write_whole(path, "".join(f"{line}\n" for line in kept).encode())


def _belongs(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except json.JSONDecodeError:
        return False


def _strict(value: Any) -> Any:
    """JSON has no numbers that are not finite: null stands for them."""
    if isinstance(value, Mapping):
        return {name: _strict(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
