"""A method's figure: its description, and how it becomes an SVG file."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import torch

from vidstill.utils.types import Grid

CLIP, IMAGE = Grid(4, 1, 20), Grid(1, 4, 10)

# ---- Description --------------------------------------------------------------------------------------------------

TokenSet = Literal["visible", "masked", "teacher_only"] | tuple[int, ...]  # numbers: ranks among the visible tokens


@dataclass(frozen=True, kw_only=True)
class Term:
    """A term of the loss: the module that the student's tokens pass, and the target."""

    name: str
    lines: tuple[str, ...]
    through: tuple[str, ...]  # the text in the box between the student and the term
    where: TokenSet  # the tokens at which the loss is computed
    teacher: int | None = None  # index of the teacher whose features are the target; None: the clip's pixels


@dataclass(frozen=True, kw_only=True)
class Teacher:
    name: tuple[str, ...]
    sees: Literal["same", "more", "all"]
    label: str  # above its clip
    output: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    title: str
    sentence: str
    mask: Any
    terms: tuple[Term, ...]
    label: str = "the student sees 1 token in 10"
    teachers: tuple[Teacher, ...] = ()
    grid: Grid = CLIP
    seed: int = 1


# ---- Drawing ------------------------------------------------------------------------------------------------

STUDENT, DISTILLED, TEACHER, MASKED = "#2f6fb0", "#c4501b", "#26231f", "#d6d3cc"
_VISIBLE = "#b4cce6"  # visible tokens at which a term is not computed
_PAPER, _EDGE, _QUIET = "#fbfaf7", "#d9d5cc", "#5f5b54"

_WIDE = 846
_CELL, _MINI = 10, 5
_CLIP_X, _ENCODER_X, _BOX_X, _CARD_X, _BUS_X = 24, 252, 400, 562, 822
_ENCODER_W, _BOX_W, _CARD_W, _CARD_H = 116, 128, 244, 70


def draw_figure(figure: Figure) -> str:
    """Return the figure as the text of an SVG file."""
    mask = figure.mask.draw(torch.tensor([figure.seed]), figure.grid)
    visible = set(mask.visible[0].tolist())
    teacher_only = set() if mask.teacher_only is None else set(mask.teacher_only[0].tolist())
    all_tokens = set(range(figure.grid.num_tokens))
    top = 92
    bottom = top + len(figure.terms) * (_CARD_H + 10) - 10
    middle = (top + bottom) / 2
    parts = [
        _text(24, 32, figure.title, size=18, weight=700),
        _text(24, 54, figure.sentence, size=13, colour=_QUIET),
        *_lane(figure, middle, figure.label, {STUDENT: visible}, ("student",), STUDENT),
        _text(_ENCODER_X + _ENCODER_W / 2, middle + 38, "trained encoder", size=12, colour=STUDENT, anchor="middle"),
    ]
    for number, term in enumerate(figure.terms):
        parts += _term(figure, term, top + number * (_CARD_H + 10), middle, visible, teacher_only)
    for number, teacher in enumerate(figure.teachers):
        y = bottom + 62 + 86 * number
        more = {"same": set(), "more": teacher_only, "all": all_tokens - visible}[teacher.sees]
        parts += _lane(figure, y, teacher.label, {STUDENT: visible, DISTILLED: more}, teacher.name, TEACHER)
        parts += _bus(figure, number, teacher, y, top)
        bottom_lane = y + 34
    high = (bottom_lane if figure.teachers else max(bottom, middle + 46)) + 50
    parts.append(_legend(figure, high - 20))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {high:g}" width="{_WIDE}" height="{high:g}" '
        f'role="img" aria-label="{escape(f"{figure.title}: {figure.sentence}")}" '
        "font-family=\"system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n"
        f"{_box(0.5, 0.5, _WIDE - 1, high - 1, _PAPER, _EDGE, round=8)}\n{body}\n</svg>\n"
    )


def _lane(
    figure: Figure, middle: float, label: str, tokens: dict[str, set[int]], name: tuple[str, ...], colour: str
) -> list[str]:
    """Draw a clip as one model sees it, and the model."""
    wide, high = _size(figure.grid, _CELL)
    return [
        _text(_CLIP_X, middle - high / 2 - 10, label, size=12),
        *_tokens(figure.grid, _CLIP_X, middle - high / 2, _CELL, tokens),
        _arrow([(_CLIP_X + wide + 6, middle), (_ENCODER_X - 3, middle)], colour),
        _box(_ENCODER_X, middle - 23, _ENCODER_W, 46, colour),
        *_label(_ENCODER_X + _ENCODER_W / 2, middle, name, "#ffffff"),
    ]


