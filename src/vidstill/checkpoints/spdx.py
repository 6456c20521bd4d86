"""Licence expressions: joined, normalized, and asked whether they allow commercial use."""

import re
from collections.abc import Iterable

UNKNOWN_LICENCE = "LicenseRef-unknown"
_FREE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT")
_NON_COMMERCIAL = ("CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-4.0")
_COMMERCIAL_USE = dict.fromkeys(_FREE, True) | dict.fromkeys(_NON_COMMERCIAL, False)
_AND = re.compile(r"\s+AND\s+(?![^()]*\))")  # outside of parentheses


def allows_commercial(licence: str | None) -> bool | None:
    """Whether an SPDX expression allows commercial use; None: there is none, or it has unknown licences."""
    verdicts = set()
    for term in _split_terms(licence or ""):
        choices = {_COMMERCIAL_USE.get(choice.strip("() ")) for choice in term.split(" OR ")}
        verdicts.add(True if True in choices else None if None in choices else False)
    return False if False in verdicts else True if verdicts == {True} else None


def join_licences(licences: Iterable[str | None]) -> str | None:
    """One expression that demands what all of them demand, each licence once; None: none of them demands anything."""
    terms = dict.fromkeys(term for licence in licences if licence for term in _split_terms(licence))
    return " AND ".join(f"({term})" if " OR " in term and len(terms) > 1 else term for term in terms) or None


def _split_terms(expression: str) -> list[str]:
    """The terms of an expression that are joined by AND; a choice in parentheses is one term."""
    return [term.strip().removeprefix("(").removesuffix(")") for term in _AND.split(expression)]


def normalize_spdx(text: str) -> str | None:
    """The SPDX identifier of a licence as model cards write it, `cc-by-nc-4.0` for example; None: it says nothing."""
    text = text.strip().strip("'\"")
    if text.casefold() in ("", "unknown", "none", "null", "other"):
        return None
    identifiers = {name.casefold(): name for name in _COMMERCIAL_USE}
    if text.casefold() in identifiers or {"AND", "OR"} & set(text.split()):
        return identifiers.get(text.casefold(), text)
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-")
    return plain if plain == text else f"LicenseRef-{plain}"
