"""Class probabilities of a video over time: as a plot, and as segments of the same best class."""

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vidstill.figures.text_fit import truncate_end, truncate_start

CLASS_COLORS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
"""Distinct for the colour-blind, and as greys (Okabe and Ito, Color Universal Design, 2008)."""

OTHER_COLOR = "#9A9AA2"
"""Of all other classes."""

_DPI = 100
_WIDTH, _HEIGHT = 1100, 440  # pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 290, 64, 52  # margins of the plot; the legend is to its right
_STRIP_HEIGHT, _GAP = 20, 14  # the strip of best classes below the plot, and the gap between them
_TEXT_COLOR, _DIM_TEXT_COLOR, _GRID_COLOR = "#27272A", "#71717A", "#E4E4E7"
_MAX_POINTS = 250  # of a line; with more windows, a point is the mean of several
_TICK_STEPS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60 * m for m in (1, 2, 5, 10, 15, 30, 60, 120)),
)


@dataclass(frozen=True)
class Timeline:
    """The class probabilities in each window of a video; windows are ordered and may overlap.

    Args:
        starts, ends: Of the windows, in seconds from the video's first frame.
    """

    starts: Float[np.ndarray, "n"]
    ends: Float[np.ndarray, "n"]
    probabilities: Float[np.ndarray, "n classes"]

    @property
    def centers(self) -> Float[np.ndarray, "n"]:
        return (self.starts + self.ends) / 2

    @property
    def top_classes(self) -> Int[np.ndarray, "n"]:
        """Each window's most probable class."""
        return self.probabilities.argmax(axis=1)

    @property
    def boundaries(self) -> Float[np.ndarray, "borders"]:
        """The times at which one window gives way to the next: midway between their centers."""
        centers = self.centers
        return np.concatenate([self.starts[:1], (centers[1:] + centers[:-1]) / 2, self.ends[-1:]])

    def find_window(self, seconds: float) -> int:
        """Return the window whose center is nearest."""
        return int(np.searchsorted(self.boundaries[1:-1], seconds, side="right"))

    def find_leading_classes(self, max_classes: int = len(CLASS_COLORS)) -> list[int]:
        """Return the classes that are the best in most windows, then those of the largest means; largest mean first."""
        counts = np.bincount(self.top_classes, minlength=self.probabilities.shape[1])
        means = self.probabilities.mean(axis=0)
        leading = sorted(range(len(means)), key=lambda label: (-counts[label], -means[label]))[:max_classes]
        return sorted(leading, key=lambda label: -means[label])

    def assign_colors(self) -> dict[int, str]:
        """Return the colours of the leading classes; all others have `OTHER_COLOR`."""
        return dict(zip(self.find_leading_classes(), CLASS_COLORS, strict=False))

    def find_segments(self) -> list[tuple[float, float, int, float]]:
        """Return start, end, class and mean probability of each run of windows with the same best class."""
        segments = []
        for label, indices in groupby(range(len(self.starts)), key=self.top_classes.tolist().__getitem__):
            run = list(indices)
            mean = float(self.probabilities[run, label].mean())
            segments.append((float(self.boundaries[run[0]]), float(self.boundaries[run[-1] + 1]), label, mean))
        return segments


def format_clock(seconds: float, digits: int = 0) -> str:
    """Return `0:07`, `12:30` or `1:02:05`, with so many decimal digits."""
    units = round(seconds * 10**digits)
    whole, part = divmod(units, 10**digits)
    minutes, rest = divmod(whole, 60)
    text = f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
    return f"{text}.{part:0{digits}}" if digits else text


