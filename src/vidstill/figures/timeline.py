"""What a video shows and when: classes over time, as a plot and as runs of the same class."""

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vidstill.figures.text_fit import ended, tailed

COLOURS = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
"""Told apart by the colour-blind, and as greys (Okabe and Ito, Color Universal Design, 2008)."""

OTHER = "#9A9AA2"
"""All further classes'."""

_DPI = 100
_WIDE, _HIGH = 1100, 440  # pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 290, 64, 52  # around the plot; names stand to its right
_STRIP, _GAP = 20, 14  # the strip of leading classes below the plot, and what is between them
_INK, _PALE, _LINE = "#27272A", "#71717A", "#E4E4E7"
_MOST_POINTS = 250  # of a line: where there are more windows, a point is the mean of several
_STEPS = (*(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30), *(60 * m for m in (1, 2, 5, 10, 15, 30, 60, 120)))


@dataclass(frozen=True)
class Timeline:
    """The probabilities of the classes in each of a video's windows, which follow one another and may overlap.

    Args:
        starts, ends: of the windows, in seconds from the video's first frame.
    """

    starts: Float[np.ndarray, "n"]
    ends: Float[np.ndarray, "n"]
    probabilities: Float[np.ndarray, "n classes"]

    @property
    def middles(self) -> Float[np.ndarray, "n"]:
        return (self.starts + self.ends) / 2

    @property
    def top(self) -> Int[np.ndarray, "n"]:
        """Each window's most probable class."""
        return self.probabilities.argmax(axis=1)

    @property
    def borders(self) -> Float[np.ndarray, "borders"]:
        """Where one window's answer gives way to the next one's: midway between their middles."""
        middles = self.middles
        return np.concatenate([self.starts[:1], (middles[1:] + middles[:-1]) / 2, self.ends[-1:]])

    def at(self, seconds: float) -> int:
        """The window whose middle is nearest to a moment."""
        inner = self.borders[1:-1]
        return int(np.searchsorted(inner, seconds, side="right"))

    def leading(self, most: int = len(COLOURS)) -> list[int]:
        """The classes that are first in most windows, then those of the largest means; the largest mean first."""
        first = np.bincount(self.top, minlength=self.probabilities.shape[1])
        means = self.probabilities.mean(axis=0)
        chosen = sorted(range(len(means)), key=lambda label: (-first[label], -means[label]))[:most]
        return sorted(chosen, key=lambda label: -means[label])

    def colours(self) -> dict[int, str]:
        """The colours of the leading classes; all others have `OTHER`."""
        return dict(zip(self.leading(), COLOURS, strict=False))

    def runs(self) -> list[tuple[float, float, int, float]]:
        """Start, end, class and its mean probability for each row of windows with the same class first."""
        found = []
        for label, places in groupby(range(len(self.starts)), key=self.top.tolist().__getitem__):
            run = list(places)
            mean = float(self.probabilities[run, label].mean())
            found.append((float(self.borders[run[0]]), float(self.borders[run[-1] + 1]), label, mean))
        return found


def clock(seconds: float, digits: int = 0) -> str:
    """`0:07`, `12:30`, `1:02:05`; with digits behind the second where they are asked for."""
    units = round(seconds * 10**digits)
    whole, part = divmod(units, 10**digits)
    minutes, rest = divmod(whole, 60)
    text = f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
    return f"{text}.{part:0{digits}}" if digits else text


