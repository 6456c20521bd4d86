"""The contact sheet: one image that shows frames of each class of a dataset, or of its videos if it has no classes."""

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.ImageFont import FreeTypeFont

from vidstill.data.decode.images import is_image_file
from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoRow
from vidstill.data.storage.fetch import BrokenVideo
from vidstill.data.tools.probe import read_preview
from vidstill.figures.text_fit import load_font, truncate_end, truncate_start, wrap_text
from vidstill.utils.files import check_output_file
from vidstill.utils.rng import numpy_rng
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

MAX_STRIPS = 24
"""The largest number of classes, or of videos without classes, on a sheet."""

STRIP_COLUMNS = 6

_CELL_HEIGHT, _MAX_CELL_WIDTH, _MIN_CELL_WIDTH = 120, 214, 80  # pixels; a frame of 16:9 is 214 wide
_TEXT_WIDTH, _MARGIN = 230, 24  # of the column of text; around the sheet
_GAP, _CAPTION_HEIGHT, _STRIP_GAP = 6, 16, 12  # between cells; below a cell; below a strip

_BACKGROUND_COLOR, _CELL_COLOR, _ERROR_COLOR = (255, 255, 255), (244, 244, 245), (190, 18, 60)
_TEXT_COLOR, _DIM_TEXT_COLOR = (24, 24, 27), (113, 113, 122)

_Color = tuple[int, int, int]

_StripRows = list[tuple[int | None, list[int]]]
"""For each strip its class, if there are any, and the rows that it may show."""


def check_sheet_path(path: Path, manifests: Mapping[str, Manifest]) -> None:
    """Raise an InputError if no contact sheet of this dataset can be written there."""
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file for the contact sheet, such as {path / 'sheet.png'}")
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} does not end in .png, and the contact sheet is a PNG; name another file")
    for manifest in manifests.values():
        source, is_images = Path(manifest.source), manifest.noun == "image"
        if source.is_dir() and is_images and path.resolve().is_relative_to(source.resolve()):
            raise InputError(f"{path} would count as one of the images of {source}; name a file elsewhere")
    check_output_file(path)


def draw_contact_sheet(title: str, manifests: Mapping[str, Manifest], *, progress: Callable[[int, int], None]) -> bytes:
    """Draw a PNG with a strip for each class, or for each video if there are no classes; the same for the same data.

    The strip of a class shows frames of one of its videos, evenly spaced, or some of its images. Which videos, and
    which classes if there are more than MAX_STRIPS, is random with a fixed seed. A file that does not decode is a
    crossed box with the reason.

    Args:
        title: The heading of the sheet.
        manifests: The splits, by name.
        progress: Called with the number of strips that are drawn, and of all strips.

    Raises:
        StorageUnreachable: A URL does not answer.
    """
    table = _CombinedTable(manifests)
    sample, strips = table.sample_strips(), list[SheetStrip]()
    for label, rows in sample:
        strips.append(_make_strip(table, label, rows))
        progress(len(strips), len(sample))
    return render_sheet(title, _make_heading(manifests, table, sample), strips)


def _make_heading(manifests: Mapping[str, Manifest], table: "_CombinedTable", sample: _StripRows) -> list[str]:
    """Return a line for each split, and one that says how much of the dataset is shown."""
    lines = [
        ("" if name == "all" else f"{name}: ") + f"{pluralize(len(manifest), table.noun)} ({manifest.description})"
        for name, manifest in manifests.items()
    ]
    if table.class_counts.size:
        noun, num_shown, total = "classes", len(sample), len(table.classes)
    else:
        noun, num_shown, total = f"{table.noun}s", sum(len(rows) for _, rows in sample), table.num_rows
    return [*lines, f"all {total:,} {noun}" if num_shown == total else f"{num_shown} of {total:,} {noun}, at random"]


