"""Kinetics-400, -600 and -700: CSV tables of YouTube videos and seconds, and a clip for each of them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from vidstill.data.manifest.csv_table import fields_of
from vidstill.data.manifest.manifest import Split
from vidstill.data.manifest.official.layout import Named, Official, beside
from vidstill.data.storage.fetch import Place, below
from vidstill.data.storage.filesystem import above, first_line, is_file, last_name, lines_of
from vidstill.utils.types import InputError

_STEMS: dict[Split, tuple[str, ...]] = {  # as CVDF, DeepMind and ActivityNet call them; test where there is no val
    "train": ("train", "kinetics_train"),
    "val": ("val", "validate", "validation", "kinetics_val", "test", "kinetics_test"),
}


def found(folder: Place, root: Place | None) -> Official | None:
    """Kinetics by the lists in a folder or in its `annotations`."""
    for place in beside(folder):
        lists: dict[Split, Place] = {}
        for split, stems in _STEMS.items():
            files = [below(place, stem + suffix) for stem in stems for suffix in (".csv", ".txt")]
            if there := [path for path in files if is_list(path)]:
                lists[split] = there[0]
        if lists:
            read: dict[Split | None, Callable[[], Named]] = {
                split: partial(_named, path, tuple(lists.values())) for split, path in lists.items()
            }
            return _kinetics(folder, root or folder, read)
    return None


def found_as(path: Place, root: Place | None) -> Official | None:
    """Kinetics by a list that was named itself."""
    if not is_list(path):
        return None
    folder = above(above(path)) if last_name(above(path)) == "annotations" else above(path)
    return _kinetics(path, root or folder, {None: partial(_named, path, (path,))})


def is_list(path: Place) -> bool:
    """Whether a file is a table of Kinetics, and not one of ours with such a column."""
    if not is_file(path):
        return False
    columns = _columns(first_line(path))
    return "youtube_id" in columns and "path" not in columns


def _columns(header: str) -> list[str]:
    return [name.strip(' "').lower() for name in header.split(",")]


def _kinetics(folder: Place, root: Place, parts: dict[Split | None, Callable[[], Named]]) -> Official:
    # a split's folder holds its videos, or folders of classes; what replaces broken files has a folder in a folder
    return Official(family="Kinetics", folder=folder, root=root, depth=2, parts=parts)


class _Clip(NamedTuple):
    names: tuple[str, ...]
    label: str


def _named(path: Place, lists: tuple[Place, ...]) -> Named:
    """A list's clips; its classes are those of all the lists, in the order of their names."""
    clips = {each: _read(each) for each in lists}
    classes = tuple(sorted({clip.label for each in clips.values() for clip in each} - {""}))
    order = {name: label for label, name in enumerate(classes)}
    labelled = any(clip.label for clip in clips[path])
    name = f"Kinetics-{len(classes)}" if len(classes) in (400, 600, 700) else f"Kinetics ({len(classes)} classes)"
    videos = [(clip.names, order.get(clip.label)) for clip in clips[path]]
    return Named(name if classes else "Kinetics", path, classes if labelled else (), videos)


def _read(path: Place) -> list[_Clip]:
    lines = lines_of(path)
    number, line = next(lines)
    header = _columns(line)
    if missing := [name for name in ("youtube_id", "time_start", "time_end") if name not in header]:
        raise InputError(
            f"line {number} of {path} names the columns {', '.join(header)}, and Kinetics has {missing[0]} too; "
            "fetch the official list again"
        )
    who, start, end = (header.index(name) for name in ("youtube_id", "time_start", "time_end"))
    called = header.index("label") if "label" in header else None
    clips: list[_Clip] = []
    for number, line in lines:
        fields = fields_of(path, number, line, len(header))
        try:
            first, last = int(float(fields[start])), int(float(fields[end]))
        except ValueError:
            raise InputError(
                f"line {number} of {path} has the times {fields[start]!r} and {fields[end]!r}, which are no seconds"
            ) from None
        # the published name, and the shorter one of copies that kept nothing but the video's own
        names = f"{fields[who]}_{first:06d}_{last:06d}", fields[who]
        label = "" if called is None else fields[called]
        if clips and bool(label) != bool(clips[0].label):
            raise InputError(f"line {number} of {path} has the label {label!r}; some lines have one and some have none")
        clips.append(_Clip(names, label))
    return clips
