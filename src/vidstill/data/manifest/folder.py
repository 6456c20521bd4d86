"""A data set that is told from its folders: of videos, else of pictures, for each class, for each split."""

from collections.abc import Iterator
from dataclasses import dataclass

from vidstill.data.decode.images import PICTURES
from vidstill.data.decode.stream import VIDEOS
from vidstill.data.manifest.manifest import Listing, Split, chosen, make_listing, splits_among
from vidstill.data.manifest.table import Rows
from vidstill.data.storage.fetch import Place, below
from vidstill.data.storage.filesystem import files_in, folders_in, walk
from vidstill.utils.types import InputError


@dataclass(frozen=True)
class Folder:
    """Videos, or a folder for each class of them."""

    path: Place

    def splits(self) -> tuple[Split, ...]:
        return ()

    def listing(self, split: Split | None) -> Listing:
        if split == "val":
            raise InputError(
                f"{self.path} has no val split; give a folder with train and val in it, as lists or as folders"
            )
        return folder_listing(self.path, [self.path], "")


@dataclass(frozen=True)
class FolderOfEachSplit:
    """A folder that has a folder for each split.

    Args:
        parts: by the split's name.
    """

    path: Place
    parts: dict[str, Place]

    def splits(self) -> tuple[Split, ...]:
        return splits_among(self.parts)

    def listing(self, split: Split | None) -> Listing:
        folder = chosen(self.path, self.parts, split)
        return folder_listing(folder, list(self.parts.values()), f"the {split or 'train'} split of ")


def folder_listing(folder: Place, parts: list[Place], of: str) -> Listing:
    """A folder's videos, or its pictures where it holds no videos; a class is one that any of the parts has."""
    suffixes = VIDEOS if next(media_in(folder, VIDEOS), None) else PICTURES
    if any(has_suffix(name, suffixes) for name in files_in(folder)):
        rows = Rows(folder)
        for name in media_in(folder, suffixes):
            rows.add(name, None)
        return make_listing(folder, rows, (), f"{of}a folder of {'videos' if suffixes == VIDEOS else 'pictures'}")
    classes = classes_in(parts, suffixes)
    return make_listing(
        folder, rows_of(folder, classes, suffixes), classes, f"{of}a folder with a folder for each class"
    )


def classes_in(parts: list[Place], suffixes: frozenset[str]) -> tuple[str, ...]:
    """The names of the folders that hold something in any of the parts, in order."""
    inside = {name for part in parts for name in folders_in(part)}
    return tuple(
        sorted(name for name in inside if any(next(media_in(below(part, name), suffixes), None) for part in parts))
    )


def rows_of(folder: Place, classes: tuple[str, ...], suffixes: frozenset[str]) -> Rows:
    """What the folders of the classes hold, class after class."""
    rows = Rows(folder)
    for label, name in enumerate(classes):
        for file in media_in(below(folder, name), suffixes):
            rows.add(f"{name}/{file}", label)
    return rows


def media_in(folder: Place, suffixes: frozenset[str]) -> Iterator[str]:
    """The files of these kinds in a folder and in its folders, relative to it, in the order of their names."""
    for inside, folders, files in walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for file in sorted(files):
            if has_suffix(file, suffixes):
                yield f"{inside}/{file}" if inside else file


def has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and name[0] != "." and f".{suffix.lower()}" in suffixes
