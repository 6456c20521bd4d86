"""A video again, with persons' boxes drawn over it, and beside each what that person does."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from vidstill.data.decode.images import Picture
from vidstill.data.storage.fetch import Source
from vidstill.figures.annotate import DARK, PALE, PAPER, Overlay, Paint, draw_bar, redraw
from vidstill.figures.text_fit import ended, font
from vidstill.figures.timeline import COLOURS
from vidstill.figures.tracks import Shown, Tracks

Rectangle = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two outside."""

_FACE = 1 / 3  # of a box from its top: what a panel should not cover
_FACES, _BODIES, _PANELS = 4.0, 1.0, 8.0  # how bad it is to cover them
_STAY, _TURN = 0.5, 0.02  # how good it is to stay on a side, how bad to take the next one in order
_CROWDED = ((3, 2), (6, 1))  # with more boxes than the one in a picture, a panel has as many lines as the other
_BLACK = (0, 0, 0)


def annotate_boxes(
    source: Source,
    out: Path,
    tracks: Tracks,
    actions: Sequence[str],
    *,
    top: int = 3,
    least: float = 0.0,
    rate: float | None = None,
    done: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Writes an MP4 by `redraw`: each person's box in the colour of its track, and beside it, with the track's number,
    the actions of the moment that is nearest.

    Args:
        top: actions that are shown of a person at most; of many persons, fewer.
        least: actions with a lower score are not shown.
        rate: frames per second, where the file states none.
        done: is told how many seconds there are so far.

    Raises:
        BrokenVideo: not one frame decodes.
        OSError: it cannot be written; what was there still is.
    """

    def painter(height: int, width: int) -> Paint:
        return _Painter(height, width, tracks, actions, top, least).paint

    redraw(source, out, painter, rate=rate, done=done)


def colour_of(track: int) -> tuple[int, int, int]:
    """The colours come again after as many tracks as there are."""
    return ImageColor.getrgb(COLOURS[(track - 1) % len(COLOURS)])[:3]


class _Painter:
    """Paints the frames of a video in their order.

    All panels of a track are equally wide, and a panel stays on its side of a box until another one is clearly better,
    so that nothing jumps.
    """

    def __init__(self, height: int, width: int, tracks: Tracks, actions: Sequence[str], top: int, least: float):
        self._height, self._width = height, width
        self._tracks, self._actions, self._top, self._least = tracks, actions, top, least
        size = max(13, round(min(height, width) / 40))
        self._size, self._line, self._pad = size, round(1.9 * size), round(0.45 * size)
        self._thick = max(3, round(min(height, width) / 180))
        self._percent = self._length("100 %")
        room = max(0, min(13 * size, width // 3 - self._percent))
        long = cache(lambda action: self._length(ended(actions[action], room, size, bold=True)))
        self._names: dict[int, int] = {}
        for moment, numbers in enumerate(tracks.numbers):
            for place, track in enumerate(numbers.tolist()):
                for action in self._told(moment, place):
                    self._names[track] = max(long(action), self._names.get(track, 0))
        self._chip = self._length("88") + self._pad
        self._side: dict[int, int] = {}
        self._panel = lru_cache(maxsize=64)(self._draw_panel)

    def paint(self, image: Picture, seconds: float) -> None:
        shown = self._tracks.at(seconds)
        boxes = [self._pixels(each) for each in shown]
        for each, box in zip(shown, boxes, strict=True):
            _outline(image, box, self._thick, colour_of(each.track))
        lines = min([self._top, *(most for count, most in _CROWDED if len(shown) > count)])
        placed: list[Rectangle] = []
        for each, box in zip(shown, boxes, strict=True):
            panel = self._panel(each.track, each.moment, each.place, lines)
            where = self._beside(each.track, panel, box, boxes, placed)
            placed.append(where)
            panel.over(image[where[1] : where[3], where[0] : where[2]])

    def _pixels(self, shown: Shown) -> Rectangle:
        sides = shown.box.clip(0, 1) * [self._width, self._height, self._width, self._height]
        x1, y1, x2, y2 = sides.round().astype(int).tolist()
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)

    def _beside(
        self, track: int, panel: Overlay, box: Rectangle, boxes: Sequence[Rectangle], placed: Sequence[Rectangle]
    ) -> Rectangle:
        """Where a panel covers least: to the right of its box, to the left, below, above, or in it at the feet."""
        height, width = panel.ground.shape[:2]
        gap = self._thick + 1
        x1, y1, x2, y2 = box
        sides = (
            (x2 + gap, y1),
            (x1 - gap - width, y1),
            (x1, y2 + gap),
            (x1, y1 - gap - height),
            (x2 - width, y2 + gap),
            (x2 - width, y1 - gap - height),
            (x2 + gap, y2 - height),
            (x1 - gap - width, y2 - height),
            (x1 + gap, y2 - gap - height),
        )
        found: list[tuple[float, int, Rectangle]] = []
        for side, (left, top) in enumerate(sides):
            left, top = max(0, min(left, self._width - width)), max(0, min(top, self._height - height))
            here = left, top, min(left + width, self._width), min(top + height, self._height)
            bad = _FACES * _covered(here, map(_face, boxes)) + _BODIES * _covered(here, boxes)
            bad = (bad + _PANELS * _covered(here, placed)) / (width * height) + _TURN * side
            found.append((bad - _STAY * (self._side.get(track) == side), side, here))
        _, self._side[track], where = min(found)
        return where

    def _told(self, moment: int, place: int) -> list[int]:
        """The actions that are shown of a box, the likeliest first."""
        scores = self._tracks.moments[moment].scores[place]
        best = np.argsort(-scores, kind="stable")[: self._top]
        return [int(action) for action in best if scores[action] >= self._least]

    def _draw_panel(self, track: int, moment: int, place: int, lines: int) -> Overlay:
        """The track's number, and beside it a line for each action: its name, its score, and below them a bar."""
        told = self._told(moment, place)[:lines]
        name_room = self._names.get(track, 0)
        width = 2 * self._pad + self._chip + bool(told) * (self._pad + name_room + self._size // 2 + self._percent)
        panel = Image.new("RGBA", (width, max(1, len(told)) * self._line + self._pad), DARK)
        draw = ImageDraw.Draw(panel)
        colour = colour_of(track)
        edge = self._pad // 2
        draw.rectangle((0, 0, self._chip + edge, panel.height), fill=(*colour, 255))
        ink = PAPER if sum(np.multiply(colour, (0.299, 0.587, 0.114))) < 140 else (*_BLACK, 255)
        middle = (self._chip + edge) / 2, edge + self._line / 2
        draw.text(middle, str(track), font=font(self._size, bold=True), fill=ink, anchor="mm")
        left, right = self._chip + edge + self._pad, width - self._pad
        for line, action in enumerate(told):
            share = float(self._tracks.moments[moment].scores[place, action])
            middle_of_line = edge + line * self._line + 0.42 * self._line
            bold, ink = line == 0, PALE if line else PAPER
            name = ended(self._actions[action], name_room, self._size, bold=bold)
            letters = font(self._size, bold=bold)
            draw.text((left, middle_of_line), name, font=letters, fill=ink, anchor="lm")
            draw.text((right, middle_of_line), f"{100 * share:.0f} %", font=letters, fill=ink, anchor="rm")
            below = middle_of_line + 0.78 * self._size
            draw_bar(draw, left, below, right - left, self._size // 3, share, COLOURS[(track - 1) % len(COLOURS)])
        return Overlay.of(panel)

    def _length(self, text: str) -> int:
        return math.ceil(font(self._size, bold=True).getlength(text))


def _outline(image: Picture, box: Rectangle, thick: int, colour: tuple[int, int, int]) -> None:
    """The colour from the box's edge inwards, and around it a dark line, so that it is seen on every ground."""
    height, width = image.shape[:2]
    for inwards, depth, ink in ((-1, thick + 2, _BLACK), (0, thick, colour)):
        x1, y1 = max(0, box[0] + inwards), max(0, box[1] + inwards)
        x2, y2 = min(width, box[2] - inwards), min(height, box[3] - inwards)
        depth = min(depth, (x2 - x1 + 1) // 2, (y2 - y1 + 1) // 2)
        for rows, columns in (
            (slice(y1, y1 + depth), slice(x1, x2)),
            (slice(y2 - depth, y2), slice(x1, x2)),
            (slice(y1, y2), slice(x1, x1 + depth)),
            (slice(y1, y2), slice(x2 - depth, x2)),
        ):
            image[rows, columns] = ink


def _face(box: Rectangle) -> Rectangle:
    return box[0], box[1], box[2], box[1] + round(_FACE * (box[3] - box[1]))


def _covered(panel: Rectangle, others: Iterable[Rectangle]) -> int:
    """The pixels of others below a panel, each one's counted."""
    sides = (
        (min(panel[2], x2) - max(panel[0], x1), min(panel[3], y2) - max(panel[1], y1)) for x1, y1, x2, y2 in others
    )
    return sum(max(0, width) * max(0, height) for width, height in sides)
