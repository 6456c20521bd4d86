"""Datasets by their directories: of videos or images, one for each class, one for each split."""

from collections.abc import Iterator, Mapping

import numpy as np

from vidstill.data.decode.images import IMAGE_EXTENSIONS
from vidstill.data.decode.reader import VIDEO_EXTENSIONS
from vidstill.data.manifest.manifest import SPLIT_ALIASES, Manifest, Split, build_manifest, select_split
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_directory, list_directories, list_files, walk_directory


def read_folder(path: PathOrUrl, split_folders: Mapping[str, PathOrUrl], split: Split | None) -> Manifest:
    """Read a directory of videos, of images if it holds no videos, or of directories for the classes.

    Args:
        split_folders: The directories of the splits, which share their classes; if empty, the directory is not split.
        split: The split; None for the train split.

    Raises:
        InputError: There is no such split, or it holds no videos.
    """
    folder = select_split(path, split_folders, split) if split_folders or split == "val" else path
    prefix = f"the {split or 'train'} split of " if split_folders else ""
    suffixes = VIDEO_EXTENSIONS if has_media(folder, VIDEO_EXTENSIONS) else IMAGE_EXTENSIONS
    if any(has_suffix(name, suffixes) for name in list_files(folder)):
        rows = VideoTable(folder, iter_media_files(folder, suffixes))
        noun = "videos" if suffixes == VIDEO_EXTENSIONS else "images"
        return build_manifest(folder, rows, (), f"{prefix}a directory of {noun}")
    classes = find_classes(list(split_folders.values()) or [path], suffixes)
    rows = read_class_folders(folder, classes, suffixes)
    return build_manifest(folder, rows, classes, f"{prefix}a directory with a directory for each class")


def find_classes(folders: list[PathOrUrl], suffixes: frozenset[str]) -> tuple[str, ...]:
    """Return the sorted names of the directories that hold a file of these kinds in any of the splits."""
    inside = {name for part in folders for name in list_directories(part)}
    return tuple(name for name in sorted(inside) if any(has_media(join_path(part, name), suffixes) for part in folders))


def read_class_folders(folder: PathOrUrl, classes: tuple[str, ...], suffixes: frozenset[str]) -> VideoTable:
    """Read the files of the class directories, class after class."""
    files = [list(iter_media_files(join_path(folder, name), suffixes)) for name in classes]
    names = [f"{name}/{file}" for name, inside in zip(classes, files, strict=True) for file in inside]
    return VideoTable(folder, names, {"label": np.repeat(np.arange(len(classes)), list(map(len, files)))})


def iter_media_files(folder: PathOrUrl, suffixes: frozenset[str]) -> Iterator[str]:
    """Yield the files of these kinds in a directory, at any depth, relative to it and sorted by name.

    A directory that has the name of such a file, and holds none, is among them: whoever reads it reports it.
    """
    for inside, folders, files in walk_directory(folder):
        prefix = f"{inside}/" if inside else ""
        folders[:] = sorted(name for name in folders if name[0] != ".")
        empty = [name for name in folders if has_suffix(name, suffixes)]
        empty = [name for name in empty if not has_media(join_path(folder, prefix + name), suffixes)]
        folders[:] = [name for name in folders if name not in empty]
        for file in sorted([*files, *empty]):
            if has_suffix(file, suffixes):
                yield prefix + file


def has_media(folder: PathOrUrl, suffixes: frozenset[str]) -> bool:
    """Return whether a directory holds a file of these kinds, at any depth."""
    for _, folders, files in walk_directory(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        if any(has_suffix(file, suffixes) for file in files):
            return True
    return False


def has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and name[0] != "." and f".{suffix.lower()}" in suffixes


def find_split_folders(folder: PathOrUrl) -> dict[str, PathOrUrl]:
    """Return the directories of splits in a directory, by name."""
    names = [name for aliases in SPLIT_ALIASES.values() for name in aliases]
    return {name: path for name in names if is_directory(path := join_path(folder, name))}
