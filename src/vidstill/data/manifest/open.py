"""Finds a data set's videos and their classes, in folders or in lists, and says what it took the data set for."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vidstill.data.decode.images import IMAGE_EXTENSIONS
from vidstill.data.decode.reader import VIDEO_EXTENSIONS
from vidstill.data.manifest.folder import FolderReader, SplitFolderReader, has_suffix
from vidstill.data.manifest.list_file import ListFileReader, SplitListReader
from vidstill.data.manifest.manifest import SPLIT_ALIASES, Manifest, ManifestReader, Split, build_manifest
from vidstill.data.manifest.official import detect_official_folder, detect_official_list
from vidstill.data.manifest.official.kinetics import is_kinetics_list as is_kinetics
from vidstill.data.manifest.official.layout import OfficialReader
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path, parse_path
from vidstill.data.storage.filesystem import base_name, invalidate_listing_cache, is_directory, is_file, parent_path
from vidstill.utils.types import InputError

INDEX_FILE = "index.jsonl"
"""The list of a packed data set, beside its shards."""


def open_manifest(
    path: PathOrUrl, *, split: Split | None = None, root: PathOrUrl | None = None, fold: int = 1
) -> Manifest:
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
    with _translate_read_errors(path):
        return _detect_reader(parse_path(path), root, fold).read_manifest(split)


def open_test_manifest(path: PathOrUrl, *, root: PathOrUrl | None = None, fold: int = 1) -> Manifest:
    """The val split where there are splits, else the whole: what is given for a test and nothing else."""
    with _translate_read_errors(path):
        found = _detect_reader(parse_path(path), root, fold)
        return found.read_manifest("val" if found.list_splits() else None)


def list_splits(path: PathOrUrl) -> tuple[Split, ...]:
    """The splits that a data set has; none if it is one whole."""
    with _translate_read_errors(path):
        return _detect_reader(parse_path(path), None, 1).list_splits()


@contextmanager
def _translate_read_errors(path: PathOrUrl) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read ({error.strerror}); make it readable") from error


def _detect_reader(path: PathOrUrl, root: PathOrUrl | None, fold: int) -> ManifestReader:
    """What a path is, by the first sign that is there."""
    invalidate_listing_cache(path)
    root = None if root is None else parse_path(root)
    found = (
        _detect_file_reader(path, root)
        if is_file(path)
        else _detect_folder_reader(path, root, fold)
        if is_directory(path)
        else None
    )
    if found is None:
        raise InputError(f"{path} does not exist; give a folder of videos or a list of them")
    if fold != 1 and not (isinstance(found, OfficialReader) and found.num_folds > 1):
        raise InputError(f"{path} has no fold {fold}, as UCF101 and HMDB51 have; leave fold at 1")
    return found


def _detect_file_reader(path: PathOrUrl, root: PathOrUrl | None) -> ManifestReader:
    if has_suffix(base_name(path), VIDEO_EXTENSIONS | IMAGE_EXTENSIONS):
        return _SingleVideoReader(path)
    return detect_official_list(path, root) or ListFileReader(path, root)


def _detect_folder_reader(path: PathOrUrl, root: PathOrUrl | None, fold: int) -> ManifestReader:
    if is_file(index := join_path(path, INDEX_FILE)):
        return ListFileReader(index, root, is_packed=True)
    names = [name for names in SPLIT_ALIASES.values() for name in names]
    lists = {name: part for name in names if is_file(part := join_path(path, f"{name}.csv"))}
    if lists and not any(map(is_kinetics, lists.values())):  # whose lists have the names of ours
        return SplitListReader(path, lists, root)
    if official := detect_official_folder(path, root, fold):
        return official
    parts = {name: part for name in names if is_directory(part := join_path(path, name))}
    return SplitFolderReader(path, parts) if parts else FolderReader(path)


@dataclass(frozen=True)
class _SingleVideoReader:
    path: PathOrUrl

    def list_splits(self) -> tuple[Split, ...]:
        return ()

    def read_manifest(self, split: Split | None) -> Manifest:
        return build_manifest(self.path, VideoTable(parent_path(self.path), [base_name(self.path)]), (), "one video")
