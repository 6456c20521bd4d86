"""How models stand: a dot for each score with its standard error, and a ring for a second score, as an SVG element."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDE, _ROW, _TOP, _BOTTOM = 460, 34, 24, 40
_LEFT, _RIGHT = 92, 12  # of the plot; names stand to the left


@dataclass(frozen=True)
class Score:
    """In percent."""

    name: str
    dot: float
    error: float  # of the dot, to either side
    ring: float
    colour: str  # as CSS has it


def standing(scores: Sequence[Score], *, chance: float, axis: str) -> str:
    """A row for each model, on an axis from 0 that ends with the best score; a dashed line marks chance."""
    top = max(10.0, *(max(each.dot + each.error, each.ring) for each in scores))
    step = 10 if top <= 60 else 20
    end = step * (top // step + 1)
    high = _TOP + _ROW * len(scores)

    def across(percent: float) -> str:
        return f"{_LEFT + (_WIDE - _LEFT - _RIGHT) * percent / end:.1f}"

    parts = []
    for mark in map(float, range(0, int(end) + 1, step)):
        parts.append(f'<line class="grid" x1="{across(mark)}" x2="{across(mark)}" y1="{_TOP}" y2="{high}"/>')
        parts.append(f'<text class="mark" x="{across(mark)}" y="{high + 18}" text-anchor="middle">{mark:g}</text>')
    parts.append(f'<line class="chance" x1="{across(chance)}" x2="{across(chance)}" y1="{_TOP - 4}" y2="{high}"/>')
    parts.append(f'<text class="mark" x="{across(chance)}" y="{_TOP - 10}" text-anchor="middle">chance</text>')
    parts.append(f'<text class="axis" x="{(_LEFT + _WIDE - _RIGHT) / 2:g}" y="{high + 36}" text-anchor="middle">')
    parts.append(f"{escape(axis)}</text>")
    for number, each in enumerate(scores):
        y, colour = _TOP + _ROW * (number + 0.5), escape(each.colour, quote=True)
        low, best = across(max(0.0, each.dot - each.error)), across(min(100.0, each.dot + each.error))
        parts.append(f'<text class="name" x="0" y="{y:g}" dy=".35em" fill="{colour}">{escape(each.name)}</text>')
        parts.append(f'<line class="line" x1="{low}" x2="{best}" y1="{y:g}" y2="{y:g}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{across(each.ring)}" cy="{y:g}" r="4.5" class="ring" stroke="{colour}"/>')
        parts.append(f'<circle cx="{across(each.dot)}" cy="{y:g}" r="5.5" fill="{colour}"/>')
    said = ", ".join(f"{each.name} {each.dot:.1f} ± {each.error:.1f}, {each.ring:.1f}" for each in scores)
    label = escape(f"{axis}: {said}", quote=True)
    size = f"0 0 {_WIDE} {high + _BOTTOM}"
    return f'<svg class="chart" viewBox="{size}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