def plot(title: str, timeline: Timeline, classes: Sequence[str], note: str = "") -> bytes:
    """A PNG: the probabilities of the leading classes over time, and below them which class is first, when.

    Args:
        title: the video's name.
        note: a line below it, such as the answer for the whole video.
    """
    figure = Figure(figsize=(_WIDE / _DPI, _HIGH / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    height = _HIGH - _TOP - _BOTTOM - _STRIP - _GAP
    lines = figure.add_axes(_box(_BOTTOM + _STRIP + _GAP, height))
    strip = figure.add_axes(_box(_BOTTOM, _STRIP))
    together = _draw_lines(lines, timeline)
    _draw_strip(strip, timeline)
    room = _WIDE - _LEFT - 24
    _write(figure, 24, _HIGH - 30, tailed(title, room, 17, bold=True), 17, _INK, weight="bold")
    if together > 1:
        note += f"{'; ' if note else ''}each point is the mean of {together} windows"
    _write(figure, 24, _HIGH - 50, ended(note, room, 13), 13, _PALE)
    _write_names(figure, timeline, classes, _BOTTOM + _STRIP + _GAP + height)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a name in letters that the font has not: a box
        canvas.print_png(file)
    return file.getvalue()


def _box(bottom: int, height: int) -> tuple[float, float, float, float]:
    return _LEFT / _WIDE, bottom / _HIGH, (_WIDE - _LEFT - _RIGHT) / _WIDE, height / _HIGH


def _write(figure: Figure, x: int, y: int, text: str, size: int, colour: str, **how: Any) -> None:
    """A text at its left end, on its base line, in pixels; nothing in it is taken for a formula."""
    figure.text(
        x / _WIDE, y / _HIGH, text, size=size * 72 / _DPI, color=colour, family="DejaVu Sans", parse_math=False, **how
    )


def _draw_lines(axes: Any, timeline: Timeline) -> int:
    """The probabilities; gives how many windows a point stands for."""
    low, high = float(timeline.starts[0]), float(timeline.ends[-1])
    together = math.ceil(len(timeline.starts) / _MOST_POINTS)
    cuts = [*range(0, len(timeline.starts), together), len(timeline.starts)]
    middles = [timeline.middles[a:b].mean() for a, b in pairwise(cuts)]
    for label, colour in reversed(timeline.colours().items()):
        means = [timeline.probabilities[a:b, label].mean() for a, b in pairwise(cuts)]
        axes.plot([low, *middles, high], [means[0], *means, means[-1]], color=colour, lw=2.2, solid_joinstyle="round")
        if len(means) <= 40:
            axes.plot(middles, means, "o", color=colour, ms=5, mec="white", mew=1)
    axes.set(xlim=(low, high), ylim=(-0.02, 1.02), xticks=[], yticks=[0, 0.25, 0.5, 0.75, 1])
    axes.set_yticklabels(["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.tick_params(length=0, labelsize=13 * 72 / _DPI, labelcolor=_PALE, pad=8)
    axes.grid(axis="y", color=_LINE, lw=1)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    return together


def _draw_strip(axes: Any, timeline: Timeline) -> None:
    colours, borders = timeline.colours(), timeline.borders
    low, high = float(borders[0]), float(borders[-1])
    for start, end, label, _ in timeline.runs():
        axes.axvspan(start, end, color=colours.get(label, OTHER), lw=0)
    axes.set(xlim=(low, high), yticks=[])
    step = next((step for step in _STEPS if (high - low) / step <= 8), 3600 * math.ceil((high - low) / 8 / 3600))
    ticks = np.arange(math.ceil(low / step), math.floor(high / step + 1e-6) + 1) * step
    digits = 0 if step >= 1 else 1 if step >= 0.1 else 2
    axes.set_xticks(ticks, [clock(float(tick), digits) for tick in ticks])
    axes.tick_params(length=4, color=_PALE, labelsize=13 * 72 / _DPI, labelcolor=_PALE)
    for side in axes.spines.values():
        side.set_visible(False)


def _write_names(figure: Figure, timeline: Timeline, classes: Sequence[str], top: int) -> None:
    """To the right, for each colour the class and the mean of its probability."""
    means = timeline.probabilities.mean(axis=0)
    left, right, y = _WIDE - _RIGHT + 28, _WIDE - 24, top - 12
    _write(figure, right, y, "mean", 13, _PALE, ha="right")
    for label, colour in timeline.colours().items():
        y -= 28
        figure.add_artist(Rectangle((left / _WIDE, (y - 1) / _HIGH), 14 / _WIDE, 12 / _HIGH, color=colour, lw=0))
        _write(figure, left + 24, y, ended(classes[label], right - left - 24 - 60, 14), 14, _INK)
        _write(figure, right, y, f"{100 * means[label]:.0f} %", 14, _PALE, ha="right")
    if len(means) > len(COLOURS):
        figure.add_artist(Rectangle((left / _WIDE, (y - 29) / _HIGH), 14 / _WIDE, 12 / _HIGH, color=OTHER, lw=0))
        _write(figure, left + 24, y - 28, f"{len(means) - len(COLOURS)} more, not drawn above", 13, _PALE)
    _write(figure, left, _BOTTOM + 5, "most probable", 13, _PALE)
