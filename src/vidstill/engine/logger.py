"""A run's log: one JSON line per step, TensorBoard, and a progress bar or, without a terminal, a line now and then."""

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn

from vidstill.engine.checkpoint import LOG_FILE
from vidstill.engine.lr_schedule import TrainingPlan
from vidstill.utils.files import write_bytes
from vidstill.utils.terminal import TerminalConsole, TerminalProgress

_DAMAGED_LOG_FILE = "log.damaged.jsonl"
_PRINT_INTERVAL = 10.0  # seconds between two lines without a terminal
_REFRESH_INTERVAL = 0.25  # seconds between two changes of the progress bar
_SMOOTHING = 0.05  # weight of the newest step in the displayed averages
_MIN_BAR_WIDTH = 10  # cells of a terminal


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One line of log.jsonl: a step, over all processes."""

    step: int  # completed steps, including this one
    epoch: float  # completed epochs
    loss: float
    parts: Mapping[str, float]
    lr: float
    grad_norm: float  # before clipping
    data_seconds: float  # time waiting for data, part of `step_seconds`
    step_seconds: float
    clips_per_second: float
    is_skipped: bool  # the loss or its gradient was not finite, and no weight was changed
    mfu: float | None = None  # share of the FLOP/s that matrix products reach here; None: not known

    @property
    def data_wait(self) -> float:
        """The share of the step in which this process waited for data."""
        return self.data_seconds / self.step_seconds


class TrainingLogger:
    """Writes and displays a run's steps, on the main process only.

    Log and curves are first truncated to the step that the run resumes from, so that no step is logged twice.

    Args:
        run_dir: log.jsonl and TensorBoard's files are written here.
        plan: Steps and clips.
        start_step: Completed steps when the run resumes.
        position: What `position` was then; None: an older version did not record it.
        is_main: Whether this is the main process; others log nothing.
        title: Stands before each message.
        noun: What the clips are called, such as "image".
        console: None: standard error.
    """

    def __init__(
        self,
        run_dir: Path,
        plan: TrainingPlan,
        *,
        start_step: int,
        position: Mapping[str, Any] | None = None,
        is_main: bool,
        title: str,
        noun: str = "clip",
        console: Console | None = None,
    ):
        self.plan, self.start_step, self.is_main, self.title, self.noun = plan, start_step, is_main, title, noun
        self.console = console or TerminalConsole("stderr")
        self.is_terminal = self.console.is_terminal  # asking costs a system call
        self.last_validation_time = -math.inf  # of a printed line
        self.validation = self.best = ""  # the newest score and the best one
        self.step_seconds = self.data_seconds = self.mfu = 0.0  # of a step, exponential averages
        if not is_main:
            return
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / LOG_FILE
        warning = restore_log(path, start_step, position)
        content = path.read_bytes() if path.exists() else b""
        self.log_size, self.log_digest = len(content), hashlib.sha256(content)
        self.log_file = path.open("ab")
        from torch.utils.tensorboard import SummaryWriter  # it imports tensorboard, which takes a second

        self.summary_writer: Any = SummaryWriter(str(run_dir), purge_step=start_step + 1 if start_step else None)
        self.progress_bar = TerminalProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),  # the cells that the texts leave
            TextColumn("{task.fields[texts]}", markup=False),
            console=self.console,
            disable=not self.is_terminal,
            expand=True,
            refresh_per_second=1 / _REFRESH_INTERVAL,
        )
        texts = f"{start_step}/{plan.total_steps}"
        self.progress_task = self.progress_bar.add_task(
            title, total=plan.total_steps, completed=start_step, texts=texts
        )
        self.last_display_time = -math.inf  # the first step is shown at once
        if warning:
            self.print_message(warning)

    def __enter__(self) -> "TrainingLogger":
        if self.is_main:
            self.progress_bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_main:
            return
        self.progress_bar.stop()
        for file in (self.summary_writer, self.log_file):
            with suppress(OSError):  # the disk is full, which is reported elsewhere
                file.close()

    @property
    def position(self) -> dict[str, Any]:
        """The length of the log and its checksum: part of a run's state."""
        return {"bytes": self.log_size, "sha256": self.log_digest.hexdigest()}

    def print_message(self, message: str) -> None:
        """Print a message above the progress bar."""
        if self.is_main:
            self.console.print(f"{self.title}: {message}", markup=False, highlight=False, soft_wrap=True)

    def log_step(self, record: StepRecord) -> None:
        """Log one step.

        Raises:
            OSError: The log cannot be written.
        """
        if not self.is_main:
            return
        self._write_line({**vars(record), "data_wait": record.data_wait})
        curves = {"loss": record.loss, **{f"parts/{name}": value for name, value in record.parts.items()}}
        curves |= {"lr": record.lr, "grad_norm": record.grad_norm, "clips_per_second": record.clips_per_second}
        curves |= {"data_wait": record.data_wait} | ({} if record.mfu is None else {"mfu": record.mfu})
        self._add_to_curves(curves, record.step)
        self._update_progress(record)

    def log_validation(
        self, step: int, scores: Mapping[str, float], metric: str = "", best: tuple[int, float] | None = None
    ) -> None:
        """Log the validation scores after an epoch, in a line of their own; print at most one line in ten seconds.

        Args:
            step: Completed steps.
            scores: All scores by name.
            metric: The score that the progress bar shows.
            best: The best epoch so far and its score, which may be this one.
        """
        if not self.is_main:
            return
        self._write_line({"step": step, "epoch": step / self.plan.steps_per_epoch, "validation": dict(scores)})
        self._add_to_curves({f"validation/{name}": value for name, value in scores.items()}, step)
        best_text = f" (best {best[1]:.1f}, epoch {best[0]})" if best else ""
        if metric:
            self.validation = f"val {shorten_metric(metric)} {scores[metric]:.1f}"
            self.best = best_text.strip(" ()")
        if time.monotonic() - self.last_validation_time < _PRINT_INTERVAL:
            return  # epochs of a second would fill the screen
        self.last_validation_time = time.monotonic()
        texts = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
        self.print_message(f"epoch {step // self.plan.steps_per_epoch}: validation {texts}{best_text}")

    def _add_to_curves(self, values: Mapping[str, float], step: int) -> None:
        """Write a step's finite numbers for TensorBoard, all in one event."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=x) for name, x in values.items() if math.isfinite(x)]
        self.summary_writer.file_writer.add_summary(Summary(value=points), step)

    def _write_line(self, record: dict[str, Any]) -> None:
        line = json.dumps(_to_json_value(record), allow_nan=False).encode() + b"\n"
        self.log_file.write(line)
        self.log_file.flush()
        self.log_digest.update(line)
        self.log_size += len(line)

    def _update_progress(self, record: StepRecord) -> None:
        is_first = record.step <= self.start_step + 2  # in the very first step kernels are chosen: it is dropped
        weight = 1.0 if is_first else _SMOOTHING
        self.step_seconds += weight * (record.step_seconds - self.step_seconds)
        self.data_seconds += weight * (record.data_seconds - self.data_seconds)
        self.mfu += weight * ((record.mfu or 0.0) - self.mfu)
        now, interval = time.monotonic(), _REFRESH_INTERVAL if self.is_terminal else _PRINT_INTERVAL
        if now - self.last_display_time < interval and record.step < self.plan.total_steps:
            return
        self.last_display_time = now
        seconds_left = round((self.plan.total_steps - record.step) * self.step_seconds)
        rate = self.plan.clips_per_step / self.step_seconds
        by_importance = [
            f"{record.step}/{self.plan.total_steps}",
            f"loss {record.loss:.4g}",
            f"{timedelta(seconds=seconds_left)} left",
            self.validation,
            f"{rate:.{0 if rate >= 100 else 1}f} {self.noun}s/s",
            self.best,
            f"data wait {100 * self.data_seconds / self.step_seconds:.0f} %",
            "" if record.mfu is None else f"MFU {100 * self.mfu:.0f} %",
        ]
        if self.is_terminal:
            texts = _join_texts(by_importance, self.console.width - len(self.title) - _MIN_BAR_WIDTH - 2)
            self.progress_bar.update(self.progress_task, completed=record.step, texts=texts)
        else:
            self.print_message(f"step {_join_texts(by_importance)}")


def _join_texts(by_importance: Sequence[str], width: int | float = math.inf) -> str:
    """Return the texts on one line, up to the first that does not fit into the width."""
    line = by_importance[0]
    for text in filter(None, by_importance[1:]):
        if len(line) + 2 + len(text) > width:
            break
        line += f"  {text}"
    return line


def shorten_metric(metric: str) -> str:
    """Return a validation score's name for the bar, the summary and the chart."""
    return {"mean_average_precision": "mAP"}.get(metric, metric)


