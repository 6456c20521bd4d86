"""Under which licences weights are, and whom they learned from: read, said, and handed on to what they teach."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from vidstill.folder import version_of
from vidstill.weights.files import MODEL_FILE, Weights
from vidstill.weights.published import Checkpoint, recognised
from vidstill.weights.spdx import UNKNOWN, allows_commercial, joined, spdx

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
