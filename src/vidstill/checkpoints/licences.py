"""Under which licences weights are, and whom they learned from: read, said, and handed on to what they teach."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from vidstill.checkpoints.io import MODEL_FILE, Checkpoint
from vidstill.checkpoints.model_zoo import PublishedCheckpoint, identify_published_checkpoint
from vidstill.utils.files import get_package_version

_MODEL_CARD = "README.md"  # beside weights as the Hub has them
_MAX_CARD_CHARS = 65536  # of it, in whose first lines the licence stands


def find_licence(checkpoint: Checkpoint) -> str | None:
    """The licence of weights, with those of all that they learned from; None: they are ours and learned from nobody's.

    A foreign file's is what stands in it or beside it, or that of the published file which it is; or else UNKNOWN.
    """
    return _read_stated_licence(checkpoint.metadata) if _is_native(checkpoint) else _find_foreign_licence(checkpoint)


def build_provenance(sources: Mapping[str, Checkpoint]) -> dict[str, Any]:
    """What a file of weights says of where it comes from: who taught it or started it, each with its own past.

    Args:
        sources: by their role: `init`, `teacher`, `image_teacher`.
    """
    return {
        "vidstill": get_package_version("vidstill"),
        "licence": join_licences(find_licence(weights) for weights in sources.values()),
        "provenance": [_build_provenance_entry(role, weights) for role, weights in sources.items()],
    }


def describe_licence_restrictions(sources: Mapping[str, Checkpoint]) -> list[str]:
    """A sentence for each source whose licence does not allow that what is learned from it is used commercially."""
    said = []
    for role, weights in sources.items():
        licence = find_licence(weights)
        if licence is None or allows_commercial(licence):
            continue
        if licence == UNKNOWN_LICENCE:
            what = f"the licence of {_format_role_phrase(role)}, {weights.source}, is not known, and it may not be free"
        else:
            use = "may not be" if allows_commercial(licence) is None else "is not"
            what = f"the licence of {_format_role_phrase(role)} is {licence}: what is learned from it {use} for commercial use"
        said.append(f"{what}; this is written into {MODEL_FILE}")
    return said


def format_licence(checkpoint: Checkpoint) -> list[str]:
    """A file's licence and what it allows, in a line, and a line for each that it learned from."""
    licence = find_licence(checkpoint)
    use = {True: "allows commercial use", False: "not for commercial use", None: "not known to allow commercial use"}
    allowed = use[allows_commercial(licence)]
    first = (
        f"licence: {licence}, {allowed}" if licence else "licence: that of who trained it; it learned from no other's"
    )
    return [first, *_format_provenance(checkpoint.metadata.get("provenance") or [], "  ")]


def _is_native(checkpoint: Checkpoint) -> bool:
    """Whether its file is vidstill's: an imported one has no past, or says how it was read."""
    about = checkpoint.metadata
    return "provenance" in about or ("encoder" in about and not about.keys() & {"layout", "read"})


def _find_foreign_licence(checkpoint: Checkpoint) -> str:
    stated = checkpoint.metadata.get("licence") or checkpoint.foreign_metadata.get("license")
    if isinstance(stated, str) and (found := normalize_spdx(stated)):
        return found
    published = _identify_published(checkpoint)
    return (
        _read_card_licence(Path(checkpoint.source).parent)
        or (published.licence if published else None)
        or UNKNOWN_LICENCE
    )


def _read_stated_licence(metadata: Mapping[str, Any]) -> str | None:
    """What our own file states, or an entry of a past, and what its past does."""
    return join_licences([metadata.get("licence"), *map(_read_stated_licence, metadata.get("provenance") or [])])


def _build_provenance_entry(role: str, checkpoint: Checkpoint) -> dict[str, Any]:
    published = None if _is_native(checkpoint) else _identify_published(checkpoint)
    path = Path(checkpoint.source)
    found = {
        "published": published.name if published else None,
        "licence": find_licence(checkpoint),
        "sha256": _hash_file(path, "sha256") if path.is_file() else None,
    }
    passed_on = {
        word: checkpoint.metadata[word] for word in ("kind", "layout", "provenance") if word in checkpoint.metadata
    }
    known = {word: value for word, value in found.items() if value is not None}
    return {"role": role, "source": checkpoint.foreign_metadata.get("address", checkpoint.source)} | known | passed_on


def _identify_published(checkpoint: Checkpoint) -> PublishedCheckpoint | None:
    path = Path(checkpoint.source)
    return identify_published_checkpoint(checkpoint.source, _hash_file(path, "md5") if path.is_file() else "")


def _hash_file(path: Path, kind: str) -> str:
    stat = path.stat()
    return _hash_file_version(path, kind, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=64)
