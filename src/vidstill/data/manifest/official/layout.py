"""Shared by the official datasets: lists of videos, most of which exist somewhere below a directory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vidstill.data.decode.reader import VIDEO_EXTENSIONS
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.manifest.manifest import Manifest, Split, build_manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import base_name, is_directory, parent_path, walk_directory
from vidstill.utils.types import InputError


class OfficialList(NamedTuple):
    """The videos of a list: the names that each file may have, without a suffix, and the label.

    Args:
        name: Name of the dataset, as the list shows it.
    """

    name: str
    source: PathOrUrl
    classes: tuple[str, ...]
    videos: list[tuple[tuple[str, ...], int | None]]


@dataclass(frozen=True, kw_only=True)
class OfficialReader:
    """A dataset by its official lists.

    Links die and copies differ, so a listed video that does not exist is no error: it is left out and counted.

    Args:
        family: Name of the dataset, whichever of its lists is read.
        folder: Directory of the lists.
        root: Directory of the videos.
        video_folders: Directories below the root that may hold the videos; the first that exists, or else the root.
        max_depth: How many directories deep the videos may be.
        split_readers: Functions that read the list of a split; under None if the dataset has no splits.
        note: A sentence for the description.
        num_folds: The number of official ways to split the dataset.
    """

    family: str
    folder: PathOrUrl
    root: PathOrUrl
    video_folders: tuple[str, ...] = ()
    max_depth: int = 1
    split_readers: Mapping[Split | None, Callable[[], OfficialList]]
    note: str = ""
    num_folds: int = 1

    def list_splits(self) -> tuple[Split, ...]:
        return tuple(split for split in self.split_readers if split)

    def read_manifest(self, split: Split | None) -> Manifest:
        part = None if None in self.split_readers else split or "train"
        if part not in self.split_readers:
            splits = ", ".join(self.list_splits())
            raise InputError(f"{self.folder} has no list of {self.family}'s {part} split, only of {splits}")
        listed = self.split_readers[part]()
        if not listed.videos:
            raise InputError(f"{listed.source} names no videos; download it again")
        subfolder = next((each for each in self.video_folders if is_directory(join_path(self.root, each))), "")
        paths = index_videos(self.root, subfolder, self.max_depth)
        videos = [(name, label) for names, label in listed.videos if (name := _find_first(names, paths)) is not None]
        if not videos:
            raise InputError(
                f"none of the {len(listed.videos):,} videos of {listed.source} exists; they were searched in "
                f"{join_path(self.root, subfolder) if subfolder else self.root}, {self.max_depth} directories deep, "
                f"the first as {' or '.join(listed.videos[0][0])}.mp4, or with another suffix of a video"
            )
        labels = [-1 if label is None else label for _, label in videos]
        rows = VideoTable(self.root, [paths[name] for name, _ in videos], {"label": labels})
        split_name = f", its {part} split" if part else ""
        description = f"{listed.name}{split_name}, {format_missing(len(rows), len(listed.videos))}{self.note}"
        num_missing = len(listed.videos) - len(rows)
        return build_manifest(self.folder, rows, listed.classes, description, num_missing=num_missing)


def _find_first(names: tuple[str, ...], paths: Mapping[str, str]) -> str | None:
    return next((name for name in names if name in paths), None)


def format_missing(num_present: int, num_listed: int) -> str:
    """Say how many of the listed videos exist."""
    missing = f"{num_listed - num_present:,} of {num_listed:,} listed are missing"
    return f"{num_present:,} rows: {missing if num_present < num_listed else 'none is missing'}"


def index_videos(root: PathOrUrl, subfolder: str, max_depth: int) -> dict[str, str]:
    """Return the paths of the videos, relative to the root, by their names without suffix.

    Args:
        subfolder: The directory below the root that is searched.
        max_depth: How many directories deep.
    """
    paths: dict[str, str] = {}
    for inside, folders, files in walk_directory(join_path(root, subfolder) if subfolder else root, follow_links=True):
        depth = inside.count("/") + 1 if inside else 0
        folders[:] = sorted(folders, key=_replacement_sort_key) if depth < max_depth else []
        prefix = "".join(f"{part}/" for part in (subfolder, inside) if part)
        for file in sorted(files):
            if has_suffix(file, VIDEO_EXTENSIONS):
                paths.setdefault(file.rpartition(".")[0], prefix + file)
    return paths


def _replacement_sort_key(name: str) -> tuple[bool, str]:
    """Put the replacements first that Kinetics has for broken files."""
    return not name.startswith("replacement"), name


def list_annotation_folders(folder: PathOrUrl) -> tuple[PathOrUrl, PathOrUrl]:
    """Return where an official list may be: in the dataset's directory, or in `annotations` in it."""
    return folder, join_path(folder, "annotations")


def find_dataset_folder(list_path: PathOrUrl) -> PathOrUrl:
    """Return the directory of the dataset that a list belongs to, the inverse of `list_annotation_folders`."""
    folder = parent_path(list_path)
    return parent_path(folder) if base_name(folder) == "annotations" else folder


def build_fold_reader(
    family: str,
    folder: PathOrUrl,
    root: PathOrUrl | None,
    video_folders: tuple[str, ...],
    read_train: Callable[[], OfficialList],
    read_val: Callable[[], OfficialList],
) -> OfficialReader:
    """Return the reader of a dataset with three folds, whose videos are at most two directories deep."""
    return OfficialReader(
        family=family,
        folder=folder,
        root=root or folder,
        video_folders=video_folders,
        max_depth=2,
        split_readers={"train": read_train, "val": read_val},
        num_folds=3,
    )


def check_fold(dataset: str, fold: int) -> int:
    """Return the fold, or raise an InputError if it is not 1, 2 or 3."""
    if fold not in (1, 2, 3):
        raise InputError(f"{dataset} has the folds 1, 2 and 3; fold {fold} is none of them")
    return fold
