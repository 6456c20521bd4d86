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

from vidstill.engine.lr_schedule import TrainingPlan
from vidstill.utils.files import write_bytes

_PRINT_INTERVAL = 10.0  # between two lines where the output is no terminal
_SMOOTHING = 0.05  # weight of the newest step in what the bar shows


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One line of log.jsonl: a step, as it went on all processes together."""

    step: int
    """Steps done, this one included."""
    epoch: float
    """Epochs done."""
    loss: float
    parts: Mapping[str, float]
    lr: float
    grad_norm: float
    """Before clipping."""
    data_seconds: float
    """Spent waiting for data, of `step_seconds`."""
    step_seconds: float
    clips_per_second: float
    is_skipped: bool
    """The loss or its gradient was not finite; nothing was changed."""


class TrainingLogger:
    """Writes and shows a run's steps. Only the main process's report does anything.

    The log and the curves are first cut back to the step that the run goes on from, so that no step is told twice.
    """

    def __init__(
        self,
        run_dir: Path,
        plan: TrainingPlan,
        *,
        start_step: int,
        is_main: bool,
        title: str,
        console: Console | None = None,
    ):
        self.plan, self.start_step, self.is_main, self.title = plan, start_step, is_main, title
        self.console = console or Console(stderr=True)
        self.step_seconds = self.data_seconds = 0.0  # of a step, smoothed
        if not is_main:
            return
        run_dir.mkdir(parents=True, exist_ok=True)
        truncate_log(run_dir / "log.jsonl", start_step)
        self.log_file = (run_dir / "log.jsonl").open("a", buffering=1, encoding="utf-8")
        from torch.utils.tensorboard import SummaryWriter  # it imports tensorboard, which takes a second

        self.summary_writer = SummaryWriter(str(run_dir), purge_step=start_step + 1 if start_step else None)
        self.progress_bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} {task.fields[now]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.progress_task = self.progress_bar.add_task(title, total=plan.total_steps, completed=start_step, now="")
        self.last_print_time = time.monotonic() - _PRINT_INTERVAL  # the first step is told at once

    def __enter__(self) -> "TrainingLogger":
        if self.is_main:
            self.progress_bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self.is_main:
            return
        self.progress_bar.stop()
        for file in (self.summary_writer, self.log_file):
            try:
                file.close()
            except OSError:  # the disk is full: that has been said, or is about to be
                continue

    def print_message(self, message: str) -> None:
        """Shows a sentence above the bar."""
        if self.is_main:
            self.console.print(f"{self.title}: {message}", markup=False, highlight=False, soft_wrap=True)

    def log_step(self, record: StepRecord) -> None:
        """Logs one step.

        Raises:
            OSError: the log cannot be written.
        """
        if not self.is_main:
            return
        self._write_line(asdict(record))
        curves = {"loss": record.loss, **{f"parts/{name}": value for name, value in record.parts.items()}}
        curves |= {"rate": record.lr, "grad_norm": record.grad_norm, "clips_per_second": record.clips_per_second}
        for name, value in curves.items():
            if math.isfinite(value):
                self.summary_writer.add_scalar(name, value, record.step)
        self._update_progress(record)

    def log_validation(self, step: int, scores: Mapping[str, float]) -> None:
        """Logs what a test after an epoch found, in a line of its own."""
        if not self.is_main:
            return
        self._write_line({"step": step, "epoch": step / self.plan.steps_per_epoch, "validation": dict(scores)})
        for name, value in scores.items():
            self.summary_writer.add_scalar(f"validation/{name}", value, step)
        self.print_message(", ".join(f"{name} {value:.4g}" for name, value in scores.items()))

    def _write_line(self, record: dict[str, Any]) -> None:
        self.log_file.write(json.dumps(_to_json_value(record), allow_nan=False) + "\n")

    def _update_progress(self, record: StepRecord) -> None:
        first = record.step <= self.start_step + 2  # kernels are chosen and caches filled in the first step: forget it
        weight = 1.0 if first else _SMOOTHING
        self.step_seconds += weight * (record.step_seconds - self.step_seconds)
        self.data_seconds += weight * (record.data_seconds - self.data_seconds)
        left = timedelta(seconds=round((self.plan.total_steps - record.step) * self.step_seconds))
        now = (
            f"loss {record.loss:.4f}  {self.plan.clips_per_step / self.step_seconds:.1f} clips/s  "
            f"{100 * self.data_seconds / self.step_seconds:.0f} % waiting for data  {left} left"
        )
        self.progress_bar.update(self.progress_task, completed=record.step, now=now)
        if not self.console.is_terminal:
            last = record.step == self.plan.total_steps
            if last or time.monotonic() - self.last_print_time >= _PRINT_INTERVAL:
                self.last_print_time = time.monotonic()
                self.print_message(f"step {record.step}/{self.plan.total_steps}  {now}")


def truncate_log(path: Path, step: int) -> None:
    """Drops every line of a later step, and a last line that was never finished."""
    if not path.exists():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _is_up_to_step(line, step)]
    write_bytes(path, "".join(f"{line}\n" for line in kept).encode())


def _is_up_to_step(line: str, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except json.JSONDecodeError:
        return False


def _to_json_value(value: Any) -> Any:
    """JSON has no numbers that are not finite: null stands for them."""
    if isinstance(value, Mapping):
        return {name: _to_json_value(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