def _hash_file_version(path: Path, kind: str, modified_ns: int, size: int) -> str:
    with path.open("rb") as file:
        return file_digest(file, kind).hexdigest()


def _read_card_licence(folder: Path) -> str | None:
    """The licence in the front matter of a folder's model card, as the Hub has it: a word, or a list of them."""
    try:
        with (folder / _MODEL_CARD).open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_CARD_CHARS)
    except OSError:
        return None
    matter = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, flags=re.DOTALL)
    fields = r"^(license|license_name):(.*(?:\n[ \t]*-[ \t].*)*)"
    found = dict(re.findall(fields, matter[1], flags=re.MULTILINE)) if matter else {}
    words = re.split(r"[\[\],]|\n[ \t]*-[ \t]", found.get("license", ""))
    name = normalize_spdx(found.get("license_name", ""))
    if stated := join_licences(map(normalize_spdx, words)):
        return stated
    return name if name is None or " " in name else f"LicenseRef-{name.removeprefix('LicenseRef-')}"


def _format_role_phrase(role: str) -> str:
    return "what it starts from" if role == "init" else f"the {_format_role(role)}"


def _format_role(role: str) -> str:
    return role.replace("_", " ").replace(".", " ")


def _format_provenance(entries: Iterable[Mapping[str, Any]], indent: str) -> list[str]:
    lines = []
    for entry in entries:
        what = [entry[word] for word in ("published", "layout", "kind") if entry.get(word)][:1]
        licence = _read_stated_licence(entry)
        told = ", ".join([str(entry.get("source")), *what, *([f"licence: {licence}"] if licence else [])])
        lines.append(f"{indent}{_format_role(str(entry.get('role', 'from')))}: {told}")
        lines += _format_provenance(entry.get("provenance") or [], indent + "  ")
    return lines


UNKNOWN_LICENCE = "LicenseRef-unknown"


_COMMERCIAL_USE = {
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
    expression = _strip_parentheses(licence)
    for word, decisive in (("OR", True), ("AND", False)):  # AND binds tighter
        parts = _split_expression(expression, word)
        if len(parts) > 1:
            verdicts = {allows_commercial(part) for part in parts}
            return decisive if decisive in verdicts else None if None in verdicts else not decisive
    return _COMMERCIAL_USE.get(expression)


def join_licences(licences: Iterable[str | None]) -> str | None:
    """One expression that asks what all of them ask, each licence once; None: none of them asks anything."""
    parts = dict.fromkeys(
        part for licence in licences if licence for part in _split_and_terms(_strip_parentheses(licence))
    )
    return _strip_parentheses(" AND ".join(parts)) or None


def normalize_spdx(text: str) -> str | None:
    """The SPDX name of a licence as model cards have it, such as `cc-by-nc-4.0`; None: the word says nothing."""
    text = text.strip().strip("'\"")
    if text.casefold() in ("", "unknown", "none", "null", "other"):
        return None
    if known := next((name for name in _COMMERCIAL_USE if name.casefold() == text.casefold()), None):
        return known
    if {"AND", "OR"} & set(text.split()):
        return _strip_parentheses(text)
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-")
    return plain if plain == text else f"LicenseRef-{plain}"


def _split_and_terms(expression: str) -> list[str]:
    """What holds together by AND; a choice stays one part, in parentheses."""
    if len(_split_expression(expression, "OR")) > 1:
        return [f"({expression})"]
    parts = _split_expression(expression, "AND")
    return parts if len(parts) == 1 else [each for part in parts for each in _split_and_terms(part)]


def _split_expression(expression: str, operator: str) -> list[str]:
    """The parts of an expression between a word, where no parentheses hold it."""
    parts: list[list[str]] = [[]]
    depth = 0
    for each in _tokenize_expression(expression):
        depth += (each == "(") - (each == ")")
        if each == operator and depth == 0:
            parts.append([])
        else:
            parts[-1].append(each)
    return [_strip_parentheses(" ".join(part)) for part in parts]


def _strip_parentheses(expression: str) -> str:
    """Without parentheses around the whole, and with one space between words."""
    words = _tokenize_expression(expression)
    while words[:1] == ["("] and _find_closing_parenthesis(words) == len(words) - 1:
        words = words[1:-1]
    return " ".join(words).replace("( ", "(").replace(" )", ")")


def _tokenize_expression(expression: str) -> list[str]:
    return re.findall(r"[()]|[^\s()]+", expression)


def _find_closing_parenthesis(tokens: list[str]) -> int:
    """Where the parenthesis ends that the words begin with; -1: nowhere."""
    depth = 0
    for place, word in enumerate(tokens):
        depth += (word == "(") - (word == ")")
        if depth == 0:
            return place
    return -1
