"""Open a dataset: recognize directories, lists and official datasets, and read their videos and classes."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from vidstill.data.decode.images import IMAGE_EXTENSIONS
from vidstill.data.decode.reader import VIDEO_EXTENSIONS
from vidstill.data.manifest.folder import find_split_folders, has_suffix, read_folder
from vidstill.data.manifest.list_formats import read_list_file
from vidstill.data.manifest.made import detect_made
from vidstill.data.manifest.manifest import (
    SPLIT_ALIASES,
    Manifest,
    ManifestReader,
    Split,
    build_manifest,
    match_splits,
    select_split,
)
from vidstill.data.manifest.official import ava, imagenet, kinetics, ssv2, three_folds
from vidstill.data.manifest.parsed import INDEX_FILE, ParsedList
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.addresses import check_inside
from vidstill.data.storage.fetch import PathOrUrl, join_path, parse_path
from vidstill.data.storage.filesystem import (
    base_name,
    invalidate_listing_cache,
    is_directory,
    is_file,
    parent_path,
    read_lines,
)
from vidstill.utils.types import InputError

_CLASSES_FILE = "classes.txt"
_T = TypeVar("_T")
_SPLIT_ALIASES = tuple(name for names in SPLIT_ALIASES.values() for name in names)


def open_manifest(
    path: PathOrUrl, *, split: Split | None = None, root: PathOrUrl | None = None, fold: int = 1
) -> Manifest:
    """Open a dataset and read its videos; the manifest's `description` says what it was recognized as.

    A directory may be packed (it holds `index.jsonl`), or hold `train.csv` and `val.csv` (lists, or tables with a
    header), or the files of an official dataset, or the directories `train` and `val`, or a directory for each class,
    or videos; the first of these that applies. A file is one video, or a list. Where a directory holds no videos, its
    images count. The relative paths of a list stay below its root; a local list may name absolute paths and addresses,
    a pack's index and a list behind an address may not. No list names drawn clips.

    Args:
        path: A local path, or an address, see `parse_address` and, of drawn clips, `parse_made`.
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
    return _read_dataset(path, root, fold, lambda reader: reader.read_manifest(split))


def open_test_manifest(path: PathOrUrl, *, root: PathOrUrl | None = None, fold: int = 1) -> Manifest:
    """Open the validation split of a dataset with splits, or else all of it.

    Args:
        root, fold: As for `open_manifest`.
    """
    return _read_dataset(path, root, fold, lambda reader: reader.read_manifest("val" if reader.splits else None))


def open_split_manifests(path: PathOrUrl, *, root: PathOrUrl | None = None, fold: int = 1) -> dict[str, Manifest]:
    """Open the splits of a dataset by name, or the whole as "all".

    Args:
        root, fold: As for `open_manifest`.
    """

    def read_splits(reader: ManifestReader) -> dict[str, Manifest]:
        return {split or "all": reader.read_manifest(split) for split in reader.splits or (None,)}

    return _read_dataset(path, root, fold, read_splits)


def list_splits(path: PathOrUrl) -> tuple[Split, ...]:
    """Return the splits of a dataset; none if it is not split."""
    return _read_dataset(path, None, 1, lambda reader: reader.splits)


def _read_dataset(path: PathOrUrl, root: PathOrUrl | None, fold: int, read: Callable[[ManifestReader], _T]) -> _T:
    try:
        return read(_detect_reader(parse_path(path), root, fold))
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read ({error.strerror}); make it readable") from error


def _detect_reader(path: PathOrUrl, root: PathOrUrl | None, fold: int) -> ManifestReader:
    """Recognize the dataset at a path."""
    if (drawn := detect_made(path, root)) is not None:
        return _check_fold(drawn, path, fold)
    invalidate_listing_cache(path)
    root = None if root is None else parse_path(root)
    if is_file(path):
        if has_suffix(name := base_name(path), VIDEO_EXTENSIONS | IMAGE_EXTENSIONS):
            rows = VideoTable(parent_path(path), [name])
            reader = ManifestReader((), lambda split: build_manifest(path, rows, (), "one video"))
        else:
            official = kinetics.detect_kinetics_list(path, root) or ava.detect_ava_list(path, root)
            reader = official or _open_list_file(path, root)
    elif is_directory(path):
        reader = _detect_folder_reader(path, root, fold)
    else:
        state = "is neither a file nor a directory" if isinstance(path, Path) and path.exists() else "does not exist"
        raise InputError(f"{path} {state}; give a directory of videos or a list of them")
    return _check_fold(reader, path, fold)


def _check_fold(reader: ManifestReader, path: PathOrUrl, fold: int) -> ManifestReader:
    if fold != 1 and reader.num_folds == 1:
        raise InputError(f"{path} has no fold {fold}, as UCF101 and HMDB51 have; leave --fold at 1")
    return reader


