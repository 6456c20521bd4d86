"""A line chart as an SVG element for a page: it takes the page's type, and needs neither scripts nor other files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

ChartPoint = tuple[float, float]

_WIDE, _HIGH = 460.0, 290.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 96.0, 30.0, 42.0  # around the plot; names stand to the right of their lines
_APART = 16.0  # between two names


LineStyle = Literal["plain", "dashed", "dotted", "dash-dotted"]
_DASH_PATTERNS: dict[LineStyle, str] = {"plain": "", "dashed": "5 4", "dotted": "1.5 3.5", "dash-dotted": "7 3 1.5 3"}


@dataclass(frozen=True)
class ChartLine:
    name: str
    points: Sequence[ChartPoint]
    color: str  # as CSS has it
    style: LineStyle = "plain"


def draw_line_chart(
    lines: Sequence[ChartLine],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    y_range: ChartPoint | None = None,
    markers: bool = False,
) -> str:
    """The lines over common axes, each with its name at its end; lines without points are left out.

    Args:
        x, y: what the axes count.
        log_x: powers of ten at equal distances.
        y_range: the ends of the y axis; default: of the points.
        markers: a dot at each point, and a mark on the x axis for each whole number.
    """
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    xs = [px for line in lines for px, _ in line.points]
    low, high = y_range or _spread([py for line in lines for _, py in line.points])
    across = _Scale(min(xs), max(xs), _LEFT, _WIDE - _RIGHT, log=log_x)
    up = _Scale(low, high, _HIGH - _BOTTOM, _TOP)
    marks = [float(n) for n in range(math.ceil(min(xs)), math.floor(max(xs)) + 1)] if markers else across.marks()
    parts = [_axes(across, up, marks, x_label, y_label)]
    ends = _apart([up(line.points[-1][1]) for line in lines])
    for line, end in zip(lines, ends, strict=True):
        parts.append(_drawn(line, [(across(px), up(py)) for px, py in line.points], end, markers))
    label = escape(f"{y_label} over {x_label}: {', '.join(line.name for line in lines)}", quote=True)
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDE:g} {_HIGH:g}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True)
class _Scale:
    """From numbers to places, linear or by powers of ten."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * ((value - low) / (high - low) if high > low else 0.5)

    def marks(self) -> list[float]:
        """Round numbers for an axis."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            return [m * 10.0**p for p in powers for m in (1, 3) if self.low <= m * 10.0**p <= self.high]
        step = _round_step((self.high - self.low) / 4)
        return [n * step for n in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1)]


def _round_step(about: float) -> float:
    power = 10.0 ** math.floor(math.log10(about)) if about > 0 else 1.0
    return power * next(m for m in (1, 2, 5, 10) if m * power >= about * 0.999)


def _spread(values: Sequence[float]) -> ChartPoint:
    """From the lowest to the highest, with some air."""
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or abs(high) or 1.0
    return (0.0 if 0 <= low <= air else low - air), high + air


def _axes(across: _Scale, up: _Scale, marks: Sequence[float], x: str, y: str) -> str:
    parts = []
    for value in up.marks():
        place = f"{up(value):.1f}"
        parts.append(f'<line class="grid" x1="{_LEFT:g}" x2="{_WIDE - _RIGHT:g}" y1="{place}" y2="{place}"/>')
        parts.append(f'<text class="mark" x="{_LEFT - 8:g}" y="{place}" dy=".35em" text-anchor="end">{value:g}</text>')
    for value in marks:
        place = f"{across(value):.1f}"
        parts.append(
            f'<text class="mark" x="{place}" y="{_HIGH - _BOTTOM + 18:g}" text-anchor="middle">{value:g}</text>'
        )
    middle = (_LEFT + _WIDE - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle:g}" y="{_HIGH - 5:g}" text-anchor="middle">{escape(x)}</text>')
    parts.append(f'<text class="axis" x="0" y="13">{escape(y)}</text>')
    return "".join(parts)


def _drawn(line: ChartLine, points: Sequence[ChartPoint], name_at: float, dots: bool) -> str:
    colour = escape(line.color, quote=True)
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    dashes = f' stroke-dasharray="{_DASH_PATTERNS[line.style]}"' if _DASH_PATTERNS[line.style] else ""
    parts = [f'<polyline class="line" points="{path}" stroke="{colour}"{dashes}/>']
    if dots or len(points) == 1:
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>' for px, py in points]
    name = f'<text class="name" x="{_WIDE - _RIGHT + 10:g}" y="{name_at:.1f}" dy=".35em" fill="{colour}">'
    return "".join(parts) + f"{name}{escape(line.name)}</text>"


def _apart(places: Sequence[float]) -> list[float]:
    """The places, moved until no two names overlap; their order stays."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved: list[float] = []
    for i in order:
        moved.append(max(places[i], moved[-1] + _APART) if moved else places[i])
    shift = sum(moved) / len(moved) - sum(places) / len(places)  # as much upwards as downwards
    lowest = _HIGH - _BOTTOM - moved[-1] + shift
    back = [0.0] * len(places)
    for place, i in zip(moved, order, strict=True):
        back[i] = place - shift + min(0.0, lowest)
    return back