def restore_log(path: Path, step: int, position: Mapping[str, Any] | None) -> str:
    """Drop what a log holds beside the lines up to a step.

    Args:
        path: log.jsonl.
        step: Completed steps of the state that the run resumes from.
        position: The length of the log and its checksum at this step; None: an older version did not record them.

    Returns:
        A sentence, if the lines up to this step are not those that were logged; the file is copied then.
    """
    content = path.read_bytes() if path.exists() else b""
    if position is not None:
        log = content[: position["bytes"]]
        if len(log) == position["bytes"] and hashlib.sha256(log).hexdigest() == position["sha256"]:
            if len(content) > len(log):
                os.truncate(path, len(log))
            return ""
    if path.exists():
        lines = [line for line in content.split(b"\n") if _is_up_to_step(line, step)]
        if position is not None:
            write_bytes(path.with_name(_DAMAGED_LOG_FILE), content)
        write_bytes(path, b"".join(line + b"\n" for line in lines))
    if position is None:
        return ""
    where = (
        f"; its lines that can be read remain, and the file is copied to {_DAMAGED_LOG_FILE}" if path.exists() else ""
    )
    return f"{path} is not what was logged up to step {step} (another length or checksum){where}"


def _is_up_to_step(line: bytes, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, TypeError, LookupError, RecursionError):  # not a step's line
        return False


def _to_json_value(value: Any) -> Any:
    """Replace non-finite numbers, which JSON lacks, by null."""
    if isinstance(value, Mapping):
        return {name: _to_json_value(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
