"""Fits texts, names of files and classes whatever they hold, into a room of so many pixels."""

from bisect import bisect_right
from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

from vidstill.utils.text import format_one_line

_MAX_CHARACTERS = 400  # characters that are looked at: more than fits anywhere
_BREAK_CHARACTERS = " /_-."  # after which a line may end


@cache
def load_font(font_size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows many alphabets: the same letters on every machine."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVuSans{'-Bold' if bold else ''}.ttf")
    return ImageFont.truetype(file, font_size, layout_engine=ImageFont.Layout.BASIC)


def truncate_end(text: str, max_width: int | float, font_size: int, *, bold: bool = False) -> str:
    """The text on one line; where it is too long, its end is cut off."""
    text = format_one_line(text[:_MAX_CHARACTERS])
    if _measure_text(text, font_size, bold) <= max_width:
        return text
    return (
        text[
            : _count_fitting_characters(text, max_width - _measure_text("…", font_size, bold), font_size, bold)
        ].rstrip()
        + "…"
    )


def truncate_start(text: str, max_width: int | float, font_size: int, *, bold: bool = False) -> str:
    """The text on one line; where it is too long, its beginning is cut off, as the end of a path says most."""
    text = format_one_line(text[-_MAX_CHARACTERS:])
    if _measure_text(text, font_size, bold) <= max_width:
        return text
    return (
        "…"
        + text[
            len(text)
            - _count_fitting_characters(text[::-1], max_width - _measure_text("…", font_size, bold), font_size, bold) :
        ].lstrip()
    )


def wrap_text(text: str, max_width: int | float, font_size: int, max_lines: int, *, bold: bool = False) -> list[str]:
    """The text on so many lines at most, broken after words where there are any; what is left is cut off."""
    rest, found = format_one_line(text[:_MAX_CHARACTERS]).strip(), list[str]()
    while (
        rest
        and len(found) < max_lines - 1
        and (fits := _count_fitting_characters(rest, max_width, font_size, bold)) < len(rest)
    ):
        ends = [n for n in range(1, fits + 1) if rest[n - 1] in _BREAK_CHARACTERS or rest[n] == " "]
        end = max(ends, default=max(1, fits))
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*found, truncate_end(rest, max_width, font_size, bold=bold)] if rest else found


def _count_fitting_characters(text: str, room: int | float, size: int, bold: bool) -> int:
    """How many characters of its beginning there is room for."""
    return bisect_right(range(1, len(text) + 1), room, key=lambda n: _measure_text(text[:n], size, bold))


def _measure_text(text: str, size: int, bold: bool) -> float:
    return load_font(size, bold=bold).getlength(text)
