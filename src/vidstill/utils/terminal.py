"""What the command line prints: aligned lines, plain JSON, a progress bar on standard error."""

import json as jsons
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, ProgressColumn, Task
from rich.text import Text


def echo(text: str) -> None:
    """Prints, in the first process of several only."""
    if os.environ.get("RANK", "0") == "0":
        print(text)


def format_key_values(values: Mapping[str, Any]) -> str:
    width = max(map(len, values))
    return "\n".join(f"{name:{width}}  {value}" for name, value in values.items())


def to_json_value(value: Any) -> Any:
    """As JSON has it: paths as text."""
    return jsons.loads(jsons.dumps(value, default=str))


def flatten_dict(value: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a b": 1}`; entries of a list by their numbers."""
    if isinstance(value, list | tuple):
        value = {str(number): each for number, each in enumerate(value, 1)} or "none"
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        key: text
        for word, each in value.items()
        for key, text in flatten_dict(each, f"{prefix} {word}".strip()).items()
    }


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "")


@contextmanager
def show_progress_bar(title: str, *, shown: bool = True) -> Iterator[Callable[[float, float], None]]:
    """A bar with what is done, of how much, at what rate, and the remaining time; it is told (done, of).

    It is drawn as soon as it is told something, so that work which is refused leaves no bar.
    """
    columns = *Progress.get_default_columns(), MofNCompleteColumn(), _RateColumn()
    progress = Progress(*columns, console=Console(stderr=True), disable=not shown)
    bar = progress.add_task(title)

    def told(done: int | float, of: int | float) -> None:
        progress.update(bar, completed=done, total=of)
        progress.start()

    try:
        yield told
    finally:
        if progress.live.is_started:
            progress.stop()
