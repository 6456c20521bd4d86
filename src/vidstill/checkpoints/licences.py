"""Licences and provenance of checkpoints: read, reported, and passed on to what is trained from them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vidstill.checkpoints.fingerprint import hash_once
from vidstill.checkpoints.io import MODEL_FILE, Checkpoint
from vidstill.checkpoints.model_zoo import PublishedCheckpoint, identify_published_checkpoint
from vidstill.utils.files import get_package_version

UNKNOWN_LICENCE = "LicenseRef-unknown"
_FREE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT")
_NON_COMMERCIAL = ("CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-4.0")
_COMMERCIAL_USE = dict.fromkeys(_FREE, True) | dict.fromkeys(_NON_COMMERCIAL, False)
_AND = re.compile(r"\s+AND\s+(?![^()]*\))")  # outside of parentheses

_MODEL_CARD = "README.md"  # beside weights from the Hub
_MAX_CARD_BYTES = 2**20


def find_licence(checkpoint: Checkpoint) -> str | None:
    """Return a checkpoint's licence joined with those of all its sources; None: it is native and unrestricted.

    A foreign file's licence is stated in it or beside it, or is that of the published file that it is; else it is
    UNKNOWN_LICENCE.
    """
    if _is_native(checkpoint):
        return _join_provenance(checkpoint.metadata)
    licence = checkpoint.metadata.get("licence") or checkpoint.foreign_metadata.get("license")
    if isinstance(licence, str) and (licence := normalize_spdx(licence)):
        return licence
    if licence := _read_card_licence(Path(checkpoint.source).parent):
        return licence
    published = _identify_published(checkpoint)
    return (published and published.licence) or UNKNOWN_LICENCE


def build_provenance(sources: Mapping[str, Checkpoint]) -> dict[str, Any]:
    """Return the metadata of a checkpoint that say what it was trained from, each source with its own provenance.

    The files of the sources are hashed: call it in one process.

    Args:
        sources: By their role: `init`, `teacher`, `image_teacher`.
    """
    return {
        "vidstill": get_package_version("vidstill"),
        "licence": join_licences(find_licence(checkpoint) for checkpoint in sources.values()),
        "provenance": [_build_provenance_entry(role, checkpoint) for role, checkpoint in sources.items()],
    }


def describe_licence_restrictions(sources: Mapping[str, Checkpoint]) -> list[str]:
    """Return a sentence for each source whose licence may not allow commercial use of what is trained from it."""
    sentences = []
    for role, checkpoint in sources.items():
        licence = find_licence(checkpoint)
        if licence is None or allows_commercial(licence):
            continue
        owner = "the initial checkpoint" if role == "init" else f"the {_format_role(role)}"
        if licence == UNKNOWN_LICENCE:
            restriction = f"the licence of {owner}, {checkpoint.source}, is unknown, and it may not be free"
        else:
            use = "may not be" if allows_commercial(licence) is None else "is not"
            restriction = f"the licence of {owner} is {licence}: what is trained from it {use} for commercial use"
        sentences.append(f"{restriction}; {MODEL_FILE} will say so")
    return sentences


def format_licence(checkpoint: Checkpoint) -> list[str]:
    """Return a line with the licence and what it allows, and one for each source."""
    licence = find_licence(checkpoint)
    use = {True: "allows commercial use", False: "not for commercial use", None: "not known to allow commercial use"}
    line = f"licence: {licence}, {use[allows_commercial(licence)]}" if licence else "licence: only its trainer's"
    return [line, *format_provenance(checkpoint.metadata.get("provenance") or [], "  ")]


def _is_native(checkpoint: Checkpoint) -> bool:
    """Return whether vidstill trained it: an imported file has a layout and no provenance."""
    return "provenance" in checkpoint.metadata or (
        "encoder" in checkpoint.metadata and "layout" not in checkpoint.metadata
    )


def _join_provenance(metadata: Mapping[str, Any]) -> str | None:
    """Return the stated licence of a checkpoint, or of a provenance entry, joined with those of its provenance."""
    return join_licences([metadata.get("licence"), *map(_join_provenance, metadata.get("provenance") or [])])


def _build_provenance_entry(role: str, checkpoint: Checkpoint) -> dict[str, Any]:
    published = None if _is_native(checkpoint) else _identify_published(checkpoint)
    path = Path(checkpoint.source)
    entry = {
        "role": role,
        "source": checkpoint.foreign_metadata.get("address", checkpoint.source),
        "published": published.name if published else None,
        "licence": find_licence(checkpoint),
        "sha256": _hash_source(path, "sha256") or None,
    }
    entry |= {key: checkpoint.metadata.get(key) for key in ("kind", "layout", "provenance")}
    return {key: value for key, value in entry.items() if value is not None}


def _identify_published(checkpoint: Checkpoint) -> PublishedCheckpoint | None:
    return identify_published_checkpoint(checkpoint.source, _hash_source(Path(checkpoint.source), "md5"))


def _hash_source(path: Path, algorithm: str) -> str:
    """Return a file's digest, or an empty string for a directory."""
    return hash_once(path, algorithm) if path.is_file() else ""


