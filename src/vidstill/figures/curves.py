"""Loss curves from a run's log."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidstill.figures.charts import ChartPoint

_NUM_BINS = 48  # of equal width on a logarithmic axis


def read_log(run_dir: Path) -> list[dict[str, Any]]:
    """Return a run's training steps in order, without validation lines and without a torn last line."""
    steps = []
    for text in (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if "step_seconds" in line:
            steps.append(line)
    return steps


def extract_loss_curve(steps: Sequence[Mapping[str, Any]], part: str | None = None) -> list[ChartPoint]:
    """Return the loss (or one of its parts) over the step, smoothed; non-finite steps are left out."""
    values = [line["loss"] if part is None else line["parts"].get(part) for line in steps]
    return smooth_curve(
        [(float(line["step"]), value) for line, value in zip(steps, values, strict=True) if value is not None]
    )


def smooth_curve(points: Sequence[ChartPoint]) -> list[ChartPoint]:
    """Average the points within each bin of a logarithmic x axis."""
    if not points:
        return []
    width = math.log(max(x for x, _ in points) + 1) / _NUM_BINS
    bins: dict[int, list[ChartPoint]] = {}
    for x, y in points:
        bins.setdefault(int(math.log(x) / width), []).append((x, y))
    return [(_mean([x for x, _ in members]), _mean([y for _, y in members])) for members in bins.values()]


def sum_step_seconds(steps: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds of all steps, across interruptions."""
    return sum(line["step_seconds"] for line in steps)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
