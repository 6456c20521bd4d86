"""Licences by their SPDX names: joined into one expression, and asked whether they allow commercial use."""

import re
from collections.abc import Iterable

UNKNOWN = "LicenseRef-unknown"
"""In an expression, the part of weights whose licence nobody stated: not that of free ones."""

_COMMERCIAL = {
    "Apache-2.0": True,
    "BSD-2-Clause": True,
    "BSD-3-Clause": True,
    "CC-BY-4.0": True,
    "CC-BY-SA-4.0": True,
    "CC0-1.0": True,
    "MIT": True,
    "CC-BY-NC-4.0": False,
    "CC-BY-NC-ND-4.0": False,
    "CC-BY-NC-SA-4.0": False,
}
"""Whether a licence allows commercial use; of others we do not say."""


def allows_commercial(licence: str | None) -> bool | None:
    """Whether an expression allows commercial use; None: there is none, or it has licences that are not known here."""
    if licence is None:
        return None
    expression = _bare(licence)
    for word, decisive in (("OR", True), ("AND", False)):  # AND binds tighter
        parts = _split(expression, word)
        if len(parts) > 1:
            verdicts = {allows_commercial(part) for part in parts}
            return decisive if decisive in verdicts else None if None in verdicts else not decisive
    return _COMMERCIAL.get(expression)


def joined(licences: Iterable[str | None]) -> str | None:
    """One expression that asks what all of them ask, each licence once; None: none of them asks anything."""
    parts = dict.fromkeys(part for licence in licences if licence for part in _parts(_bare(licence)))
    return _bare(" AND ".join(parts)) or None


def spdx(word: str) -> str | None:
    """The SPDX name of a licence as model cards have it, such as `cc-by-nc-4.0`; None: the word says nothing."""
    word = word.strip().strip("'\"")
    if word.casefold() in ("", "unknown", "none", "null", "other"):
        return None
    if known := next((name for name in _COMMERCIAL if name.casefold() == word.casefold()), None):
        return known
    if {"AND", "OR"} & set(word.split()):
        return _bare(word)
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "-", word).strip("-")
    return plain if plain == word else f"LicenseRef-{plain}"


def _parts(expression: str) -> list[str]:
    """What holds together by AND; a choice stays one part, in parentheses."""
    if len(_split(expression, "OR")) > 1:
        return [f"({expression})"]
    parts = _split(expression, "AND")
    return parts if len(parts) == 1 else [each for part in parts for each in _parts(part)]


def _split(expression: str, word: str) -> list[str]:
    """The parts of an expression between a word, where no parentheses hold it."""
    parts: list[list[str]] = [[]]
    depth = 0
    for each in _words(expression):
        depth += (each == "(") - (each == ")")
        if each == word and depth == 0:
            parts.append([])
        else:
            parts[-1].append(each)
    return [_bare(" ".join(part)) for part in parts]


def _bare(expression: str) -> str:
    """Without parentheses around the whole, and with one space between words."""
    words = _words(expression)
    while words[:1] == ["("] and _closes(words) == len(words) - 1:
        words = words[1:-1]
    return " ".join(words).replace("( ", "(").replace(" )", ")")


def _words(expression: str) -> list[str]:
    return re.findall(r"[()]|[^\s()]+", expression)


def _closes(words: list[str]) -> int:
    """Where the parenthesis ends that the words begin with; -1: nowhere."""
    depth = 0
    for place, word in enumerate(words):
        depth += (word == "(") - (word == ")")
        if depth == 0:
            return place
    return -1
