"""AVA v2.1 and v2.2: lists of boxes in movies; here the movies, each once, without labels."""

import re
from functools import partial

from vidstill.data.manifest.manifest import ManifestReader, Split
from vidstill.data.manifest.official.layout import (
    OfficialList,
    SplitReaders,
    list_annotation_folders,
    open_official_lists,
)
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import base_name, is_file, read_lines
from vidstill.utils.types import InputError

_LIST_PATTERN = re.compile(r"ava_(train|val)_v(2\.[12])\.csv")
_VIDEO_FOLDERS = ("trainval", "videos", "videos_15min", "clips")
_NOTE = "; without labels: its boxes are for detection"
_SPLITS: tuple[Split | None, ...] = ("train", "val")


def detect_ava(folder: PathOrUrl, root: PathOrUrl | None) -> ManifestReader | None:
    """Recognize AVA by its lists in a directory or in its `annotations`; v2.2 goes before v2.1."""
    for directory in list_annotation_folders(folder):
        for version in ("2.2", "2.1"):
            paths = {split: join_path(directory, f"ava_{split}_v{version}.csv") for split in _SPLITS}
            if readers := {split: partial(_read_list, path) for split, path in paths.items() if is_file(path)}:
                return open_official_lists("AVA", folder, root, readers, video_folders=_VIDEO_FOLDERS, note=_NOTE)
    return None


def detect_ava_list(path: PathOrUrl, root: PathOrUrl | None) -> ManifestReader | None:
    """Recognize one of AVA's lists."""
    if not _LIST_PATTERN.fullmatch(base_name(path)):
        return None
    readers: SplitReaders = {None: partial(_read_list, path)}
    return open_official_lists("AVA", path, root, readers, video_folders=_VIDEO_FOLDERS, note=_NOTE)


def _read_list(path: PathOrUrl) -> OfficialList:
    names: dict[str, None] = {}
    for number, line in read_lines(path):
        fields = line.split(",")
        if len(fields) != 8 or not fields[0]:
            raise InputError(
                f"line {number} of {path} has {len(fields)} fields, and AVA's lists have 8: "
                "video, second, four sides of a box, action, person; download it again"
            )
        names[fields[0]] = None
    version = base_name(path).removesuffix(".csv").rpartition("_")[2]
    return OfficialList(f"AVA {version}", path, (), [((name,), None) for name in names])
