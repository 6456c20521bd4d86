"""Finds a data set's videos and their classes, in folders or in lists, and says what it took the data set for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vidstill.data.decode.images import PICTURES
from vidstill.data.decode.stream import VIDEOS
from vidstill.data.manifest.folder import Folder, FolderOfEachSplit, has_suffix
from vidstill.data.manifest.list_file import ListOfEachSplit, OneList
from vidstill.data.manifest.manifest import SPLIT_NAMES, DataSet, Listing, Split, make_listing
from vidstill.data.manifest.official import official_folder, official_list
from vidstill.data.manifest.official.kinetics import is_list as is_kinetics
from vidstill.data.manifest.official.layout import Official
from vidstill.data.manifest.table import Row, Rows
from vidstill.data.storage.fetch import Place, below, place_of
from vidstill.data.storage.filesystem import above, is_file, is_folder, last_name, look_again
from vidstill.utils.types import InputError

__all__ = ["Listing", "Row", "Rows", "Split", "listing_to_test", "read_listing", "splits_of"]

INDEX = "index.jsonl"
"""The list of a packed data set, beside its shards."""


def read_listing(path: Place, *, split: Split | None = None, root: Place | None = None, fold: int = 1) -> Listing:
    """The videos of a folder or of a list; what it is, is detected and said in the listing's `kind`.

    A folder may be packed (it holds `index.jsonl`), or hold `train.csv` and `val.csv` (lists, or tables with a header),
    or the official files of a data set, or the folders `train` and `val`, or a folder for each class, or videos; what
    comes first in this sentence goes before. A file is one video, or a list. Where a folder holds no videos, its
    pictures count as such. A list's relative paths stay below their root; absolute ones are taken at their word.

    Args:
        path: of this machine, or an address that fsspec knows.
        split: the part that is wanted; None takes the train split where there are splits. A list or a single video
            that is named itself is taken whole, but for a column `split`.
        root: the folder that a list's paths are relative to, if it is not the list's own; of an official data set, the
            folder that its videos are looked for in.
        fold: which of the three official splits of UCF101 and HMDB51.

    Raises:
        InputError: there is no such data, a line of a list cannot be read, or a video that it names is missing, unless
            the list is an official one.
        Unreachable: an address does not answer.
    """
    with _readable(path):
        return _recognised(place_of(path), root, fold).listing(split)


def listing_to_test(path: Place, *, root: Place | None = None, fold: int = 1) -> Listing:
    """The val split where there are splits, else the whole: what is given for a test and nothing else."""
    with _readable(path):
        found = _recognised(place_of(path), root, fold)
        return found.listing("val" if found.splits() else None)


def splits_of(path: Place) -> tuple[Split, ...]:
    """The splits that a data set has; none if it is one whole."""
    with _readable(path):
        return _recognised(place_of(path), None, 1).splits()


@contextmanager
def _readable(path: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read ({error.strerror}); make it readable") from error


def _recognised(path: Place, root: Place | None, fold: int) -> DataSet:
    """What a path is, by the first sign that is there."""
    look_again(path)
    root = None if root is None else place_of(root)
    found = _file(path, root) if is_file(path) else _folder(path, root, fold) if is_folder(path) else None
    if found is None:
        raise InputError(f"{path} does not exist; give a folder of videos or a list of them")
    if fold != 1 and not (isinstance(found, Official) and found.folds > 1):
        raise InputError(f"{path} has no fold {fold}, as UCF101 and HMDB51 have; leave fold at 1")
    return found


def _file(path: Place, root: Place | None) -> DataSet:
    if has_suffix(last_name(path), VIDEOS | PICTURES):
        return _OneVideo(path)
    return official_list(path, root) or OneList(path, root)


def _folder(path: Place, root: Place | None, fold: int) -> DataSet:
    if is_file(index := below(path, INDEX)):
        return OneList(index, root, packed=True)
    names = [name for names in SPLIT_NAMES.values() for name in names]
    lists = {name: part for name in names if is_file(part := below(path, f"{name}.csv"))}
    if lists and not any(map(is_kinetics, lists.values())):  # whose lists have the names of ours
        return ListOfEachSplit(path, lists, root)
    if official := official_folder(path, root, fold):
        return official
    parts = {name: part for name in names if is_folder(part := below(path, name))}
    return FolderOfEachSplit(path, parts) if parts else Folder(path)


@dataclass(frozen=True)
class _OneVideo:
    path: Place

    def splits(self) -> tuple[Split, ...]:
        return ()

    def listing(self, split: Split | None) -> Listing:
        rows = Rows(above(self.path))
        rows.add(last_name(self.path), None)
        return make_listing(self.path, rows, (), "one video")
