"""Something-Something V2: JSON lists of numbered videos, whose class is a template with its brackets taken off."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.official.layout import OfficialList, OfficialReader, list_annotation_folders
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_file, read_lines, read_text
from vidstill.utils.types import InputError

_PREFIXES = ("something-something-v2-", "")  # of the first publication, and of the one by Qualcomm
_VIDEO_FOLDERS = ("20bn-something-something-v2", "videos/20bn-something-something-v2", "videos")


def detect_ssv2(folder: PathOrUrl, root: PathOrUrl | None) -> OfficialReader | None:
    """Something-Something V2 by its lists in a folder, or in `labels` or `annotations` in it."""
    for place in (*list_annotation_folders(folder), join_path(folder, "labels")):
        for prefix in _PREFIXES:
            names = {
                name: join_path(place, f"{prefix}{name}.json") for name in ("labels", "train", "validation", "test")
            }
            there = {name for name, path in names.items() if is_file(path)}
            if "labels" not in there or not there & {"train", "validation"} or not _is_label_map(names["labels"]):
                continue
            answers = join_path(place, f"{prefix}test-answers.csv")
            parts: dict[Split | None, Callable[[], OfficialList]] = {}
            if "train" in there:
                parts["train"] = partial(_read_list, names["labels"], names["train"])
            if "validation" in there:
                parts["val"] = partial(_read_list, names["labels"], names["validation"])
            elif "test" in there:
                parts["val"] = partial(
                    _read_list, names["labels"], names["test"], answers if is_file(answers) else None
                )
            return OfficialReader(
                family="Something-Something V2",
                folder=folder,
                root=root or folder,
                video_folders=_VIDEO_FOLDERS,
                split_readers=parts,
            )
    return None


def _is_label_map(path: PathOrUrl) -> bool:
    """Whether a file numbers classes by their names, and so is not some other `labels.json`."""
    try:
        labels = json.loads(read_text(path))
    except ValueError:
        return False
    return isinstance(labels, dict) and all(str(number).isdecimal() for number in labels.values())


def _read_list(labels: PathOrUrl, path: PathOrUrl, answers: PathOrUrl | None = None) -> OfficialList:
    order = {name: int(number) for name, number in json.loads(read_text(labels)).items()}
    classes = tuple(sorted(order, key=order.__getitem__))
    if [order[name] for name in classes] != list(range(len(classes))):
        raise InputError(f"{labels} does not number its {len(classes)} classes from 0 without a gap; fetch it again")
    told = _read_answers(answers) if answers else {}
    videos: list[tuple[tuple[str, ...], int | None]] = []
    for number, entry in enumerate(_read_entries(path), 1):
        if not isinstance(entry, dict) or not str(entry.get("id", "")).isalnum():
            raise InputError(f"entry {number} of {path} has no `id`, the number of a video; fetch the list again")
        name = str(entry["id"])
        called = str(entry.get("template") or told.get(name, "")).replace("[", "").replace("]", "")
        if called and called not in order:
            raise InputError(f"entry {number} of {path} has the template {called!r}, which is no class of {labels}")
        videos.append(((name,), order[called] if called else None))
    labelled = any(label is not None for _, label in videos)
    return OfficialList("Something-Something V2", path, classes if labelled else (), videos)


def _read_entries(path: PathOrUrl) -> list[Any]:
    try:
        entries = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno} of {path} is no JSON ({error.msg}); fetch it again") from None
    if not isinstance(entries, list):
        raise InputError(f"{path} holds no list of videos; fetch it again")
    return entries


def _read_answers(path: PathOrUrl) -> dict[str, str]:
    """The test split's classes, which were kept back at first: `id;class` lines."""
    told = {}
    for number, line in read_lines(path):
        name, semicolon, called = line.partition(";")
        if not semicolon:
            raise InputError(f"line {number} of {path} is not `id;class`; fetch it again")
        told[name.strip()] = called.strip()
    return told
