"""A contact sheet: one picture that shows what a data set's classes look like, or its videos where it has none."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from vidstill.data.decode.images import is_image_file
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.tools.preview import read_preview
from vidstill.figures.text_fit import load_font, truncate_end, truncate_start, wrap_text
from vidstill.utils.files import check_output_file
from vidstill.utils.rng import numpy_rng
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

MAX_STRIPS = 24
"""Classes, or videos where there are none, that a sheet shows at most."""

_StripRows = list[tuple[int | None, list[int]]]
"""For each strip its class, if there are any, and the places of the rows that it may show."""


def check_sheet_path(path: Path, manifests: Mapping[str, Manifest]) -> None:
    """
    Raises:
        InputError: no sheet of this data set can be written there.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file for the contact sheet, such as {path / 'sheet.png'}")
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} does not end in .png, and the contact sheet is a PNG; name another file")
    for listing in manifests.values():
        folder = Path(listing.source)
        if (
            folder.is_dir()
            and is_image_file(listing.rows.get_name(0))
            and path.resolve().is_relative_to(folder.resolve())
        ):
            raise InputError(f"{path} would count as one of the pictures of {folder}; name a file elsewhere")
    check_output_file(path)


def draw_contact_sheet(title: str, manifests: Mapping[str, Manifest], *, progress: Callable[[int, int], None]) -> bytes:
    """A PNG with a strip for each class, or for each video where there are no classes; the same for the same data.

    A class's strip shows some frames, evenly spaced, of one of its videos, or as many of its pictures. What is shown,
    and which classes are where there are more than STRIPS, is drawn by chance, always alike. A file that does not
    decode is a crossed box that says why.

    Args:
        manifests: by the name of the split.
        progress: is told how many strips there are so far, and how many there will be.

    Raises:
        Unreachable: a place does not answer.
    """
    rows = _CombinedTable(manifests)
    drawn, strips = rows.sample_strips(), list[SheetStrip]()
    for label, places in drawn:
        strips.append(_make_strip(rows, label, places))
        progress(len(strips), len(drawn))
    return render_sheet(title, _make_heading(manifests, rows, drawn), strips)


def _make_heading(listings: Mapping[str, Manifest], rows: "_CombinedTable", drawn: "_StripRows") -> list[str]:
    """A line for each split, and one that says how much of it all is shown."""
    lines = [
        ("" if name == "all" else f"{name}: ") + f"{pluralize(len(listing.rows), rows.noun)} ({listing.description})"
        for name, listing in listings.items()
    ]
    labelled = bool(rows.class_counts.size)
    places = sum(len(places) for _, places in drawn)
    shown, total = (len(drawn), len(rows.classes)) if labelled else (places, rows.num_rows)
    noun = "classes" if labelled else f"{rows.noun}s"
    return [*lines, f"all {total:,} {noun}" if shown == total else f"{shown} of {total:,} {noun}, drawn by chance"]


class _CombinedTable:
    """The rows of all splits, numbered through."""

    def __init__(self, listings: Mapping[str, Manifest]):
        self._manifests = list(listings.items())
        self._ends = np.cumsum([len(listing.rows) for listing in listings.values()])
        self.num_rows = int(self._ends[-1])
        pairs = [listing.rows.list_label_pairs() for listing in listings.values()]
        begins = [0, *self._ends[:-1].tolist()]
        self._label_rows = np.concatenate([begin + whose for begin, (whose, _) in zip(begins, pairs, strict=True)])
        self._labels = np.concatenate([labels for _, labels in pairs])
        self.class_counts = np.bincount(self._labels)
        self.classes = max((listing.classes for listing in listings.values()), key=len)
        self.is_images = is_image_file(self[0][1].name)
        self.noun = "picture" if self.is_images else "video"

    def __getitem__(self, place: int) -> tuple[str, VideoRow]:
        """A row and the name of its split."""
        part = int(np.searchsorted(self._ends, place, side="right"))
        name, listing = self._manifests[part]
        return name, listing.rows[place - int(self._ends[part]) + len(listing.rows)]

    def sample_strips(self) -> _StripRows:
        """For each strip its class, if there are any, and the rows that it may show."""
        chance = numpy_rng(0, "sheet")
        order = chance.permutation(self.num_rows)
        if self.class_counts.size:
            labels = np.sort(chance.permutation(np.flatnonzero(self.class_counts))[:MAX_STRIPS])
            return [(label, self._select_class(label, order)[:STRIP_COLUMNS]) for label in labels.tolist()]
        each = STRIP_COLUMNS if self.is_images else 1
        places = np.sort(order[: MAX_STRIPS * each]).tolist()
        return [(None, places[i : i + each]) for i in range(0, len(places), each)]

    def _select_class(self, label: int, order: np.ndarray) -> list[int]:
        """The rows of a class, in this order."""
        return order[np.isin(order, self._label_rows[self._labels == label])].tolist()


