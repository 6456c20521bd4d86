"""Turns of phrase: numbers with their nouns, and foreign text on one line."""

from unicodedata import category, normalize


def counted(number: int, noun: str) -> str:
    """`1 video`, `1,200 videos`, `2 classes`, `3 boxes`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith(("s", "x")) else "s")


def one_line(text: str) -> str:
    """Whatever a file or a class is called, without what would not print: line ends, control characters, bytes that
    are no letters, changes of direction.
    """
    return "".join(map(_printable, normalize("NFC", text)))


def _printable(letter: str) -> str:
    if letter.isprintable():
        return letter
    return " " if letter.isspace() else "" if category(letter) == "Cf" else "\N{REPLACEMENT CHARACTER}"
