"""Draws a contact sheet: strips of small pictures with words beside them, whatever the words and the pictures are."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from vidstill.data.lettering import ended, font, tailed, wrapped

COLUMNS = 6
"""Pictures in a strip, at most."""

_HIGH, _WIDEST, _NARROWEST = 120, 214, 80  # pixels, of a picture's cell: 16:9 at its widest
_LEFT, _GAP, _MARGIN, _CAPTION, _BETWEEN = 230, 6, 24, 16, 12  # the words' column; … ; below a cell; below a strip
_PAPER, _CELL, _INK, _GREY, _RED = (255, 255, 255), (244, 244, 245), (24, 24, 27), (113, 113, 122), (190, 18, 60)
_Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A picture and what stands below it, or why there is none."""

    picture: Image.Image | None = None
    caption: str = ""
    wrong: str = ""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A row of cells; a title, a file's name and notes stand on its left."""

    cells: Sequence[Cell]
    title: str = ""
    file: str = ""
    notes: Sequence[str] = ()


def small(picture: UInt8[ndarray, "h w 3"]) -> Image.Image:
    """The picture at the size of a cell, its shape kept."""
    return _fitted(Image.fromarray(picture), _WIDEST)


def page(title: str, lines: Sequence[str], strips: Sequence[Strip]) -> bytes:
    """A PNG: a heading, lines below it, and the strips. A text is cut where it does not fit."""
    left = _MARGIN + (_LEFT if any(strip.title or strip.file or strip.notes for strip in strips) else 0)
    wide = _cell_width(strips)
    right = left + COLUMNS * (wide + _GAP) - _GAP
    top, pitch = _MARGIN + 34 + 18 * len(lines) + 14, _HIGH + _CAPTION + _BETWEEN
    sheet = Image.new("RGB", (right + _MARGIN, top + pitch * len(strips) - _BETWEEN + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _write(pen, _MARGIN, _MARGIN, [tailed(title, right - _MARGIN, 20, bold=True)], 20, _INK, bold=True)
    _write(pen, _MARGIN, _MARGIN + 34, [ended(line, right - _MARGIN, 13) for line in lines], 13, _GREY)
    for number, strip in enumerate(strips):
        y = top + pitch * number
        _words(pen, y, strip)
        for place, cell in enumerate(strip.cells):
            x = left + place * (wide + _GAP)
            if cell.picture is None:  # a strip's only cell has the whole of it for its reason
                _cross(pen, (x, y, right if len(strip.cells) == 1 else x + wide, y + _HIGH), cell.wrong)
            else:
                pen.rectangle((x, y, x + wide - 1, y + _HIGH - 1), _CELL)
                image = _fitted(cell.picture, wide)
                sheet.paste(image, (x + (wide - image.width) // 2, y + (_HIGH - image.height) // 2))
            _write(pen, x, y + _HIGH + 1, [tailed(cell.caption, wide, 10)], 10, _GREY)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _cell_width(strips: Sequence[Strip]) -> int:
    """That of the picture in the middle, by width: most then fill their cells."""
    widths = sorted(cell.picture.width for strip in strips for cell in strip.cells if cell.picture)
    return min(max(widths[len(widths) // 2], _NARROWEST), _WIDEST) if widths else _HIGH


def _fitted(image: Image.Image, wide: int) -> Image.Image:
    scale = min(wide / image.width, _HIGH / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _words(pen: ImageDraw.ImageDraw, y: int, strip: Strip) -> None:
    room = _LEFT - 3 * _GAP
    file = tailed(strip.file, 1.8 * room, 12)  # two lines, of which the first may break early
    y = _write(pen, _MARGIN, y - 2, wrapped(strip.title, room, 15, 2, bold=True), 15, _INK, bold=True)
    y = _write(pen, _MARGIN, y + 2, wrapped(file, room, 12, 2), 12, _GREY)
    _write(pen, _MARGIN, y, [ended(note, room, 12) for note in strip.notes], 12, _GREY)


def _cross(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], wrong: str) -> None:
    """A crossed box, with the reason in its middle."""
    left, top, right, bottom = box[0], box[1], box[2] - 1, box[3] - 1
    pen.rectangle((left, top, right, bottom), _CELL, _RED)
    pen.line((left, top, right, bottom), _RED)
    pen.line((left, bottom, right, top), _RED)
    if lines := wrapped(wrong, right - left - 16, 11, 6):
        wide, high = int(max(font(11).getlength(line) for line in lines)), 15 * len(lines)
        x, y = (left + right - wide) // 2, (top + bottom - high) // 2
        pen.rectangle((x - 5, y - 3, x + wide + 5, y + high + 3), _CELL)
        _write(pen, x, y, lines, 11, _RED)


def _write(
    pen: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[str], size: int, colour: _Colour, *, bold: bool = False
) -> int:
    """Writes lines below one another, and gives the height at which the next would stand."""
    for line in lines:
        pen.text((x, y), line, colour, font(size, bold=bold))
        y += round(size * 1.3)
    return y
