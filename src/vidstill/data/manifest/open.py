"""Open a dataset: recognize directories, lists and official datasets, and read their videos and classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from vidstill.data.decode.images import IMAGE_EXTENSIONS
from vidstill.data.decode.reader import VIDEO_EXTENSIONS
from vidstill.data.manifest.folder import find_split_folders, has_suffix, read_folder
from vidstill.data.manifest.list_file import open_list_file, open_split_lists
from vidstill.data.manifest.manifest import SPLIT_ALIASES, Manifest, ManifestReader, Split, build_manifest, match_splits
from vidstill.data.manifest.official import detect_official_folder, detect_official_list
from vidstill.data.manifest.official.kinetics import is_kinetics_list
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path, parse_path
from vidstill.data.storage.filesystem import base_name, invalidate_listing_cache, is_directory, is_file, parent_path
from vidstill.utils.types import InputError

INDEX_FILE = "index.jsonl"
"""The list of packed videos, beside their shards."""


def open_manifest(
    path: PathOrUrl, *, split: Split | None = None, root: PathOrUrl | None = None, fold: int = 1
) -> Manifest:
    """Open a dataset and read its videos; the manifest's `description` says what it was recognized as.

    A directory may be packed (it holds `index.jsonl`), or hold `train.csv` and `val.csv` (lists, or tables with a
    header), or the files of an official dataset, or the directories `train` and `val`, or a directory for each class,
    or videos; the first of these that applies. A file is one video, or a list. Where a directory holds no videos, its
    images count. The relative paths of a list stay below its root; absolute paths are used as they are.

    Args:
        path: A local path, or a URL that fsspec knows.
        split: The split; None takes the train split of a dataset with splits. A list that is named itself is read
            whole, unless it has a column `split`.
        root: The directory that a list's paths are relative to, if not its own; for an official dataset, the directory
            of its videos.
        fold: Which of the three official splits of UCF101 and HMDB51.

    Raises:
        InputError: There is no such dataset, a line of a list cannot be read, or a video of a list that is not official
            is missing.
        StorageUnreachable: A URL does not answer.
    """
    with _translate_read_errors(path):
        return _detect_reader(parse_path(path), root, fold).read_manifest(split)


def open_test_manifest(path: PathOrUrl, *, root: PathOrUrl | None = None, fold: int = 1) -> Manifest:
    """Open the validation split of a dataset with splits, or else all of it.

    Args:
        root, fold: As for `open_manifest`.
    """
    with _translate_read_errors(path):
        reader = _detect_reader(parse_path(path), root, fold)
        return reader.read_manifest("val" if reader.splits else None)


def list_splits(path: PathOrUrl) -> tuple[Split, ...]:
    """Return the splits of a dataset; none if it is not split."""
    with _translate_read_errors(path):
        return _detect_reader(parse_path(path), None, 1).splits


@contextmanager
def _translate_read_errors(path: PathOrUrl) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read ({error.strerror}); make it readable") from error


def _detect_reader(path: PathOrUrl, root: PathOrUrl | None, fold: int) -> ManifestReader:
    """Recognize the dataset at a path."""
    invalidate_listing_cache(path)
    root = None if root is None else parse_path(root)
    if is_file(path):
        reader = _detect_file_reader(path, root)
    elif is_directory(path):
        reader = _detect_folder_reader(path, root, fold)
    else:
        raise InputError(f"{path} does not exist; give a directory of videos or a list of them")
    if fold != 1 and reader.num_folds == 1:
        raise InputError(f"{path} has no fold {fold}, as UCF101 and HMDB51 have; leave --fold at 1")
    return reader


def _detect_file_reader(path: PathOrUrl, root: PathOrUrl | None) -> ManifestReader:
    if has_suffix(name := base_name(path), VIDEO_EXTENSIONS | IMAGE_EXTENSIONS):
        rows = VideoTable(parent_path(path), [name])
        return ManifestReader((), lambda split: build_manifest(path, rows, (), "one video"))
    return detect_official_list(path, root) or open_list_file(path, root)


def _detect_folder_reader(path: PathOrUrl, root: PathOrUrl | None, fold: int) -> ManifestReader:
    if is_file(index := join_path(path, INDEX_FILE)):
        return open_list_file(index, root, is_packed=True)
    names = [name for aliases in SPLIT_ALIASES.values() for name in aliases]
    lists = {name: part for name in names if is_file(part := join_path(path, f"{name}.csv"))}
    if lists and not any(map(is_kinetics_list, lists.values())):  # the lists of Kinetics have the same names
        return open_split_lists(path, lists, root)
    if official := detect_official_folder(path, root, fold):
        return official
    split_folders = find_split_folders(path)
    return ManifestReader(match_splits(split_folders), partial(read_folder, path, split_folders))
