"""A contact sheet: one picture that shows what a data set's classes look like, or its videos where it has none."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from vidstill.data.decode.images import is_picture
from vidstill.data.manifest.manifest import Listing
from vidstill.data.manifest.table import Row
from vidstill.data.storage.fetch import BrokenVideo, name_of
from vidstill.data.tools.preview import glimpse
from vidstill.figures.text_fit import ended, font, tailed, wrapped
from vidstill.utils.files import check_file
from vidstill.utils.rng import numpy_chance
from vidstill.utils.text import counted
from vidstill.utils.types import InputError

STRIPS = 24
"""Classes, or videos where there are none, that a sheet shows at most."""

_Drawn = list[tuple[int | None, list[int]]]
"""For each strip its class, if there are any, and the places of the rows that it may show."""


def check_sheet(path: Path, listings: Mapping[str, Listing]) -> None:
    """
    Raises:
        InputError: no sheet of this data set can be written there.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file for the contact sheet, such as {path / 'sheet.png'}")
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} does not end in .png, and the contact sheet is a PNG; name another file")
    for listing in listings.values():
        folder = Path(listing.source)
        if folder.is_dir() and is_picture(listing.rows.name(0)) and path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{path} would count as one of the pictures of {folder}; name a file elsewhere")
    check_file(path)


def contact_sheet(title: str, listings: Mapping[str, Listing], *, done: Callable[[int, int], None]) -> bytes:
    """A PNG with a strip for each class, or for each video where there are no classes; the same for the same data.

    A class's strip shows some frames, evenly spaced, of one of its videos, or as many of its pictures. What is shown,
    and which classes are where there are more than STRIPS, is drawn by chance, always alike. A file that does not
    decode is a crossed box that says why.

    Args:
        listings: by the name of the split.
        done: is told how many strips there are so far, and how many there will be.

    Raises:
        Unreachable: a place does not answer.
    """
    rows = _AllRows(listings)
    drawn, strips = rows.drawn(), list[Strip]()
    for label, places in drawn:
        strips.append(_strip(rows, label, places))
        done(len(strips), len(drawn))
    return page(title, _heading(listings, rows, drawn), strips)


def _heading(listings: Mapping[str, Listing], rows: "_AllRows", drawn: "_Drawn") -> list[str]:
    """A line for each split, and one that says how much of it all is shown."""
    lines = [
        ("" if name == "all" else f"{name}: ") + f"{counted(len(listing.rows), rows.noun)} ({listing.kind})"
        for name, listing in listings.items()
    ]
    labelled = bool(rows.of_class.size)
    places = sum(len(places) for _, places in drawn)
    shown, total = (len(drawn), len(rows.classes)) if labelled else (places, rows.count)
    noun = "classes" if labelled else f"{rows.noun}s"
    return [*lines, f"all {total:,} {noun}" if shown == total else f"{shown} of {total:,} {noun}, drawn by chance"]


class _AllRows:
    """The rows of all splits, numbered through."""

    def __init__(self, listings: Mapping[str, Listing]):
        self._parts = list(listings.items())
        self._ends = np.cumsum([len(listing.rows) for listing in listings.values()])
        self.count = int(self._ends[-1])
        pairs = [listing.rows.pairs() for listing in listings.values()]
        begins = [0, *self._ends[:-1].tolist()]
        self._whose = np.concatenate([begin + whose for begin, (whose, _) in zip(begins, pairs, strict=True)])
        self._labels = np.concatenate([labels for _, labels in pairs])
        self.of_class = np.bincount(self._labels)
        self.classes = max((listing.classes for listing in listings.values()), key=len)
        self.pictures = is_picture(self[0][1].name)
        self.noun = "picture" if self.pictures else "video"

    def __getitem__(self, place: int) -> tuple[str, Row]:
        """A row and the name of its split."""
        part = int(np.searchsorted(self._ends, place, side="right"))
        name, listing = self._parts[part]
        return name, listing.rows[place - int(self._ends[part]) + len(listing.rows)]

    def drawn(self) -> _Drawn:
        """For each strip its class, if there are any, and the rows that it may show."""
        chance = numpy_chance(0, "sheet")
        order = chance.permutation(self.count)
        if self.of_class.size:
            labels = np.sort(chance.permutation(np.flatnonzero(self.of_class))[:STRIPS])
            return [(label, self._of(label, order)[:COLUMNS]) for label in labels.tolist()]
        each = COLUMNS if self.pictures else 1
        places = np.sort(order[: STRIPS * each]).tolist()
        return [(None, places[i : i + each]) for i in range(0, len(places), each)]

    def _of(self, label: int, order: np.ndarray) -> list[int]:
        """The rows of a class, in this order."""
        return order[np.isin(order, self._whose[self._labels == label])].tolist()


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


def _strip(rows: _AllRows, label: int | None, places: list[int]) -> Strip:
    """Frames of the first of these videos, or all of these pictures, with what is to be said of them."""
    split, row = rows[places[0]]
    if is_picture(row.name):
        found = [each for _, each in map(rows.__getitem__, places) if is_picture(each.name)]
        cells, file, notes = [_picture(each) for each in found], "", []  # their names stand below them
    else:
        cells, length = _frames(row)
        file, notes = row.name, [*length, *([] if split == "all" else [split])]
    if label is None:
        return Strip(cells=cells, title=file.rpartition("/")[2], file=file if "/" in file else "", notes=notes)
    in_all = f"class {label}: {counted(int(rows.of_class[label]), rows.noun)}"
    return Strip(cells=cells, title=rows.classes[label], file=file, notes=[in_all, *notes])


def _frames(row: Row) -> tuple[list[Cell], list[str]]:
    """A video's cells, and its length and size in words."""
    try:
        seen = glimpse(row, COLUMNS)
    except BrokenVideo as error:
        return [Cell(wrong=_reason(error, row))], []
    rate, (high, wide) = seen.rate, seen.frames.shape[1:3]
    digits = 1 if rate and seen.total / rate >= 10 else 2
    times = [f"{n / rate:.{digits}f} s" if rate else f"frame {n}" for n in seen.places]
    lasts = f", {seen.total / rate:,.{digits}f} s" if rate else ""
    length = f"{counted(seen.total, 'frame')}{lasts}, {wide}x{high}"
    return [Cell(picture=small(frame), caption=time) for frame, time in zip(seen.frames, times, strict=True)], [length]


def _picture(row: Row) -> Cell:
    try:
        return Cell(picture=small(glimpse(row, 1).frames[0]), caption=row.name)
    except BrokenVideo as error:
        return Cell(wrong=_reason(error, row), caption=row.name)


def _reason(error: BrokenVideo, row: Row) -> str:
    return str(error).removeprefix(name_of(row.source)).strip(" :")


COLUMNS = 6


_HIGH, _WIDEST, _NARROWEST = 120, 214, 80  # pixels, of a picture's cell: 16:9 at its widest


_LEFT, _GAP, _MARGIN, _CAPTION, _BETWEEN = 230, 6, 24, 16, 12  # the words' column; … ; below a cell; below a strip


_PAPER, _CELL, _INK, _GREY, _RED = (255, 255, 255), (244, 244, 245), (24, 24, 27), (113, 113, 122), (190, 18, 60)


_Colour = tuple[int, int, int]


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