def _read_card_licence(directory: Path) -> str | None:
    """Return the licence in the front matter of a model card: a word, or a list of them."""
    from huggingface_hub import metadata_load

    path = directory / _MODEL_CARD
    try:
        values = (metadata_load(path) if path.stat().st_size < _MAX_CARD_BYTES else None) or {}
    except Exception:  # there is no card, or it is none that YAML's reader can read
        return None
    licences = values.get("license", "")
    if licence := join_licences(
        normalize_spdx(str(each)) for each in (licences if isinstance(licences, list) else [licences])
    ):
        return licence
    name = normalize_spdx(str(values.get("license_name", "")))
    return name if name is None or " " in name else f"LicenseRef-{name.removeprefix('LicenseRef-')}"


def _format_role(role: str) -> str:
    return role.replace("_", " ").replace(".", " ")


def format_provenance(entries: Iterable[Mapping[str, Any]], indent: str) -> list[str]:
    """Return a line for each source, after an indent; its own sources follow, indented further."""
    lines = []
    for entry in entries:
        kind = [entry[key] for key in ("published", "layout", "kind") if entry.get(key)][:1]
        licence = _join_provenance(entry)
        details = ", ".join([str(entry.get("source")), *kind, *([f"licence: {licence}"] if licence else [])])
        lines.append(f"{indent}{_format_role(str(entry.get('role', 'from')))}: {details}")
        lines += format_provenance(entry.get("provenance") or [], f"  {indent}")
    return lines


def allows_commercial(licence: str | None) -> bool | None:
    """Return whether an SPDX expression allows commercial use; None: there is none, or it has unknown licences."""
    verdicts = set()
    for term in _split_terms(licence or ""):
        choices = {_COMMERCIAL_USE.get(choice.strip("() ")) for choice in term.split(" OR ")}
        verdicts.add(True if True in choices else None if None in choices else False)
    return False if False in verdicts else True if verdicts == {True} else None


def join_licences(licences: Iterable[str | None]) -> str | None:
    """Join licences by AND in one expression, each once; None: none of them demands anything."""
    terms = dict.fromkeys(term for licence in licences if licence for term in _split_terms(licence))
    return " AND ".join(f"({term})" if " OR " in term and len(terms) > 1 else term for term in terms) or None


def _split_terms(expression: str) -> list[str]:
    """Return the terms of an expression that are joined by AND; a choice in parentheses is one term."""
    return [term.strip().removeprefix("(").removesuffix(")") for term in _AND.split(expression)]


def normalize_spdx(text: str) -> str | None:
    """Return the SPDX identifier of a model card's licence, such as `cc-by-nc-4.0`; None: the card states none."""
    text = text.strip().strip("'\"")
    if text.casefold() in ("", "unknown", "none", "null", "other"):
        return None
    identifiers = {name.casefold(): name for name in _COMMERCIAL_USE}
    if text.casefold() in identifiers or {"AND", "OR"} & set(text.split()):
        return identifiers.get(text.casefold(), text)
    plain = re.sub(r"[^A-Za-z0-9.+-]+", "-", text).strip("-")
    return plain if plain == text else f"LicenseRef-{plain}"
