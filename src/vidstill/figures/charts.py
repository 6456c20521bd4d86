"""Charts of runs as SVG elements for a page, drawn by matplotlib: losses over steps, and models' accuracies."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

ChartPoint = tuple[float, float]
LineStyle = Literal["solid", "dashed", "dotted", "dashdot"]

_WIDTH = 5.2  # inches
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "svg.hashsalt": "vidstill",  # the same chart is the same bytes
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.parse_math": False,
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


@dataclass(frozen=True)
class ChartLine:
    name: str
    points: Sequence[ChartPoint]
    color: str  # as matplotlib and CSS both read it: a name or #rrggbb
    style: LineStyle = "solid"


@dataclass(frozen=True)
class ModelScore:
    """A model's top-1 accuracies, in percent."""

    name: str
    top1: float
    standard_error: float  # of top1
    probe_top1: float
    color: str  # as ChartLine's


def draw_line_chart(
    lines: Sequence[ChartLine],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    y_range: ChartPoint | None = None,
    markers: bool = False,
) -> str:
    """Draw lines over common axes; lines without points are left out, and without any line the result is empty.

    Args:
        log_x: Use a logarithmic x axis.
        y_range: The ends of the y axis; None fits the points.
        markers: Mark each point, and put a tick at each whole number of the x axis.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return ""

    from matplotlib.ticker import MaxNLocator, NullFormatter

    def draw(axes: Any) -> None:
        for line in lines:
            marker = "o" if markers or len(line.points) == 1 else ""
            axes.plot(*zip(*line.points, strict=True), color=line.color, linestyle=line.style, marker=marker, ms=4)
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        elif markers:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel=x_label, ylabel=y_label, ylim=y_range)
        handles = [axes.lines[number] for number in range(len(lines))]
        names = [line.name for line in lines]
        axes.legend(handles, names, labelcolor="linecolor", loc="upper left", bbox_to_anchor=(1.0, 1.0))

    return _render(draw, 3.1, f"{y_label} over {x_label}: {', '.join(line.name for line in lines)}")


def draw_score_chart(scores: Sequence[ModelScore], *, chance_level: float, x_label: str) -> str:
    """Draw one row per model: a dot with its standard error for `top1`, a ring for `probe_top1`.

    Args:
        chance_level: Accuracy of a random classifier in percent, drawn as a dashed line.
    """

    def draw(axes: Any) -> None:
        for row, score in enumerate(scores):
            axes.errorbar(score.top1, row, xerr=score.standard_error, fmt="o", ms=7, color=score.color)
            axes.plot(score.probe_top1, row, "o", ms=6, mfc="none", mew=1.6, color=score.color)
        axes.axvline(chance_level, color="#8a857f", linestyle=(0, (3, 3)), linewidth=1.0)
        axes.annotate("chance", (chance_level, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom")
        axes.set_yticks(range(len(scores)), [score.name for score in scores])
        for label, score in zip(axes.get_yticklabels(), scores, strict=True):
            label.set(color=score.color, fontweight="bold")
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        axes.set(xlabel=x_label, xlim=(0, None))

    values = ", ".join(f"{s.name} {s.top1:.1f} ± {s.standard_error:.1f}, probe {s.probe_top1:.1f}" for s in scores)
    return _render(draw, 0.8 + 0.4 * len(scores), f"{x_label}: {values}")


def _render(draw: Callable[[Any], None], height: float, label: str) -> str:
    """Return the chart as an SVG element without fixed size, described by its label for screen readers.

    Args:
        height: Inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
    opening, _, content = file.getvalue().partition("<svg ")[2].partition(">")
    view_box = re.search(r'viewBox="[^"]*"', opening)
    assert view_box is not None
    content = re.sub(r"<metadata>.*?</metadata>", "", content, flags=re.DOTALL)
    return f'<svg class="chart" {view_box[0]} role="img" aria-label="{escape(label, quote=True)}">{content.strip()}'