class _CombinedTable:
    """The rows of all splits, with consecutive numbers."""

    def __init__(self, manifests: Mapping[str, Manifest]):
        self._manifests = list(manifests.items())
        self._ends = np.cumsum([len(manifest) for manifest in manifests.values()])
        self.num_rows = int(self._ends[-1])
        pairs = [manifest.rows.list_label_pairs() for manifest in manifests.values()]
        starts = [0, *self._ends[:-1].tolist()]
        self._label_rows = np.concatenate([start + rows for start, (rows, _) in zip(starts, pairs, strict=True)])
        self._labels = np.concatenate([labels for _, labels in pairs])
        self.class_counts = np.bincount(self._labels)
        self.classes = max((manifest.classes for manifest in manifests.values()), key=len)
        self.noun = next(iter(manifests.values())).noun

    def __getitem__(self, row: int) -> tuple[str, VideoRow]:
        """Return the name of a row's split, and the row."""
        split = int(np.searchsorted(self._ends, row, side="right"))
        name, manifest = self._manifests[split]
        return name, manifest.rows[row - int(self._ends[split]) + len(manifest)]

    def sample_strips(self) -> _StripRows:
        """Draw the classes, or the videos, of the strips."""
        rng = numpy_rng(0, "sheet")
        order = rng.permutation(self.num_rows)
        if self.class_counts.size:
            labels = np.sort(rng.permutation(np.flatnonzero(self.class_counts))[:MAX_STRIPS])
            rows = [order[np.isin(order, self._label_rows[self._labels == label])] for label in labels]
            return [(label, each[:STRIP_COLUMNS].tolist()) for label, each in zip(labels.tolist(), rows, strict=True)]
        per_strip = STRIP_COLUMNS if self.noun == "image" else 1
        sample = np.sort(order[: MAX_STRIPS * per_strip]).tolist()
        return [(None, sample[i : i + per_strip]) for i in range(0, len(sample), per_strip)]


@dataclass(frozen=True, kw_only=True)
class SheetCell:
    """An image and its caption, or why there is no image."""

    image: Image.Image | None = None
    caption: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class SheetStrip:
    """A row of cells; the title, the file name and the notes are on their left."""

    cells: Sequence[SheetCell]
    title: str = ""
    file_name: str = ""
    notes: Sequence[str] = ()


def _make_strip(table: _CombinedTable, label: int | None, rows: list[int]) -> SheetStrip:
    """Make the strip of the first of these videos, or of all of these images."""
    split, first = table[rows[0]]
    file_name, notes = "", list[str]()
    if is_image_file(first.name):
        images = [row for _, row in map(table.__getitem__, rows) if is_image_file(row.name)]
        cells = [cell for row in images for cell in _make_cells(row, 1, [row.name])[0]]
    else:
        cells, notes = _make_cells(first, STRIP_COLUMNS)
        file_name, notes = first.name, notes if split == "all" else [*notes, split]
    if label is None:
        title, directory_name = file_name.rpartition("/")[2], file_name if "/" in file_name else ""
        return SheetStrip(cells=cells, title=title, file_name=directory_name, notes=notes)
    size = f"class {label}: {pluralize(int(table.class_counts[label]), table.noun)}"
    return SheetStrip(cells=cells, title=table.classes[label], file_name=file_name, notes=[size, *notes])


def _make_cells(row: VideoRow, num_frames: int, captions: Sequence[str] = ()) -> tuple[list[SheetCell], list[str]]:
    """Return a video's or an image's cells, captioned by their times, and a note with its length and size."""
    try:
        preview = read_preview(row, num_frames)
    except BrokenVideo as error:
        return [SheetCell(error=error.reason, caption="".join(captions))], []
    length, rate, (height, width) = preview.num_frames, preview.frame_rate, preview.frames.shape[1:3]
    digits = 1 if rate and length / rate >= 10 else 2
    captions = captions or [f"{n / rate:.{digits}f} s" if rate else f"frame {n}" for n in preview.frame_indices]
    cells = [
        SheetCell(image=_resize_image(Image.fromarray(frame), _MAX_CELL_WIDTH), caption=caption)
        for frame, caption in zip(preview.frames, captions, strict=True)
    ]
    seconds = f", {length / rate:,.{digits}f} s" if rate else ""
    return cells, [f"{pluralize(length, 'frame')}{seconds}, {width}x{height}"]


