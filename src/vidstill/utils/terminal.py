"""Output of the command line: aligned lines, plain JSON, a progress bar on standard error."""

import json as jsons
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.file_proxy import FileProxy
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.segment import Segment
from rich.text import Text

from vidstill.utils.escapes import EscapingStream, escape_controls, get_raw_stream
from vidstill.utils.text import format_one_line, list_first, pluralize

_MAX_REASONS = 10


def echo(text: str) -> None:
    """Print on rank 0 only."""
    if os.environ.get("RANK", "0") == "0":
        print(text)


def echo_skipped(reasons: Sequence[str], title: str = "skipped", *, noun: str = "video") -> None:
    """Print the reasons for videos that were skipped, or that end early; of many, the first."""
    if reasons:
        lines = list_first(reasons, _MAX_REASONS)
        count = f"{title}: {pluralize(len(reasons), noun)}"
        echo("\n".join([count, *(f"  {format_one_line(line)}" for line in lines)]))


def format_key_values(values: Mapping[str, Any]) -> str:
    """Return one line per entry, or several for a value of several lines, with the values aligned."""
    width = max(map(len, values))
    line_end = "\n" + " " * (width + 2)
    return "\n".join(f"{name:{width}}  {line_end.join(str(value).splitlines())}" for name, value in values.items())


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line per row, with the cells of each column aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def to_json_value(value: Any) -> Any:
    """Return a value as JSON reads it back, with paths as text."""
    return jsons.loads(jsons.dumps(value, default=str))


def flatten_dict(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return `{"a": {"b": 1}}` as `{"a b": 1}`; entries of a list are numbered from 1."""
    if isinstance(value, list | tuple):
        value = {str(number): each for number, each in enumerate(value, 1)} or "none"
    if not isinstance(value, Mapping):
        return {prefix: value}
    entries = (flatten_dict(item, f"{prefix} {key}".strip()) for key, item in value.items())
    return {key: item for entry in entries for key, item in entry.items()}


class TerminalConsole(Console):
    """Rich's console, which writes its own escapes; those of the text are shown escaped.

    Args:
        name: "stdout" or "stderr".
    """

    def __init__(self, name: str):
        super().__init__(file=get_raw_stream(name))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escape_controls(segment.text))


class TerminalProgress(Progress):
    """Rich's progress bars, above which the text of others stays escaped."""

    def start(self) -> None:
        super().start()
        for name in ("stdout", "stderr"):
            if isinstance(stream := getattr(sys, name), FileProxy):  # it would take the text's escapes for colours
                setattr(sys, name, EscapingStream(stream))


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "")


@contextmanager
def show_progress_bar(title: str, *, visible: bool = True) -> Iterator[Callable[[float, float], None]]:
    """Show a progress bar on standard error, and give the function `update(done, total)`.

    The bar appears with the first update, so that a refused command leaves no bar.

    Args:
        visible: Whether to show it; the updates are ignored otherwise.
    """
    columns = *Progress.get_default_columns(), MofNCompleteColumn(), _RateColumn()
    progress = TerminalProgress(*columns, console=TerminalConsole("stderr"), disable=not visible)
    bar = progress.add_task(format_one_line(title))

    def update(done: int | float, total: int | float) -> None:
        progress.update(bar, completed=done, total=total)
        progress.start()

    try:
        yield update
    finally:
        if progress.live.is_started:
            progress.stop()
