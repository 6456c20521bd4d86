"""Phrases of messages: numbers with their nouns, the first few of many, text of foreign files on one line."""

from collections.abc import Iterable, Sequence
from unicodedata import category, normalize


def pluralize(count: int, noun: str) -> str:
    """Return `1 video`, `1,200 videos`, `2 classes`, `3 boxes`, `4 directories`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("ry") else f"{noun}{'es' if noun.endswith(('s', 'x')) else 's'}"
    return f"{count:,} {noun if count == 1 else plural}"


def join_first(items: Sequence[str], limit: int, separator: str = ", ") -> str:
    """Return `a, b, c`, or `a, b and 7 more` where there are more than `limit`."""
    more = f" and {len(items) - limit:,} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + more


def list_first(lines: Sequence[str], limit: int) -> Iterable[str]:
    """Return the lines; of more than `limit` the first ones and `… 7 more`."""
    return [*lines[:limit], f"… {len(lines) - limit:,} more"] if len(lines) > limit else lines


def shorten(text: str) -> str:
    """Return a text of a user's file for a message, quoted and cut to 80 characters."""
    return repr(text if len(text) <= 80 else text[:80] + "…")


def format_one_line(text: str, max_length: int | None = None) -> str:
    """Return a name without what does not print: line ends, control characters, invalid bytes, changes of direction.

    Of a name that is longer than `max_length` characters, the end is replaced by `…`.
    """
    line = "".join(map(_replace_unprintable, normalize("NFC", text)))
    return line if max_length is None or len(line) <= max_length else f"{line[: max_length - 1]}…"


def _replace_unprintable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else "" if category(character) == "Cf" else "\N{REPLACEMENT CHARACTER}"