def render_sheet(title: str, heading: Sequence[str], strips: Sequence[SheetStrip]) -> bytes:
    """Render a PNG: a title, lines below it, and the strips. Text that does not fit is cut off.

    Args:
        heading: The lines below the title.
        strips: The strips from top to bottom.
    """
    left = _MARGIN + (_TEXT_WIDTH if any(strip.title or strip.file_name or strip.notes for strip in strips) else 0)
    widths = sorted(cell.image.width for strip in strips for cell in strip.cells if cell.image)
    median_width = widths[len(widths) // 2] if widths else _CELL_HEIGHT  # most images then fill their cells
    cell_width = min(max(median_width, _MIN_CELL_WIDTH), _MAX_CELL_WIDTH)
    right = left + STRIP_COLUMNS * (cell_width + _GAP) - _GAP
    top, pitch = _MARGIN + 34 + 18 * len(heading) + 14, _CELL_HEIGHT + _CAPTION_HEIGHT + _STRIP_GAP
    sheet = Image.new("RGB", (right + _MARGIN, top + pitch * len(strips) - _STRIP_GAP + _MARGIN), _BACKGROUND_COLOR)
    draw = ImageDraw.Draw(sheet)
    bold, plain, small = load_font(20, bold=True), load_font(13), load_font(10)
    draw.text((_MARGIN, _MARGIN), truncate_start(title, right - _MARGIN, bold), _TEXT_COLOR, bold)
    lines = [truncate_end(line, right - _MARGIN, plain) for line in heading]
    _draw_lines(draw, _MARGIN + 34, lines, plain, _DIM_TEXT_COLOR)
    for y, strip in zip(itertools.count(top, pitch), strips, strict=False):
        _draw_strip_text(draw, y, strip)
        for x, cell in zip(itertools.count(left, cell_width + _GAP), strip.cells, strict=False):
            if cell.image is None:  # a single cell is as wide as the strip, for the reason
                x_end = right if len(strip.cells) == 1 else x + cell_width
                _draw_error_box(draw, (x, y, x_end - 1, y + _CELL_HEIGHT - 1), cell.error)
            else:
                draw.rectangle((x, y, x + cell_width - 1, y + _CELL_HEIGHT - 1), _CELL_COLOR)
                image = _resize_image(cell.image, cell_width)
                sheet.paste(image, (x + (cell_width - image.width) // 2, y + (_CELL_HEIGHT - image.height) // 2))
            caption = truncate_start(cell.caption, cell_width, small)
            draw.text((x, y + _CELL_HEIGHT + 1), caption, _DIM_TEXT_COLOR, small)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _resize_image(image: Image.Image, max_width: int) -> Image.Image:
    """Resize an image to a cell and keep its aspect ratio."""
    scale = min(max_width / image.width, _CELL_HEIGHT / image.height)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _draw_strip_text(draw: ImageDraw.ImageDraw, y: int, strip: SheetStrip) -> None:
    width, bold, plain = _TEXT_WIDTH - 3 * _GAP, load_font(15, bold=True), load_font(12)
    file_name = truncate_start(strip.file_name, 1.8 * width, plain)  # two lines, of which the first may break early
    y = _draw_lines(draw, y - 2, wrap_text(strip.title, width, bold, 2), bold, _TEXT_COLOR)
    y = _draw_lines(draw, y + 2, wrap_text(file_name, width, plain, 2), plain, _DIM_TEXT_COLOR)
    _draw_lines(draw, y, [truncate_end(note, width, plain) for note in strip.notes], plain, _DIM_TEXT_COLOR)


def _draw_lines(draw: ImageDraw.ImageDraw, y: int, lines: Sequence[str], font: FreeTypeFont, color: _Color) -> int:
    """Draw lines below each other at the left margin, and return the y of the next line."""
    for line in lines:
        draw.text((_MARGIN, y), line, color, font)
        y += round(font.size * 1.3)
    return y


def _draw_error_box(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], error: str) -> None:
    """Draw a crossed box with the reason in its center."""
    left, top, right, bottom = box
    draw.rectangle(box, _CELL_COLOR, _ERROR_COLOR)
    draw.line((left, top, right, bottom), _ERROR_COLOR)
    draw.line((left, bottom, right, top), _ERROR_COLOR)
    font, center = load_font(11), ((left + right) // 2, (top + bottom) // 2)
    if text := "\n".join(wrap_text(error, right - left - 16, font, 6)):
        x1, y1, x2, y2 = draw.textbbox(center, text, font, anchor="mm")
        draw.rectangle((x1 - 5, y1 - 3, x2 + 5, y2 + 3), _CELL_COLOR)
        draw.text(center, text, _ERROR_COLOR, font, anchor="mm")