def draw_timeline(title: str, timeline: Timeline, classes: Sequence[str], note: str = "") -> bytes:
    """Draw a PNG: the probabilities of the leading classes over time, and below them a strip of the best class.

    Args:
        title: The video's name.
        classes: All class names.
        note: A line below the title, such as the prediction for the whole video.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH / _DPI, _HEIGHT / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    height = _HEIGHT - _TOP - _BOTTOM - _STRIP_HEIGHT - _GAP
    lines = figure.add_axes(_make_axes_rect(_BOTTOM + _STRIP_HEIGHT + _GAP, height))
    strip = figure.add_axes(_make_axes_rect(_BOTTOM, _STRIP_HEIGHT))
    windows_per_point = _draw_lines(lines, timeline)
    _draw_strip(strip, timeline)
    width = _WIDTH - _LEFT - 24
    _draw_text(figure, 24, _HEIGHT - 30, truncate_start(title, width, 17, bold=True), 17, _TEXT_COLOR, weight="bold")
    if windows_per_point > 1:
        note += f"{'; ' if note else ''}each point is the mean of {windows_per_point} windows"
    _draw_text(figure, 24, _HEIGHT - 50, truncate_end(note, width, 13), 13, _DIM_TEXT_COLOR)
    _draw_legend(figure, timeline, classes, _BOTTOM + _STRIP_HEIGHT + _GAP + height)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # missing in the font: a box is drawn
        canvas.print_png(file)
    return file.getvalue()


def _make_axes_rect(bottom: int, height: int) -> tuple[float, float, float, float]:
    return _LEFT / _WIDTH, bottom / _HEIGHT, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, height / _HEIGHT


def _draw_text(figure: Any, x: int, y: int, text: str, size: int, color: str, **options: Any) -> None:
    """Draw a text with its left end and base line at x and y in pixels; `$` begins no formula."""
    figure.text(
        x / _WIDTH,
        y / _HEIGHT,
        text,
        size=size * 72 / _DPI,
        color=color,
        family="DejaVu Sans",
        parse_math=False,
        **options,
    )


def _draw_lines(axes: Any, timeline: Timeline) -> int:
    """Draw the probabilities; return the number of windows per point."""
    low, high = float(timeline.starts[0]), float(timeline.ends[-1])
    windows_per_point = math.ceil(len(timeline.starts) / _MAX_POINTS)
    cuts = [*range(0, len(timeline.starts), windows_per_point), len(timeline.starts)]
    centers = [timeline.centers[a:b].mean() for a, b in pairwise(cuts)]
    for label, color in reversed(timeline.assign_colors().items()):
        means = [timeline.probabilities[a:b, label].mean() for a, b in pairwise(cuts)]
        axes.plot([low, *centers, high], [means[0], *means, means[-1]], color=color, lw=2.2, solid_joinstyle="round")
        if len(means) <= 40:
            axes.plot(centers, means, "o", color=color, ms=5, mec="white", mew=1)
    axes.set(xlim=(low, high), ylim=(-0.02, 1.02), xticks=[], yticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_yticklabels(["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.tick_params(length=0, labelsize=13 * 72 / _DPI, labelcolor=_DIM_TEXT_COLOR, pad=8)
    axes.grid(axis="y", color=_GRID_COLOR, lw=1)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    return windows_per_point


def _draw_strip(axes: Any, timeline: Timeline) -> None:
    colors, boundaries = timeline.assign_colors(), timeline.boundaries
    low, high = float(boundaries[0]), float(boundaries[-1])
    for start, end, label, _ in timeline.find_segments():
        axes.axvspan(start, end, color=colors.get(label, OTHER_COLOR), lw=0)
    axes.set(xlim=(low, high), yticks=[])
    step = next((step for step in _TICK_STEPS if (high - low) / step <= 8), 3600 * math.ceil((high - low) / 8 / 3600))
    ticks = np.arange(math.ceil(low / step), math.floor(high / step + 1e-6) + 1) * step
    digits = 0 if step >= 1 else 1 if step >= 0.1 else 2
    axes.set_xticks(ticks, [format_clock(float(tick), digits) for tick in ticks])
    axes.tick_params(length=4, color=_DIM_TEXT_COLOR, labelsize=13 * 72 / _DPI, labelcolor=_DIM_TEXT_COLOR)
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_legend(figure: Any, timeline: Timeline, classes: Sequence[str], top: int) -> None:
    """Draw each colour's class and mean probability to the right of the plot."""
    from matplotlib.patches import Rectangle

    means = timeline.probabilities.mean(axis=0)
    left, right, y = _WIDTH - _RIGHT + 28, _WIDTH - 24, top - 12
    _draw_text(figure, right, y, "mean", 13, _DIM_TEXT_COLOR, ha="right")
    for label, color in timeline.assign_colors().items():
        y -= 28
        figure.add_artist(Rectangle((left / _WIDTH, (y - 1) / _HEIGHT), 14 / _WIDTH, 12 / _HEIGHT, color=color, lw=0))
        _draw_text(figure, left + 24, y, truncate_end(classes[label], right - left - 24 - 60, 14), 14, _TEXT_COLOR)
        _draw_text(figure, right, y, f"{100 * means[label]:.0f} %", 14, _DIM_TEXT_COLOR, ha="right")
    if len(means) > len(CLASS_COLORS):
        figure.add_artist(
            Rectangle((left / _WIDTH, (y - 29) / _HEIGHT), 14 / _WIDTH, 12 / _HEIGHT, color=OTHER_COLOR, lw=0)
        )
        _draw_text(
            figure, left + 24, y - 28, f"{len(means) - len(CLASS_COLORS)} more, not in the plot", 13, _DIM_TEXT_COLOR
        )
    _draw_text(figure, left, _BOTTOM + 5, "most probable", 13, _DIM_TEXT_COLOR)
