"""What the official data sets share: lists that name videos, of which people have most, somewhere below a folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vidstill.data.decode.stream import VIDEOS
from vidstill.data.manifest.folder import has_suffix
from vidstill.data.manifest.manifest import Listing, Split, make_listing
from vidstill.data.manifest.table import Rows
from vidstill.data.storage.fetch import Place, below
from vidstill.data.storage.filesystem import is_folder, walk
from vidstill.utils.types import InputError


class Named(NamedTuple):
    """The videos of a list, each by the names that its file may have, without a suffix, and by its label.

    Args:
        name: what the list shows the data set to be.
    """

    name: str
    source: Place
    classes: tuple[str, ...]
    videos: list[tuple[tuple[str, ...], int | None]]


@dataclass(frozen=True, kw_only=True)
class Official:
    """A data set by its official lists.

    Links die and copies differ, so that a listed video which is not there is no mistake of the user's: it is left out,
    and how many are is said.

    Args:
        family: what the data set is called whichever of its lists is read.
        folder: where the lists were found.
        root: where the videos are looked for.
        within: folders below the root that hold the videos; the first that is there is taken, else the root itself.
        depth: how many folders deep they may lie in it.
        parts: reads a split's list; under None if it is one whole.
        note: what else is to be said.
        folds: how many official ways there are to split it.
    """

    family: str
    folder: Place
    root: Place
    within: tuple[str, ...] = ()
    depth: int = 1
    parts: Mapping[Split | None, Callable[[], Named]]
    note: str = ""
    folds: int = 1

    def splits(self) -> tuple[Split, ...]:
        return tuple(split for split in self.parts if split)

    def listing(self, split: Split | None) -> Listing:
        part = None if None in self.parts else split or "train"
        if part not in self.parts:
            raise InputError(
                f"{self.folder} has no list of {self.family}'s {part} split, only of {', '.join(self.splits())}"
            )
        named = self.parts[part]()
        within = next((each for each in self.within if is_folder(below(self.root, each))), "")
        found = videos_below(self.root, within, self.depth)
        rows = Rows(self.root)
        for names, label in named.videos:
            if there := [found[name] for name in names if name in found]:
                rows.add(there[0], label)
        if not named.videos:
            raise InputError(f"{named.source} names no videos; fetch it again")
        if not len(rows):
            raise InputError(
                f"none of the {len(named.videos):,} videos of {named.source} is there; they were looked for in "
                f"{below(self.root, within) if within else self.root} and {self.depth} folders deep in it, "
                f"the first as {' or '.join(named.videos[0][0])}.mp4, or with another suffix of a video"
            )
        whole = f", its {part} split" if part else ""
        kind = f"{named.name}{whole}, {how_many(len(rows), len(named.videos))}{self.note}"
        return make_listing(self.folder, rows, named.classes, kind, missing=len(named.videos) - len(rows))


def how_many(there: int, named: int) -> str:
    """How many rows there are, and how many more the official list names."""
    missing = f"{named - there:,} of {named:,} listed are missing" if there < named else "none is missing"
    return f"{there:,} rows: {missing}"


def videos_below(root: Place, within: str, depth: int) -> dict[str, str]:
    """The paths of the videos, relative to the root, by their names without suffix.

    Args:
        within: the folder below the root that is looked in.
        depth: how many folders deep.
    """
    found: dict[str, str] = {}
    for inside, folders, files in walk(below(root, within) if within else root, links=True):
        deep = inside.count("/") + 1 if inside else 0
        folders[:] = sorted(folders, key=_replacements_first) if deep < depth else []
        start = "".join(f"{part}/" for part in (within, inside) if part)
        for file in sorted(files):
            if has_suffix(file, VIDEOS):
                found.setdefault(file.rpartition(".")[0], start + file)
    return found


def _replacements_first(name: str) -> tuple[bool, str]:
    """Kinetics comes with replacements for files that are broken: where both are there, theirs is the good one."""
    return not name.startswith("replacement"), name


def beside(folder: Place) -> tuple[Place, Place]:
    """Where an official list may lie: in the data set's folder, or in `annotations` in it."""
    return folder, below(folder, "annotations")


def checked_fold(name: str, fold: int) -> int:
    if fold not in (1, 2, 3):
        raise InputError(f"{name} has the folds 1, 2 and 3; fold {fold} is none of them")
    return fold
