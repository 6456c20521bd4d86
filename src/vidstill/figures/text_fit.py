"""Fits texts, names of files and classes whatever they hold, into a room of so many pixels."""

from bisect import bisect_right
from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

from vidstill.utils.text import one_line

_LONGEST = 400  # characters that are looked at: more than fits anywhere
_BREAKS = " /_-."  # after which a line may end


@cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows many alphabets: the same letters on every machine."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVuSans{'-Bold' if bold else ''}.ttf")
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)


def ended(text: str, room: int | float, size: int, *, bold: bool = False) -> str:
    """The text on one line; where it is too long, its end is cut off."""
    text = one_line(text[:_LONGEST])
    if _length(text, size, bold) <= room:
        return text
    return text[: _fits(text, room - _length("…", size, bold), size, bold)].rstrip() + "…"


def tailed(text: str, room: int | float, size: int, *, bold: bool = False) -> str:
    """The text on one line; where it is too long, its beginning is cut off, as the end of a path says most."""
    text = one_line(text[-_LONGEST:])
    if _length(text, size, bold) <= room:
        return text
    return "…" + text[len(text) - _fits(text[::-1], room - _length("…", size, bold), size, bold) :].lstrip()


def wrapped(text: str, room: int | float, size: int, lines: int, *, bold: bool = False) -> list[str]:
    """The text on so many lines at most, broken after words where there are any; what is left is cut off."""
    rest, found = one_line(text[:_LONGEST]).strip(), list[str]()
    while rest and len(found) < lines - 1 and (fits := _fits(rest, room, size, bold)) < len(rest):
        ends = [n for n in range(1, fits + 1) if rest[n - 1] in _BREAKS or rest[n] == " "]
        end = max(ends, default=max(1, fits))
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*found, ended(rest, room, size, bold=bold)] if rest else found


def _fits(text: str, room: int | float, size: int, bold: bool) -> int:
    """How many characters of its beginning there is room for."""
    return bisect_right(range(1, len(text) + 1), room, key=lambda n: _length(text[:n], size, bold))


def _length(text: str, size: int, bold: bool) -> float:
    return font(size, bold=bold).getlength(text)
