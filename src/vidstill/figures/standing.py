"""How models stand: a dot for each score with its standard error, and a ring for a second score, as an SVG element."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDE, _ROW, _TOP, _BOTTOM = 460, 34, 24, 40
_LEFT, _RIGHT = 92, 12  # of the plot; names stand to the left


@dataclass(frozen=True)
class ModelScore:
    """In percent."""

    name: str
    top1: float
    standard_error: float  # of the dot, to either side
    probe_top1: float
    color: str  # as CSS has it


def draw_score_chart(scores: Sequence[ModelScore], *, chance_level: float, x_label: str) -> str:
    """A row for each model, on an axis from 0 that ends with the best score; a dashed line marks chance."""
    top = max(10.0, *(max(each.top1 + each.standard_error, each.probe_top1) for each in scores))
    step = 10 if top <= 60 else 20
    end = step * (top // step + 1)
    high = _TOP + _ROW * len(scores)

    def across(percent: float) -> str:
        return f"{_LEFT + (_WIDE - _LEFT - _RIGHT) * percent / end:.1f}"

    parts = []
    for mark in map(float, range(0, int(end) + 1, step)):
        parts.append(f'<line class="grid" x1="{across(mark)}" x2="{across(mark)}" y1="{_TOP}" y2="{high}"/>')
        parts.append(f'<text class="mark" x="{across(mark)}" y="{high + 18}" text-anchor="middle">{mark:g}</text>')
    parts.append(
        f'<line class="chance" x1="{across(chance_level)}" x2="{across(chance_level)}" y1="{_TOP - 4}" y2="{high}"/>'
    )
    parts.append(f'<text class="mark" x="{across(chance_level)}" y="{_TOP - 10}" text-anchor="middle">chance</text>')
    parts.append(f'<text class="axis" x="{(_LEFT + _WIDE - _RIGHT) / 2:g}" y="{high + 36}" text-anchor="middle">')
    parts.append(f"{escape(x_label)}</text>")
    for number, each in enumerate(scores):
        y, colour = _TOP + _ROW * (number + 0.5), escape(each.color, quote=True)
        low, best = (
            across(max(0.0, each.top1 - each.standard_error)),
            across(min(100.0, each.top1 + each.standard_error)),
        )
        parts.append(f'<text class="name" x="0" y="{y:g}" dy=".35em" fill="{colour}">{escape(each.name)}</text>')
        parts.append(f'<line class="line" x1="{low}" x2="{best}" y1="{y:g}" y2="{y:g}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{across(each.probe_top1)}" cy="{y:g}" r="4.5" class="ring" stroke="{colour}"/>')
        parts.append(f'<circle cx="{across(each.top1)}" cy="{y:g}" r="5.5" fill="{colour}"/>')
    said = ", ".join(
        f"{each.name} {each.top1:.1f} ± {each.standard_error:.1f}, {each.probe_top1:.1f}" for each in scores
    )
    label = escape(f"{x_label}: {said}", quote=True)
    size = f"0 0 {_WIDE} {high + _BOTTOM}"
    return f'<svg class="chart" viewBox="{size}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