def _term(figure: Figure, term: Term, y: float, encoder: float, visible: set[int], teacher_only: set[int]) -> list[str]:
    """Draw the box that the student's tokens pass, and the card of the loss term."""
    middle = y + _CARD_H / 2
    colour = STUDENT if term.teacher is None else DISTILLED
    turn = (_ENCODER_X + _ENCODER_W + _BOX_X) / 2
    wide, _ = _size(figure.grid, _MINI)
    ordered = sorted(visible)
    masked = set(range(figure.grid.num_tokens)) - visible
    sets = {"visible": visible, "teacher_only": teacher_only, "masked": masked}
    tokens = {ordered[n] for n in term.where} if isinstance(term.where, tuple) else sets[term.where]
    return [
        _arrow([(_ENCODER_X + _ENCODER_W, encoder), (turn, encoder), (turn, middle), (_BOX_X - 3, middle)], STUDENT),
        _box(_BOX_X, middle - 20, _BOX_W, 40, "#ffffff", colour),
        *_label(_BOX_X + _BOX_W / 2, middle, term.through, colour),
        _arrow([(_BOX_X + _BOX_W, middle), (_CARD_X - 3, middle)], STUDENT),
        _box(_CARD_X, y, _CARD_W, _CARD_H, "#ffffff", _EDGE),
        _box(_CARD_X, y, 5, _CARD_H, colour, round=0),
        _text(_CARD_X + 16, y + 20, term.name, size=13, weight=700, colour=colour),
        *(_text(_CARD_X + 16, y + 44 + 16 * n, line, size=12) for n, line in enumerate(term.lines)),
        *_tokens(figure.grid, _CARD_X + _CARD_W - wide - 8, y + 7, _MINI, {_VISIBLE: visible, colour: tokens}),
    ]


def _bus(figure: Figure, number: int, teacher: Teacher, y: float, top: float) -> list[str]:
    """Draw the lines from a teacher to the terms that use its output."""
    x = _BUS_X + 10 * number
    ends = [top + n * (_CARD_H + 10) + _CARD_H / 2 for n, term in enumerate(figure.terms) if term.teacher == number]
    stem = [(_ENCODER_X + _ENCODER_W, y), (x, y), (x, min(ends)), (_CARD_X + _CARD_W + 3, min(ends))]
    branches = [[(x, end), (_CARD_X + _CARD_W + 3, end)] for end in ends if end != min(ends)]
    return [
        *(_arrow(points, DISTILLED) for points in (stem, *branches)),
        _text(_BOX_X, y - 8, teacher.output, size=12, colour=DISTILLED),
    ]


def _legend(figure: Figure, y: float) -> str:
    sees = {teacher.sees for teacher in figure.teachers}
    entries = [(STUDENT, "visible to the student"), (MASKED, "masked")]
    if sees & {"more", "all"}:
        entries.insert(1, (DISTILLED, "visible to the teacher only"))
    x, parts = float(_CLIP_X), []
    for colour, text in entries:
        parts += [_box(x, y - 9, _CELL, _CELL, colour, round=1.5), _text(x + 16, y, text, size=12, colour=_QUIET)]
        x += 34 + 7.2 * len(text)
    axes = "down: rows; across: columns" if figure.grid == IMAGE else "down: time slots; across: positions in a frame"
    return "\n".join([*parts, _text(_WIDE - 24, y, axes, size=12, colour=_QUIET, anchor="end")])


def _size(grid: Grid, cell: float) -> tuple[float, float]:
    return grid.w * cell, grid.t * grid.h * cell


def _tokens(grid: Grid, x: float, y: float, cell: float, tokens: dict[str, Collection[int]] | Any) -> list[str]:
    """Draw the grid: masked, except for the given tokens of each colour."""
    colour_of = {token: colour for colour, members in tokens.items() for token in members}
    gap = 1 if cell > 5 else 0.5
    return [
        _box(
            x + token % grid.w * cell,
            y + token // grid.w * cell,
            cell - gap,
            cell - gap,
            colour_of.get(token, MASKED),
            round=cell / 7,
        )
        for token in range(grid.num_tokens)
    ]


def _label(x: float, y: float, lines: Sequence[str], colour: str) -> list[str]:
    """Draw centred lines of text in a box."""
    first = y + 4.5 - 8 * (len(lines) - 1)
    return [
        _text(x, first + 16 * n, line, size=12, colour=colour, anchor="middle", weight=600)
        for n, line in enumerate(lines)
    ]


def _box(x: float, y: float, wide: float, high: float, fill: str, edge: str | None = None, *, round: float = 4) -> str:
    stroke = f' stroke="{edge}"' if edge else ""
    return f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" rx="{round:.3g}" fill="{fill}"{stroke}/>'


def _arrow(points: Sequence[tuple[float, float]], colour: str) -> str:
    """Draw a line with a horizontal arrow head at its end."""
    (before, _), (x, y) = points[-2:]
    back = -7 if x > before else 7
    line = " ".join(f"{px:g},{py:g}" for px, py in (*points[:-1], (x + back / 2, y)))
    head = f"{x:g},{y:g} {x + back:g},{y - 4:g} {x + back:g},{y + 4:g}"
    return (
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        f'<polygon points="{head}" fill="{colour}"/>'
    )


def _text(
    x: float,
    y: float,
    content: str,
    *,
    size: float,
    colour: str = TEACHER,
    weight: int = 400,
    anchor: Literal["start", "middle", "end"] = "start",
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(content)}</text>'
    )
