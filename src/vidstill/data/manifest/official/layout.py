"""What the official data sets share: lists that name videos, of which people have most, somewhere below a folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vidstill.data.decode.reader import VIDEO_EXTENSIONS
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.manifest.manifest import Manifest, Split, build_manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import is_directory, walk_directory
from vidstill.utils.types import InputError


class OfficialList(NamedTuple):
    """The videos of a list, each by the names that its file may have, without a suffix, and by its label.

    Args:
        name: what the list shows the data set to be.
    """

    name: str
    source: PathOrUrl
    classes: tuple[str, ...]
    videos: list[tuple[tuple[str, ...], int | None]]


@dataclass(frozen=True, kw_only=True)
class OfficialReader:
    """A data set by its official lists.

    Links die and copies differ, so that a listed video which is not there is no mistake of the user's: it is left out,
    and how many are is said.

    Args:
        family: what the data set is called whichever of its lists is read.
        folder: where the lists were found.
        root: where the videos are looked for.
        video_folders: folders below the root that hold the videos; the first that is there is taken, else the root itself.
        max_depth: how many folders deep they may lie in it.
        split_readers: reads a split's list; under None if it is one whole.
        note: what else is to be said.
        num_folds: how many official ways there are to split it.
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
            raise InputError(
                f"{self.folder} has no list of {self.family}'s {part} split, only of {', '.join(self.list_splits())}"
            )
        listed = self.split_readers[part]()
        within = next((each for each in self.video_folders if is_directory(join_path(self.root, each))), "")
        files = index_videos(self.root, within, self.max_depth)
        paths = [next((files[name] for name in names if name in files), None) for names, _ in listed.videos]
        existing = [
            (path, -1 if label is None else label)
            for path, (_, label) in zip(paths, listed.videos, strict=True)
            if path is not None
        ]
        rows = VideoTable(self.root, [path for path, _ in existing], {"label": [label for _, label in existing]})
        if not listed.videos:
            raise InputError(f"{listed.source} names no videos; fetch it again")
        if not len(rows):
            raise InputError(
                f"none of the {len(listed.videos):,} videos of {listed.source} is there; they were looked for in "
                f"{join_path(self.root, within) if within else self.root} and {self.max_depth} folders deep in it, "
                f"the first as {' or '.join(listed.videos[0][0])}.mp4, or with another suffix of a video"
            )
        whole = f", its {part} split" if part else ""
        kind = f"{listed.name}{whole}, {format_missing(len(rows), len(listed.videos))}{self.note}"
        return build_manifest(self.folder, rows, listed.classes, kind, num_missing=len(listed.videos) - len(rows))


def format_missing(num_present: int, num_listed: int) -> str:
    """How many rows there are, and how many more the official list names."""
    missing = (
        f"{num_listed - num_present:,} of {num_listed:,} listed are missing"
        if num_present < num_listed
        else "none is missing"
    )
    return f"{num_present:,} rows: {missing}"


def index_videos(root: PathOrUrl, subfolder: str, max_depth: int) -> dict[str, str]:
    """The paths of the videos, relative to the root, by their names without suffix.

    Args:
        subfolder: the folder below the root that is looked in.
        max_depth: how many folders deep.
    """
    found: dict[str, str] = {}
    for inside, folders, files in walk_directory(join_path(root, subfolder) if subfolder else root, follow_links=True):
        deep = inside.count("/") + 1 if inside else 0
        folders[:] = sorted(folders, key=_replacement_sort_key) if deep < max_depth else []
        start = "".join(f"{part}/" for part in (subfolder, inside) if part)
        for file in sorted(files):
            if has_suffix(file, VIDEO_EXTENSIONS):
                found.setdefault(file.rpartition(".")[0], start + file)
    return found


def _replacement_sort_key(name: str) -> tuple[bool, str]:
    """Kinetics comes with replacements for files that are broken: where both are there, theirs is the good one."""
    return not name.startswith("replacement"), name


def list_annotation_folders(folder: PathOrUrl) -> tuple[PathOrUrl, PathOrUrl]:
    """Where an official list may lie: in the data set's folder, or in `annotations` in it."""
    return folder, join_path(folder, "annotations")


def check_fold(dataset: str, fold: int) -> int:
    if fold not in (1, 2, 3):
        raise InputError(f"{dataset} has the folds 1, 2 and 3; fold {fold} is none of them")
    return fold
