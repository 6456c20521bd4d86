"""AVA v2.1 and v2.2: lists of boxes in films; here their films, each once, without labels."""

import re
from collections.abc import Callable
from functools import partial

from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.official.layout import Named, Official, beside
from vidstill.data.storage.fetch import Place, below
from vidstill.data.storage.filesystem import above, is_file, last_name, lines_of
from vidstill.utils.types import InputError

_LIST = re.compile(r"ava_(train|val)_v(2\.[12])\.csv")
_WITHIN = ("trainval", "videos", "videos_15min", "clips")
_NOTE = "; without labels: its boxes are for detection"


def found(folder: Place, root: Place | None) -> Official | None:
    """AVA by its lists in a folder or in its `annotations`, the newer ones where both are there."""
    splits: tuple[Split, ...] = ("train", "val")
    for place in beside(folder):
        for version in ("2.2", "2.1"):
            parts: dict[Split | None, Callable[[], Named]] = {
                split: partial(_read, path, version)
                for split in splits
                if is_file(path := below(place, f"ava_{split}_v{version}.csv"))
            }
            if parts:
                return _ava(folder, root or folder, parts)
    return None


def found_as(path: Place, root: Place | None) -> Official | None:
    """AVA by a list that was named itself."""
    if not (name := _LIST.fullmatch(last_name(path))):
        return None
    folder = above(above(path)) if last_name(above(path)) == "annotations" else above(path)
    return _ava(path, root or folder, {None: partial(_read, path, name[2])})


def _ava(folder: Place, root: Place, parts: dict[Split | None, Callable[[], Named]]) -> Official:
    return Official(family="AVA", folder=folder, root=root, within=_WITHIN, parts=parts, note=_NOTE)


def _read(path: Place, version: str) -> Named:
    names: dict[str, None] = {}
    for number, line in lines_of(path):
        fields = line.split(",")
        if len(fields) != 8 or not fields[0]:
            raise InputError(
                f"line {number} of {path} has {len(fields)} fields, and AVA's lists have 8: "
                "video, second, four sides of a box, action, person; fetch it again"
            )
        names[fields[0]] = None
    return Named(f"AVA v{version}", path, (), [((name,), None) for name in names])
