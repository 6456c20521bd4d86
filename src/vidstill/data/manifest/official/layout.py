"""Shared by the official datasets: lists of videos, most of which exist somewhere below a directory."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from vidstill.data.decode.reader import VIDEO_EXTENSIONS
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.manifest.manifest import Manifest, ManifestReader, Split, build_manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import base_name, is_directory, parent_path, walk_directory
from vidstill.utils.types import InputError

ListedVideo = tuple[tuple[str, ...], int | None]
"""The names that a video's file may have, without a suffix, and its label."""


class OfficialList(NamedTuple):
    """The videos of a list."""

    name: str  # of the dataset, as the list shows it
    source: PathOrUrl
    classes: tuple[str, ...]
    videos: list[ListedVideo]


SplitReaders = Mapping[Split | None, Callable[[], OfficialList]]
"""Functions that read the list of a split; under None if the dataset has no splits."""


def open_official_lists(
    family: str,
    source: PathOrUrl,
    root: PathOrUrl | None,
    split_readers: SplitReaders,
    *,
    video_folders: tuple[str, ...] = (),
    max_depth: int = 1,
    note: str = "",
    num_folds: int = 1,
) -> ManifestReader:
    """Open a dataset by its official lists.

    Links die and copies differ, so a listed video that does not exist is no error: it is left out and counted.

    Args:
        family: Name of the dataset, whichever of its lists is read.
        source: Directory of the lists, or the one list that the user names.
        root: Directory of the videos; None: the dataset's own.
        video_folders: Directories below the root that may hold the videos; the first that exists, or else the root.
        max_depth: How many directories deep the videos may be.
        note: A sentence for the description.
        num_folds: As in `ManifestReader`.
    """
    splits = tuple(split for split in split_readers if split)
    video_root = root or source
    if not root and not splits:  # the inverse of `list_annotation_folders`
        folder = parent_path(source)
        video_root = parent_path(folder) if base_name(folder) == "annotations" else folder

    def read_manifest(split: Split | None) -> Manifest:
        part = split or "train" if splits else None
        if part not in split_readers:
            raise InputError(f"{source} has no list of {family}'s {part} split, only of {', '.join(splits)}")
        listed = split_readers[part]()
        if not listed.videos:
            raise InputError(f"{listed.source} names no videos; download it again")
        subfolder = next((each for each in video_folders if is_directory(join_path(video_root, each))), "")
        paths = _index_videos(video_root, subfolder, max_depth)
        existing = ((next(filter(paths.get, names), None), label) for names, label in listed.videos)
        videos = [(paths[name], -1 if label is None else label) for name, label in existing if name is not None]
        if not videos:
            raise InputError(
                f"none of the {len(listed.videos):,} videos of {listed.source} exists; they were searched in "
                f"{join_path(video_root, subfolder) if subfolder else video_root}, {max_depth} directories deep, "
                f"the first as {' or '.join(listed.videos[0][0])}.mp4, or with another suffix of a video"
            )
        rows = VideoTable(video_root, [path for path, _ in videos], {"label": [label for _, label in videos]})
        split_name = f", its {part} split" if part else ""
        description = f"{listed.name}{split_name}, {format_missing(len(rows), len(listed.videos))}{note}"
        num_missing = len(listed.videos) - len(rows)
        return build_manifest(source, rows, listed.classes, description, num_missing=num_missing)

    return ManifestReader(splits, read_manifest, num_folds)


def format_missing(num_present: int, num_listed: int) -> str:
    """Say how many of the listed videos exist."""
    missing = f"{num_listed - num_present:,} of {num_listed:,} listed are missing"
    return f"{num_present:,} rows: {missing if num_present < num_listed else 'none is missing'}"


def _index_videos(root: PathOrUrl, subfolder: str, max_depth: int) -> dict[str, str]:
    """Return the paths of the videos, relative to the root, by their names without suffix."""
    paths: dict[str, str] = {}
    for inside, folders, files in walk_directory(join_path(root, subfolder) if subfolder else root, follow_links=True):
        depth = inside.count("/") + 1 if inside else 0
        # first the replacements that Kinetics has for broken files
        folders[:] = sorted(folders, key=lambda name: (not name.startswith("replacement"), name))
        if depth >= max_depth:
            folders.clear()
        prefix = "".join(f"{part}/" for part in (subfolder, inside) if part)
        for file in sorted(files):
            if has_suffix(file, VIDEO_EXTENSIONS):
                paths.setdefault(file.rpartition(".")[0], prefix + file)
    return paths


def list_annotation_folders(folder: PathOrUrl) -> tuple[PathOrUrl, PathOrUrl]:
    """Return where an official list may be: in the dataset's directory, or in `annotations` in it."""
    return folder, join_path(folder, "annotations")