@dataclass(frozen=True, kw_only=True)
class SheetCell:
    """A picture and what stands below it, or why there is none."""

    image: Image.Image | None = None
    caption: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class SheetStrip:
    """A row of cells; a title, a file's name and notes stand on its left."""

    cells: Sequence[SheetCell]
    title: str = ""
    file_name: str = ""
    notes: Sequence[str] = ()


def _make_strip(rows: _CombinedTable, label: int | None, places: list[int]) -> SheetStrip:
    """Frames of the first of these videos, or all of these pictures, with what is to be said of them."""
    split, row = rows[places[0]]
    if is_image_file(row.name):
        found = [each for _, each in map(rows.__getitem__, places) if is_image_file(each.name)]
        cells, file, notes = [_make_image_cell(each) for each in found], "", []  # their names stand below them
    else:
        cells, length = _make_frame_cells(row)
        file, notes = row.name, [*length, *([] if split == "all" else [split])]
    if label is None:
        return SheetStrip(
            cells=cells, title=file.rpartition("/")[2], file_name=file if "/" in file else "", notes=notes
        )
    in_all = f"class {label}: {pluralize(int(rows.class_counts[label]), rows.noun)}"
    return SheetStrip(cells=cells, title=rows.classes[label], file_name=file, notes=[in_all, *notes])


def _make_frame_cells(row: VideoRow) -> tuple[list[SheetCell], list[str]]:
    """A video's cells, and its length and size in words."""
    try:
        seen = read_preview(row, STRIP_COLUMNS)
    except BrokenVideo as error:
        return [SheetCell(error=error.reason)], []
    rate, (high, wide) = seen.frame_rate, seen.frames.shape[1:3]
    digits = 1 if rate and seen.num_frames / rate >= 10 else 2
    times = [f"{n / rate:.{digits}f} s" if rate else f"frame {n}" for n in seen.frame_indices]
    lasts = f", {seen.num_frames / rate:,.{digits}f} s" if rate else ""
    length = f"{pluralize(seen.num_frames, 'frame')}{lasts}, {wide}x{high}"
    return [
        SheetCell(image=resize_to_cell(frame), caption=time) for frame, time in zip(seen.frames, times, strict=True)
    ], [length]


def _make_image_cell(row: VideoRow) -> SheetCell:
    try:
        return SheetCell(image=resize_to_cell(read_preview(row, 1).frames[0]), caption=row.name)
    except BrokenVideo as error:
        return SheetCell(error=error.reason, caption=row.name)


STRIP_COLUMNS = 6


_CELL_HEIGHT, _MAX_CELL_WIDTH, _MIN_CELL_WIDTH = 120, 214, 80  # pixels, of a picture's cell: 16:9 at its widest


_TEXT_WIDTH, _GAP, _MARGIN, _CAPTION_HEIGHT, _STRIP_GAP = (
    230,
    6,
    24,
    16,
    12,
)  # the words' column; … ; below a cell; below a strip


_BACKGROUND_COLOR, _CELL_COLOR, _TEXT_COLOR, _DIM_TEXT_COLOR, _ERROR_COLOR = (
    (255, 255, 255),
    (244, 244, 245),
    (24, 24, 27),
    (113, 113, 122),
    (190, 18, 60),
)


_Color = tuple[int, int, int]


def resize_to_cell(image: UInt8[ndarray, "h w 3"]) -> Image.Image:
    """The picture at the size of a cell, its shape kept."""
    return _resize_image(Image.fromarray(image), _MAX_CELL_WIDTH)


