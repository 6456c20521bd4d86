"""A data set that is told from its folders: of videos, else of pictures, for each class, for each split."""

from collections.abc import Iterator
from dataclasses import dataclass

from vidstill.data.decode.images import IMAGE_EXTENSIONS
from vidstill.data.decode.reader import VIDEO_EXTENSIONS
from vidstill.data.manifest.manifest import Manifest, Split, build_manifest, match_splits, select_split
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import list_directories, list_files, walk_directory
from vidstill.utils.types import InputError


@dataclass(frozen=True)
class FolderReader:
    """Videos, or a folder for each class of them."""

    path: PathOrUrl

    def list_splits(self) -> tuple[Split, ...]:
        return ()

    def read_manifest(self, split: Split | None) -> Manifest:
        if split == "val":
            raise InputError(
                f"{self.path} has no val split; give a folder with train and val in it, as lists or as folders"
            )
        return read_folder_manifest(self.path, [self.path], "")


@dataclass(frozen=True)
class SplitFolderReader:
    """A folder that has a folder for each split.

    Args:
        split_folders: by the split's name.
    """

    path: PathOrUrl
    split_folders: dict[str, PathOrUrl]

    def list_splits(self) -> tuple[Split, ...]:
        return match_splits(self.split_folders)

    def read_manifest(self, split: Split | None) -> Manifest:
        folder = select_split(self.path, self.split_folders, split)
        return read_folder_manifest(folder, list(self.split_folders.values()), f"the {split or 'train'} split of ")


def read_folder_manifest(folder: PathOrUrl, split_folders: list[PathOrUrl], description_prefix: str) -> Manifest:
    """A folder's videos, or its pictures where it holds no videos; a class is one that any of the parts has."""
    suffixes = VIDEO_EXTENSIONS if next(iter_media_files(folder, VIDEO_EXTENSIONS), None) else IMAGE_EXTENSIONS
    if any(has_suffix(name, suffixes) for name in list_files(folder)):
        rows = VideoTable(folder)
        for name in iter_media_files(folder, suffixes):
            rows.append(name, None)
        return build_manifest(
            folder,
            rows,
            (),
            f"{description_prefix}a folder of {'videos' if suffixes == VIDEO_EXTENSIONS else 'pictures'}",
        )
    classes = find_classes(split_folders, suffixes)
    return build_manifest(
        folder,
        read_class_folders(folder, classes, suffixes),
        classes,
        f"{description_prefix}a folder with a folder for each class",
    )


def find_classes(folders: list[PathOrUrl], suffixes: frozenset[str]) -> tuple[str, ...]:
    """The names of the folders that hold something in any of the parts, in order."""
    inside = {name for part in folders for name in list_directories(part)}
    return tuple(
        sorted(
            name
            for name in inside
            if any(next(iter_media_files(join_path(part, name), suffixes), None) for part in folders)
        )
    )


def read_class_folders(folder: PathOrUrl, classes: tuple[str, ...], suffixes: frozenset[str]) -> VideoTable:
    """What the folders of the classes hold, class after class."""
    rows = VideoTable(folder)
    for label, name in enumerate(classes):
        for file in iter_media_files(join_path(folder, name), suffixes):
            rows.append(f"{name}/{file}", label)
    return rows


def iter_media_files(folder: PathOrUrl, suffixes: frozenset[str]) -> Iterator[str]:
    """The files of these kinds in a folder and in its folders, relative to it, in the order of their names."""
    for inside, folders, files in walk_directory(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for file in sorted(files):
            if has_suffix(file, suffixes):
                yield f"{inside}/{file}" if inside else file


def has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and name[0] != "." and f".{suffix.lower()}" in suffixes
