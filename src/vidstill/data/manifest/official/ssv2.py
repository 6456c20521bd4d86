"""Something-Something V2: JSON lists of numbered videos, whose class is a template without its brackets."""

import json
from functools import partial
from typing import Any

from vidstill.data.manifest.manifest import ManifestReader, Split
from vidstill.data.manifest.official.layout import (
    ListedVideo,
    OfficialList,
    list_annotation_folders,
    open_official_lists,
)
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_file, read_lines, read_text
from vidstill.utils.types import InputError

_NAME = "Something-Something V2"
_PREFIXES = ("something-something-v2-", "")  # of the first release, and of Qualcomm's
_VIDEO_FOLDERS = ("20bn-something-something-v2", "videos/20bn-something-something-v2", "videos")


def detect_ssv2(folder: PathOrUrl, root: PathOrUrl | None) -> ManifestReader | None:
    """Recognize Something-Something V2 by its lists in a directory, or in `labels` or `annotations` in it."""
    for directory in (*list_annotation_folders(folder), join_path(folder, "labels")):
        for prefix in _PREFIXES:
            names = ("labels", "train", "validation", "test")
            paths = {name: join_path(directory, f"{prefix}{name}.json") for name in names}
            lists = {name: path for name, path in paths.items() if is_file(path)}
            if "labels" in lists and lists.keys() & {"train", "validation"} and _is_label_map(lists["labels"]):
                read = partial(_read_list, lists["labels"])
                readers: dict[Split | None, partial[OfficialList]] = {}
                if "train" in lists:
                    readers["train"] = partial(read, lists["train"])
                if "validation" in lists:
                    readers["val"] = partial(read, lists["validation"])
                elif "test" in lists:
                    readers["val"] = partial(read, lists["test"], join_path(directory, f"{prefix}test-answers.csv"))
                return open_official_lists(_NAME, folder, root, readers, video_folders=_VIDEO_FOLDERS)
    return None


def _is_label_map(path: PathOrUrl) -> bool:
    """Return whether a file maps class names to numbers, and so is not another kind of `labels.json`."""
    try:
        labels = json.loads(read_text(path))
    except ValueError:
        return False
    return isinstance(labels, dict) and all(str(number).isdecimal() for number in labels.values())


def _read_list(labels: PathOrUrl, path: PathOrUrl, answers: PathOrUrl | None = None) -> OfficialList:
    order = {name: int(number) for name, number in json.loads(read_text(labels)).items()}
    classes = tuple(sorted(order, key=order.__getitem__))
    if [order[name] for name in classes] != list(range(len(classes))):
        raise InputError(f"{labels} does not number its {len(classes)} classes from 0 without a gap; download it again")
    test_classes = _read_answers(answers) if answers and is_file(answers) else {}
    videos: list[ListedVideo] = []
    for number, entry in enumerate(_read_entries(path), 1):
        if not isinstance(entry, dict) or not str(entry.get("id", "")).isalnum():
            raise InputError(f"entry {number} of {path} has no `id`, the number of a video; download the list again")
        name = str(entry["id"])
        class_name = str(entry.get("template") or test_classes.get(name, "")).replace("[", "").replace("]", "")
        if class_name and class_name not in order:
            raise InputError(f"entry {number} of {path} has the template {class_name!r}, which is no class of {labels}")
        videos.append(((name,), order[class_name] if class_name else None))
    labelled = any(label is not None for _, label in videos)
    return OfficialList(_NAME, path, classes if labelled else (), videos)


def _read_entries(path: PathOrUrl) -> list[Any]:
    try:
        entries = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno} of {path} is no JSON ({error.msg}); download it again") from None
    if not isinstance(entries, list):
        raise InputError(f"{path} holds no list of videos; download it again")
    return entries


def _read_answers(path: PathOrUrl) -> dict[str, str]:
    """Read the classes of the test split, which were published later: `id;class` lines."""
    classes = {}
    for number, line in read_lines(path):
        name, semicolon, class_name = line.partition(";")
        if not semicolon:
            raise InputError(f"line {number} of {path} is not `id;class`; download it again")
        classes[name.strip()] = class_name.strip()
    return classes