def _detect_folder_reader(path: PathOrUrl, root: PathOrUrl | None, fold: int) -> ManifestReader:
    if is_file(index := join_path(path, INDEX_FILE)):
        return _open_list_file(index, root, is_packed=True)
    lists = {name: part for name in _SPLIT_ALIASES if is_file(part := join_path(path, f"{name}.csv"))}
    if lists and not any(map(kinetics.is_kinetics_list, lists.values())):  # the lists of Kinetics have the same names
        return _open_split_lists(path, lists, root)
    if official := (
        kinetics.detect_kinetics(path, root)
        or ssv2.detect_ssv2(path, root)
        or three_folds.detect_three_folds(path, root, fold)
        or ava.detect_ava(path, root)
        or imagenet.detect_imagenet(path)
    ):
        return official
    split_folders = find_split_folders(path)
    return ManifestReader(match_splits(split_folders), partial(read_folder, path, split_folders))


def _open_list_file(path: PathOrUrl, root: PathOrUrl | None, *, is_packed: bool = False) -> ManifestReader:
    """Open a list: all of it, unless it states splits."""
    table = read_list_file(path, root)
    if table.rows.is_confined and isinstance(path, Path):
        for file in (path, path.with_name(_CLASSES_FILE)):
            check_inside(file, path.parent)
    description = f"packed videos by their {base_name(path)}" if is_packed else f"{base_name(path)}, {table.format}"
    return ManifestReader(match_splits(table.split_names), partial(_build_manifest, table, [table], root, description))


def _open_split_lists(folder: PathOrUrl, lists: Mapping[str, PathOrUrl], root: PathOrUrl | None) -> ManifestReader:
    """Open a directory with a list for each split, by the split's name."""

    def read_manifest(split: Split | None) -> Manifest:
        path = select_split(folder, lists, split)
        tables = {each: read_list_file(each, root) for each in lists.values()}
        description = f"{base_name(path)}, {tables[path].format}"
        return _build_manifest(tables[path], list(tables.values()), root, description, split)

    return ManifestReader(match_splits(lists), read_manifest)


def _build_manifest(
    table: ParsedList, tables: list[ParsedList], root: PathOrUrl | None, description: str, split: Split | None
) -> Manifest:
    """Build the manifest of one list of a dataset; all lists number its classes, so that every split has the same."""
    path, split = table.path, split or "train"
    classes, classes_file = _read_classes(path, tables), join_path(parent_path(path), _CLASSES_FILE)
    order = {name: label for label, name in enumerate(classes)}
    if unknown := sorted(set(table.class_to_idx) - set(order)):
        raise InputError(f"{path} has the class {unknown[0]!r}, which is not in {classes_file}; add it there")
    names = SPLIT_ALIASES[split]
    has_splits = not set(table.split_names).isdisjoint(_SPLIT_ALIASES)
    if has_splits and set(table.split_names).isdisjoint(names):
        raise InputError(f"{path} has no row of the {split} split, only {', '.join(sorted(table.split_names))}")
    is_in_split = np.array([name in names or not has_splits for name in table.split_names], bool)
    mask = is_in_split[table.splits]
    label_map = np.array([order[name] for name in table.class_to_idx], np.int32) if table.class_to_idx else None
    rows, line_numbers = table.rows.select(mask, label_map), table.line_numbers[mask]
    indices, labels = rows.list_label_pairs()
    if (too_large := labels >= len(classes)).any():
        first = int(np.argmax(too_large))
        raise InputError(
            f"line {line_numbers[indices[first]]} of {path} has the label {labels[first]}, but {classes_file} names "
            f"only {len(classes)} classes (labels are counted from 0)"
        )
    rows.root = root or parent_path(path)
    description += f", its {split} split" if has_splits else ""
    multi_label = any(each.rows.multi_label for each in tables)
    return build_manifest(path, rows, classes, description, line_numbers=line_numbers, multi_label=multi_label)


def _read_classes(path: PathOrUrl, tables: list[ParsedList]) -> tuple[str, ...]:
    """Return the names of the classes: from `classes.txt` beside the list, or from the lists themselves."""
    tables = [table for table in tables if len(table.rows) and table.rows[0].label is not None]
    if not tables:
        return ()
    if is_file(classes_file := join_path(parent_path(path), _CLASSES_FILE)):
        return tuple(line for _, line in read_lines(classes_file))
    if any(table.class_to_idx for table in tables):
        return tuple(sorted({name for table in tables for name in table.class_to_idx}))
    names = {label: name for table in tables for label, name in table.idx_to_class.items()}
    num_classes = 1 + max(int(table.rows.list_label_pairs()[1].max()) for table in tables)
    return tuple(names.get(i, str(i)) for i in range(num_classes))
