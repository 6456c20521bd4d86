"""Under which licences weights are, and whom they learned from: read, said, and handed on to what they teach."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from vidstill.checkpoints.io import MODEL_FILE, Weights
from vidstill.checkpoints.model_zoo import Checkpoint, recognised
from vidstill.utils.files import version_of

_CARD = "README.md"  # beside weights as the Hub has them
_CARD_LETTERS = 65536  # of it, in whose first lines the licence stands


def licence_of(weights: Weights) -> str | None:
    """The licence of weights, with those of all that they learned from; None: they are ours and learned from nobody's.

    A foreign file's is what stands in it or beside it, or that of the published file which it is; or else UNKNOWN.
    """
    return _stated(weights.about) if _is_ours(weights) else _foreign(weights)


def provenance(sources: Mapping[str, Weights]) -> dict[str, Any]:
    """What a file of weights says of where it comes from: who taught it or started it, each with its own past.

    Args:
        sources: by their role: `init`, `teacher`, `image_teacher`.
    """
    return {
        "vidstill": version_of("vidstill"),
        "licence": joined(licence_of(weights) for weights in sources.values()),
        "provenance": [_entry(role, weights) for role, weights in sources.items()],
    }


def notes(sources: Mapping[str, Weights]) -> list[str]:
    """A sentence for each source whose licence does not allow that what is learned from it is used commercially."""
    said = []
    for role, weights in sources.items():
        licence = licence_of(weights)
        if licence is None or allows_commercial(licence):
            continue
        if licence == UNKNOWN:
            what = f"the licence of {_called(role)}, {weights.source}, is not known, and it may not be free"
        else:
            use = "may not be" if allows_commercial(licence) is None else "is not"
            what = f"the licence of {_called(role)} is {licence}: what is learned from it {use} for commercial use"
        said.append(f"{what}; this is written into {MODEL_FILE}")
    return said


def in_words(weights: Weights) -> list[str]:
    """A file's licence and what it allows, in a line, and a line for each that it learned from."""
    licence = licence_of(weights)
    use = {True: "allows commercial use", False: "not for commercial use", None: "not known to allow commercial use"}
    allowed = use[allows_commercial(licence)]
    first = (
        f"licence: {licence}, {allowed}" if licence else "licence: that of who trained it; it learned from no other's"
    )
    return [first, *_past(weights.about.get("provenance") or [], "  ")]


def _is_ours(weights: Weights) -> bool:
    """Whether its file is vidstill's: an imported one has no past, or says how it was read."""
    about = weights.about
    return "provenance" in about or ("encoder" in about and not about.keys() & {"layout", "read"})


def _foreign(weights: Weights) -> str:
    stated = weights.about.get("licence") or weights.said.get("license")
    if isinstance(stated, str) and (found := spdx(stated)):
        return found
    published = _published(weights)
    return _of_card(Path(weights.source).parent) or (published.licence if published else None) or UNKNOWN


def _stated(about: Mapping[str, Any]) -> str | None:
    """What our own file states, or an entry of a past, and what its past does."""
    return joined([about.get("licence"), *map(_stated, about.get("provenance") or [])])


def _entry(role: str, weights: Weights) -> dict[str, Any]:
    published = None if _is_ours(weights) else _published(weights)
    path = Path(weights.source)
    found = {
        "published": published.name if published else None,
        "licence": licence_of(weights),
        "sha256": _hash(path, "sha256") if path.is_file() else None,
    }
    passed_on = {word: weights.about[word] for word in ("kind", "layout", "provenance") if word in weights.about}
    known = {word: value for word, value in found.items() if value is not None}
    return {"role": role, "source": weights.said.get("address", weights.source)} | known | passed_on


def _published(weights: Weights) -> Checkpoint | None:
    path = Path(weights.source)
    return recognised(weights.source, _hash(path, "md5") if path.is_file() else "")


def _hash(path: Path, kind: str) -> str:
    stat = path.stat()
    return _hash_of(path, kind, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _hash_of(path: Path, kind: str, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return file_digest(file, kind).hexdigest()


def _of_card(folder: Path) -> str | None:
    """The licence in the front matter of a folder's model card, as the Hub has it: a word, or a list of them."""
    try:
        with (folder / _CARD).open(encoding="utf-8", errors="replace") as file:
            text = file.read(_CARD_LETTERS)
    except OSError:
        return None
    matter = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, flags=re.DOTALL)
    fields = r"^(license|license_name):(.*(?:\n[ \t]*-[ \t].*)*)"
    found = dict(re.findall(fields, matter[1], flags=re.MULTILINE)) if matter else {}
    words = re.split(r"[\[\],]|\n[ \t]*-[ \t]", found.get("license", ""))
    name = spdx(found.get("license_name", ""))
    if stated := joined(map(spdx, words)):
        return stated
    return name if name is None or " " in name else f"LicenseRef-{name.removeprefix('LicenseRef-')}"


def _called(role: str) -> str:
    return "what it starts from" if role == "init" else f"the {_plain(role)}"


def _plain(role: str) -> str:
    return role.replace("_", " ").replace(".", " ")


def _past(entries: Iterable[Mapping[str, Any]], indent: str) -> list[str]:
    lines = []
    for entry in entries:
        what = [entry[word] for word in ("published", "layout", "kind") if entry.get(word)][:1]
        licence = _stated(entry)
        told = ", ".join([str(entry.get("source")), *what, *([f"licence: {licence}"] if licence else [])])
        lines.append(f"{indent}{_plain(str(entry.get('role', 'from')))}: {told}")
        lines += _past(entry.get("provenance") or [], indent + "  ")
    return lines


UNKNOWN = "LicenseRef-unknown"


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
