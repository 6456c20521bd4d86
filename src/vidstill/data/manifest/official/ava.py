"""AVA v2.1 and v2.2: lists of boxes in movies; here the movies, each once, without labels."""

import re
from collections.abc import Callable
from functools import partial

from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.official.layout import (
    OfficialList,
    OfficialReader,
    find_dataset_folder,
    list_annotation_folders,
)
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import base_name, is_file, read_lines
from vidstill.utils.types import InputError

_LIST_PATTERN = re.compile(r"ava_(train|val)_v(2\.[12])\.csv")
_VIDEO_FOLDERS = ("trainval", "videos", "videos_15min", "clips")
_NOTE = "; without labels: its boxes are for detection"


def detect_ava(folder: PathOrUrl, root: PathOrUrl | None) -> OfficialReader | None:
    """Recognize AVA by its lists in a directory or in its `annotations`; v2.2 goes before v2.1."""
    splits: tuple[Split, ...] = ("train", "val")
    for directory in list_annotation_folders(folder):
        for version in ("2.2", "2.1"):
            parts: dict[Split | None, Callable[[], OfficialList]] = {
                split: partial(_read_list, path, version)
                for split in splits
                if is_file(path := join_path(directory, f"ava_{split}_v{version}.csv"))
            }
            if parts:
                return _make_reader(folder, root or folder, parts)
    return None


def detect_ava_list(path: PathOrUrl, root: PathOrUrl | None) -> OfficialReader | None:
    """Recognize one of AVA's lists."""
    if not (name := _LIST_PATTERN.fullmatch(base_name(path))):
        return None
    return _make_reader(path, root or find_dataset_folder(path), {None: partial(_read_list, path, name[2])})


def _make_reader(
    folder: PathOrUrl, root: PathOrUrl, parts: dict[Split | None, Callable[[], OfficialList]]
) -> OfficialReader:
    return OfficialReader(
        family="AVA", folder=folder, root=root, video_folders=_VIDEO_FOLDERS, split_readers=parts, note=_NOTE
    )


def _read_list(path: PathOrUrl, version: str) -> OfficialList:
    names: dict[str, None] = {}
    for number, line in read_lines(path):
        fields = line.split(",")
        if len(fields) != 8 or not fields[0]:
            raise InputError(
                f"line {number} of {path} has {len(fields)} fields, and AVA's lists have 8: "
                "video, second, four sides of a box, action, person; download it again"
            )
        names[fields[0]] = None
    return OfficialList(f"AVA v{version}", path, (), [((name,), None) for name in names])
