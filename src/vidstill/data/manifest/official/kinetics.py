"""Kinetics-400, -600 and -700: CSV tables of YouTube videos and times, and one clip per row."""

from functools import partial

from vidstill.data.manifest.list_formats import parse_csv_header, split_csv_line
from vidstill.data.manifest.manifest import ManifestReader, Split
from vidstill.data.manifest.official.layout import OfficialList, list_annotation_folders, open_official_lists
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_file, read_first_line, read_lines
from vidstill.utils.types import InputError

_LIST_STEMS: dict[Split, tuple[str, ...]] = {  # of CVDF, DeepMind and ActivityNet; test if there is no val
    "train": ("train", "kinetics_train"),
    "val": ("val", "validate", "validation", "kinetics_val", "test", "kinetics_test"),
}


def detect_kinetics(folder: PathOrUrl, root: PathOrUrl | None) -> ManifestReader | None:
    """Recognize Kinetics by its lists in a directory or in its `annotations`."""
    for directory in list_annotation_folders(folder):
        lists: dict[Split | None, PathOrUrl] = {}
        for split, stems in _LIST_STEMS.items():
            paths = (join_path(directory, stem + suffix) for stem in stems for suffix in (".csv", ".txt"))
            if (path := next(filter(is_kinetics_list, paths), None)) is not None:
                lists[split] = path
        if lists:
            return _open_lists(folder, root, lists)
    return None


def detect_kinetics_list(path: PathOrUrl, root: PathOrUrl | None) -> ManifestReader | None:
    """Recognize one of Kinetics' lists."""
    return _open_lists(path, root, {None: path}) if is_kinetics_list(path) else None


def _open_lists(source: PathOrUrl, root: PathOrUrl | None, lists: dict[Split | None, PathOrUrl]) -> ManifestReader:
    readers = {split: partial(_read_list, path, tuple(lists.values())) for split, path in lists.items()}
    # the directory of a split holds videos or class directories; replacements are two directories deep
    return open_official_lists("Kinetics", source, root, readers, max_depth=2)


def is_kinetics_list(path: PathOrUrl) -> bool:
    """Return whether a file is a table of Kinetics, and not a user's own table with such a column."""
    if not is_file(path):
        return False
    columns = parse_csv_header(read_first_line(path))
    return "youtube_id" in columns and "path" not in columns


def _read_list(path: PathOrUrl, lists: tuple[PathOrUrl, ...]) -> OfficialList:
    """Read the clips of a list; the classes are those of all lists, sorted by name."""
    clips = {each: _read_clips(each) for each in lists}
    classes = tuple(sorted({label for each in clips.values() for _, label in each} - {""}))
    order = {name: label for label, name in enumerate(classes)}
    labelled = any(label for _, label in clips[path])
    name = f"Kinetics-{len(classes)}" if len(classes) in (400, 600, 700) else f"Kinetics ({len(classes)} classes)"
    videos = [(names, order.get(label)) for names, label in clips[path]]
    return OfficialList(name if classes else "Kinetics", path, classes if labelled else (), videos)


def _read_clips(path: PathOrUrl) -> list[tuple[tuple[str, ...], str]]:
    """Return the names that each clip may have, and its class."""
    lines = read_lines(path)
    number, line = next(lines)
    header = parse_csv_header(line)
    if missing := [name for name in ("youtube_id", "time_start", "time_end") if name not in header]:
        raise InputError(
            f"line {number} of {path} names the columns {', '.join(header)}, and Kinetics has {missing[0]} too; "
            "download the official list again"
        )
    clips: list[tuple[tuple[str, ...], str]] = []
    for number, line in lines:
        fields = dict(zip(header, split_csv_line(path, number, line, len(header)), strict=True))
        video, start, end, label = (fields.get(name, "") for name in ("youtube_id", "time_start", "time_end", "label"))
        try:
            # the published name, and the shorter one of copies that are named by the video alone
            names = f"{video}_{int(float(start)):06d}_{int(float(end)):06d}", video
        except ValueError:
            raise InputError(
                f"line {number} of {path} has the times {start!r} and {end!r}, which are not seconds"
            ) from None
        if clips and bool(label) != bool(clips[0][1]):
            raise InputError(f"line {number} of {path} has the label {label!r}; some lines have one and some have none")
        clips.append((names, label))
    return clips
