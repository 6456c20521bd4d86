"""Class probabilities of a video over time: as a plot, and as segments of the same best class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vidstill.figures.charts import open_figure, save_png
from vidstill.figures.text_fit import load_font, truncate_end, truncate_start

CLASS_COLORS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
"""Distinct for the colour-blind, and as greys (Okabe and Ito, Color Universal Design, 2008)."""

OTHER_COLOR = "#9A9AA2"
"""Of all other classes."""

_DIM_TEXT_COLOR = "#71717A"
_MAX_POINTS = 250  # of a line; with more windows, a point is the mean of several
_TICK_STEPS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60 * m for m in (1, 2, 5, 10, 15, 30, 60, 120)),
)


@dataclass(frozen=True)
class Timeline:
    """The class probabilities in each window of a video; windows are ordered and may overlap."""

    starts: Float[np.ndarray, "n"]  # in seconds from the video's first frame
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
    windows_per_point = math.ceil(len(timeline.starts) / _MAX_POINTS)
    if windows_per_point > 1:
        note += f"{'; ' if note else ''}each point is the mean of {windows_per_point} windows"
    with open_figure(11, 4.4) as figure:
        margins = {"left": 0.07, "right": 0.735, "top": 0.85, "bottom": 0.12, "hspace": 0.09}
        lines, strip = figure.subplots(2, sharex=True, gridspec_kw={"height_ratios": (15, 1), **margins})
        figure.text(0.02, 0.93, truncate_start(title, 1000, load_font(17, bold=True)), fontsize=12, weight="bold")
        figure.text(0.02, 0.885, truncate_end(note, 1000, load_font(13)), fontsize=9, color=_DIM_TEXT_COLOR)
        _draw_lines(lines, timeline, classes, windows_per_point)
        _draw_strip(strip, timeline)
        for axes in (lines, strip):
            axes.spines[:].set_visible(False)
        return save_png(figure)


def _draw_lines(axes: Any, timeline: Timeline, classes: Sequence[str], windows_per_point: int) -> None:
    """Draw the probabilities, and each colour's class with its mean probability to the right of the plot."""
    firsts = np.arange(0, len(timeline.starts), windows_per_point)
    counts = np.diff(firsts, append=len(timeline.starts))
    centers = np.add.reduceat(timeline.centers, firsts) / counts
    times = [timeline.starts[0], *centers, timeline.ends[-1]]
    means = np.add.reduceat(timeline.probabilities, firsts) / counts[:, None]
    if len(classes) > len(CLASS_COLORS):
        axes.plot([], color=OTHER_COLOR, lw=2.2, label=f"{len(classes) - len(CLASS_COLORS)} more, not in the plot")
    for label, color in reversed(timeline.assign_colors().items()):
        name = truncate_end(classes[label], 180, load_font(14))
        values = [means[0, label], *means[:, label], means[-1, label]]
        text = f"{100 * timeline.probabilities[:, label].mean():.0f} %  {name}"
        axes.plot(times, values, color=color, lw=2.2, solid_joinstyle="round", label=text)
        if len(centers) <= 40:
            axes.plot(centers, means[:, label], "o", color=color, ms=5, mec="white", mew=1)
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.05), frameon=False, reverse=True, title="mean")
    axes.set(xlim=(times[0], times[-1]), ylim=(-0.02, 1.02), yticks=[0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.tick_params(length=0, labelsize=9, labelcolor=_DIM_TEXT_COLOR, pad=8)
    axes.grid(axis="y", color="#E4E4E7", lw=1)
    axes.set_axisbelow(True)


def _draw_strip(axes: Any, timeline: Timeline) -> None:
    from matplotlib.ticker import MultipleLocator

    colors = timeline.assign_colors()
    for start, end, label, _ in timeline.find_segments():
        axes.axvspan(start, end, color=colors.get(label, OTHER_COLOR), lw=0)
    seconds = float(timeline.ends[-1] - timeline.starts[0])
    step = next((step for step in _TICK_STEPS if seconds / step <= 8), 3600 * math.ceil(seconds / 8 / 3600))
    digits = 0 if step >= 1 else 1 if step >= 0.1 else 2
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(lambda second, _: format_clock(second, digits))
    axes.set_yticks([])
    axes.tick_params(length=4, color=_DIM_TEXT_COLOR, labelsize=9, labelcolor=_DIM_TEXT_COLOR)
    axes.text(1.03, 0.5, "most probable", color=_DIM_TEXT_COLOR, size=9, va="center", transform=axes.transAxes)
