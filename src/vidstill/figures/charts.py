"""Charts by matplotlib: PNG files, and SVG elements for a page with runs' losses over steps and models' accuracies."""

import io
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from vidstill.utils.checksums import verify_file

ChartPoint = tuple[float, float]
LineStyle = Literal["solid", "dashed", "dotted", "dashdot"]

Log = Sequence[Mapping[str, Any]]
"""The training steps of a run's log."""

DPI = 100

_NUM_BINS = 48  # of equal width on a logarithmic axis
_WIDTH = 5.2  # inches
_SVG_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "svg.hashsalt": "vidstill",  # the same chart is the same bytes
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": "#5f5b57",
    "axes.labelcolor": "#5f5b57",
    "axes.edgecolor": "#e4dfd8",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e4dfd8",
    "xtick.color": "#5f5b57",
    "ytick.color": "#5f5b57",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@contextmanager
def open_figure(width: int | float, height: int | float, style: Mapping[Any, Any] | None = None) -> Iterator[Any]:
    """Give a matplotlib figure to draw on and save in the block, in which `$` begins no formula.

    Args:
        width, height: In inches.
        style: Settings of matplotlib.
    """
    import matplotlib as mpl  # takes half a second
    from matplotlib.figure import Figure

    with mpl.rc_context({"text.parse_math": False, **(style or {})}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box
        yield Figure(figsize=(width, height), dpi=DPI)


def save_png(figure: Any, *, crop: bool = False) -> bytes:
    """Return the figure as a PNG, the same bytes every time; cropped to, or enlarged by, what is drawn if `crop`."""
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight" if crop else None, metadata={"Software": None})
    return file.getvalue()


# ---- Losses over steps ----------------------------------------------------------------------------------------------


def read_log(run_dir: Path) -> Log:
    """Return a run's training steps in order, without validation lines and without a torn last line.

    Raises:
        InputError: The log of a finished run is damaged.
    """
    path, steps = run_dir / "log.jsonl", list[dict[str, Any]]()
    verify_file(run_dir, path)
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if "step_seconds" in line:
            steps.append(line)
    return steps


def sum_step_seconds(steps: Log) -> float:
    """Return the seconds of all steps, across interruptions."""
    return sum(line["step_seconds"] for line in steps)


def extract_loss_curve(steps: Log, part: str | None = None) -> list[ChartPoint]:
    """Return the loss (or one of its parts) over the step, smoothed; non-finite steps are left out."""
    values = [(line["step"], line["loss"] if part is None else line["parts"].get(part)) for line in steps]
    return smooth_curve([(float(step), value) for step, value in values if value is not None])


def smooth_curve(points: Sequence[ChartPoint]) -> list[ChartPoint]:
    """Average the points within each bin of a logarithmic x axis."""
    if not points:
        return []
    x = np.array(points)[:, 0]
    bins = (np.log(x) / (math.log(x.max() + 1) / _NUM_BINS)).astype(int)
    means = [np.array(points)[bins == number].mean(axis=0) for number in np.unique(bins)]
    return [(float(x), float(y)) for x, y in means]


class ChartLine(NamedTuple):
    name: str
    points: Sequence[ChartPoint]
    color: str  # as matplotlib and CSS both read it: a name or #rrggbb
    style: LineStyle = "solid"


def draw_line_chart(
    lines: Sequence[ChartLine], x_label: str, y_label: str, *, log_x: bool = True, y_range: ChartPoint | None = None
) -> str:
    """Draw lines over common axes; lines without points are left out, and without any line the result is empty.

    Args:
        log_x: Use a logarithmic x axis; else each point has a marker, and ticks are at whole numbers.
        y_range: The ends of the y axis; None fits the points.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    from matplotlib.ticker import MaxNLocator, NullFormatter

    with open_figure(_WIDTH, 3.1, _SVG_STYLE) as figure:
        axes = figure.add_subplot()
        for name, points, color, style in lines:
            marker = "" if log_x and len(points) > 1 else "o"
            axes.plot(*zip(*points, strict=True), color=color, ls=style, marker=marker, ms=4, label=name)
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel=x_label, ylabel=y_label, ylim=y_range)
        axes.legend(labelcolor="linecolor", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _save_svg(figure, f"{y_label} over {x_label}: {', '.join(line.name for line in lines)}")


def draw_validation_curve(scores: Sequence[float], metric: str) -> bytes:
    """Draw the validation score of each epoch, in percent, as a PNG; the best one is marked, of equal ones the last."""
    epochs = range(1, len(scores) + 1)
    best = max((pair for pair in zip(scores, epochs, strict=True) if not math.isnan(pair[0])), default=None)
    with open_figure(6, 3.5) as figure:
        axes = figure.add_subplot()
        axes.plot(epochs, scores, marker="o", markersize=3)
        if best:
            axes.plot(best[1], best[0], "o", color="tab:red", label=f"best: {best[0]:.1f} at epoch {best[1]}")
            axes.legend()
        axes.set(xlabel="epoch", ylabel=f"validation {metric} (%)")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        return save_png(figure, crop=True)


# ---- Accuracies -----------------------------------------------------------------------------------------------------


class ModelScore(NamedTuple):
    """A model's top-1 accuracies, in percent."""

    name: str
    top1: float | None  # None: it was not fine-tuned
    margin: float  # half the length of the error bar of top1
    probe_top1: float
    color: str  # as ChartLine's


def draw_score_chart(scores: Sequence[ModelScore], random_top1: float, x_label: str) -> str:
    """Draw one row per model: a dot with its error bar for `top1`, if there is one, and a ring for `probe_top1`.

    Args:
        random_top1: Accuracy of a random classifier in percent, drawn as a dashed line.
    """
    with open_figure(_WIDTH, 0.8 + 0.4 * len(scores), _SVG_STYLE) as figure:
        axes = figure.add_subplot()
        for row, (_, top1, error, probe_top1, color) in enumerate(scores):
            if top1 is not None:
                axes.errorbar(top1, row, xerr=error, fmt="o", ms=7, color=color)
            axes.plot(probe_top1, row, "o", ms=6, mfc="none", mew=1.6, color=color)
        axes.axvline(random_top1, color="#8a857f", linestyle=(0, (3, 3)), linewidth=1.0)
        axes.annotate("chance", (random_top1, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom")
        axes.set_yticks(range(len(scores)), [score.name for score in scores], fontweight="bold")
        for label, score in zip(axes.get_yticklabels(), scores, strict=True):
            label.set(color=score.color)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        axes.set(xlabel=x_label, xlim=(0, None))
        values = ", ".join(
            f"{s.name} {'' if s.top1 is None else f'{s.top1:.1f} ± {s.margin:.1f}, '}probe {s.probe_top1:.1f}"
            for s in scores
        )
        return _save_svg(figure, f"{x_label}: {values}")


def _save_svg(figure: Any, label: str) -> str:
    """Return the figure as an SVG element without fixed size, described by its label for screen readers."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    opening, _, content = file.getvalue().partition("<svg ")[2].partition(">")
    view_box = re.search(r'viewBox="[^"]*"', opening)
    assert view_box is not None
    content = re.sub(r"<metadata>.*?</metadata>", "", content, flags=re.DOTALL)
    return f'<svg class="chart" {view_box[0]} role="img" aria-label="{escape(label)}">{content.strip()}'