def render_sheet(title: str, heading: Sequence[str], strips: Sequence[SheetStrip]) -> bytes:
    """A PNG: a heading, lines below it, and the strips. A text is cut where it does not fit."""
    left = _MARGIN + (_TEXT_WIDTH if any(strip.title or strip.file_name or strip.notes for strip in strips) else 0)
    wide = _compute_cell_width(strips)
    right = left + STRIP_COLUMNS * (wide + _GAP) - _GAP
    top, pitch = _MARGIN + 34 + 18 * len(heading) + 14, _CELL_HEIGHT + _CAPTION_HEIGHT + _STRIP_GAP
    sheet = Image.new("RGB", (right + _MARGIN, top + pitch * len(strips) - _STRIP_GAP + _MARGIN), _BACKGROUND_COLOR)
    pen = ImageDraw.Draw(sheet)
    _draw_text_lines(
        pen, _MARGIN, _MARGIN, [truncate_start(title, right - _MARGIN, 20, bold=True)], 20, _TEXT_COLOR, bold=True
    )
    _draw_text_lines(
        pen, _MARGIN, _MARGIN + 34, [truncate_end(line, right - _MARGIN, 13) for line in heading], 13, _DIM_TEXT_COLOR
    )
    for number, strip in enumerate(strips):
        y = top + pitch * number
        _draw_strip_text(pen, y, strip)
        for place, cell in enumerate(strip.cells):
            x = left + place * (wide + _GAP)
            if cell.image is None:  # a strip's only cell has the whole of it for its reason
                _draw_error_box(pen, (x, y, right if len(strip.cells) == 1 else x + wide, y + _CELL_HEIGHT), cell.error)
            else:
                pen.rectangle((x, y, x + wide - 1, y + _CELL_HEIGHT - 1), _CELL_COLOR)
                image = _resize_image(cell.image, wide)
                sheet.paste(image, (x + (wide - image.width) // 2, y + (_CELL_HEIGHT - image.height) // 2))
            _draw_text_lines(
                pen, x, y + _CELL_HEIGHT + 1, [truncate_start(cell.caption, wide, 10)], 10, _DIM_TEXT_COLOR
            )
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _compute_cell_width(strips: Sequence[SheetStrip]) -> int:
    """That of the picture in the middle, by width: most then fill their cells."""
    widths = sorted(cell.image.width for strip in strips for cell in strip.cells if cell.image)
    return min(max(widths[len(widths) // 2], _MIN_CELL_WIDTH), _MAX_CELL_WIDTH) if widths else _CELL_HEIGHT


def _resize_image(image: Image.Image, wide: int) -> Image.Image:
    scale = min(wide / image.width, _CELL_HEIGHT / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def _draw_strip_text(pen: ImageDraw.ImageDraw, y: int, strip: SheetStrip) -> None:
    room = _TEXT_WIDTH - 3 * _GAP
    file = truncate_start(strip.file_name, 1.8 * room, 12)  # two lines, of which the first may break early
    y = _draw_text_lines(
        pen, _MARGIN, y - 2, wrap_text(strip.title, room, 15, 2, bold=True), 15, _TEXT_COLOR, bold=True
    )
    y = _draw_text_lines(pen, _MARGIN, y + 2, wrap_text(file, room, 12, 2), 12, _DIM_TEXT_COLOR)
    _draw_text_lines(pen, _MARGIN, y, [truncate_end(note, room, 12) for note in strip.notes], 12, _DIM_TEXT_COLOR)


def _draw_error_box(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], wrong: str) -> None:
    """A crossed box, with the reason in its middle."""
    left, top, right, bottom = box[0], box[1], box[2] - 1, box[3] - 1
    pen.rectangle((left, top, right, bottom), _CELL_COLOR, _ERROR_COLOR)
    pen.line((left, top, right, bottom), _ERROR_COLOR)
    pen.line((left, bottom, right, top), _ERROR_COLOR)
    if lines := wrap_text(wrong, right - left - 16, 11, 6):
        wide, high = int(max(load_font(11).getlength(line) for line in lines)), 15 * len(lines)
        x, y = (left + right - wide) // 2, (top + bottom - high) // 2
        pen.rectangle((x - 5, y - 3, x + wide + 5, y + high + 3), _CELL_COLOR)
        _draw_text_lines(pen, x, y, lines, 11, _ERROR_COLOR)


def _draw_text_lines(
    pen: ImageDraw.ImageDraw, x: int, y: int, lines: Sequence[str], size: int, colour: _Color, *, bold: bool = False
) -> int:
    """Writes lines below one another, and gives the height at which the next would stand."""
    for line in lines:
        pen.text((x, y), line, colour, load_font(size, bold=bold))
        y += round(size * 1.3)
    return y
