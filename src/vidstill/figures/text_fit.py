"""Text fitted into a width in pixels, whatever characters the names of files and classes have."""

from bisect import bisect_right
from functools import cache
from pathlib import Path

from PIL.ImageFont import FreeTypeFont, Layout, truetype

from vidstill.utils.text import format_one_line

_MAX_CHARACTERS = 400  # more than fits anywhere
_BREAK_CHARACTERS = " /_-."  # a line may end after them


@cache
def load_font(size: int, *, bold: bool = False) -> FreeTypeFont:
    """Load DejaVu Sans, which comes with matplotlib and has many alphabets: the same letters on every machine."""
    import matplotlib

    file = Path(matplotlib.get_data_path(), "fonts", "ttf", f"DejaVuSans{'-Bold' if bold else ''}.ttf")
    return truetype(file, size, layout_engine=Layout.BASIC)


def truncate_end(text: str, max_width: int | float, font: FreeTypeFont) -> str:
    """Return the text on one line; if it is too wide, its end is replaced by `…`."""
    text = format_one_line(text[:_MAX_CHARACTERS])
    if font.getlength(text) <= max_width:
        return text
    return text[: _count_fitting_characters(text, max_width - font.getlength("…"), font)].rstrip() + "…"


def truncate_start(text: str, max_width: int | float, font: FreeTypeFont) -> str:
    """Return the text on one line; if it is too wide, its start is replaced by `…`, as a path's end says most."""
    text = format_one_line(text[-_MAX_CHARACTERS:])
    if font.getlength(text) <= max_width:
        return text
    count = _count_fitting_characters(text[::-1], max_width - font.getlength("…"), font)
    return "…" + text[len(text) - count :].lstrip()


def wrap_text(text: str, max_width: int | float, font: FreeTypeFont, max_lines: int) -> list[str]:
    """Break the text into lines, after words where possible; what does not fit is cut off.

    Args:
        max_width: In pixels.
        max_lines: How many lines there may be.
    """
    rest, lines = format_one_line(text[:_MAX_CHARACTERS]).strip(), list[str]()
    while len(lines) < max_lines - 1 and (num_fitting := _count_fitting_characters(rest, max_width, font)) < len(rest):
        ends = [n for n in range(1, num_fitting + 1) if rest[n - 1] in _BREAK_CHARACTERS or rest[n] == " "]
        end = max(ends, default=max(1, num_fitting))
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*lines, truncate_end(rest, max_width, font)] if rest else lines


def _count_fitting_characters(text: str, max_width: int | float, font: FreeTypeFont) -> int:
    """Return how many characters of its start fit into a width."""
    return bisect_right(range(1, len(text) + 1), max_width, key=lambda n: font.getlength(text[:n]))
