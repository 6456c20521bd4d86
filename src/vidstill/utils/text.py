"""Turns of phrase: numbers with their nouns, and foreign text on one line."""

from unicodedata import category, normalize


def pluralize(count: int, noun: str) -> str:
    """`1 video`, `1,200 videos`, `2 classes`, `3 boxes`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "es" if noun.endswith(("s", "x")) else "s")


def format_one_line(text: str) -> str:
    """Whatever a file or a class is called, without what would not print: line ends, control characters, bytes that
    are no letters, changes of direction.
    """
    return "".join(map(_replace_unprintable, normalize("NFC", text)))


def _replace_unprintable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else "" if category(character) == "Cf" else "\N{REPLACEMENT CHARACTER}"
