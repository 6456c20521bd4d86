"""Datasets that are lists of videos: the rows of each split, and the numbers and names of the classes."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from vidstill.data.manifest.list_formats import read_list_file
from vidstill.data.manifest.manifest import (
    SPLIT_ALIASES,
    Manifest,
    ManifestReader,
    Split,
    build_manifest,
    match_splits,
    select_split,
)
from vidstill.data.manifest.parsed import ParsedList
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import base_name, is_file, parent_path, read_lines
from vidstill.utils.types import InputError

_SPLIT_ALIASES = frozenset(name for names in SPLIT_ALIASES.values() for name in names)


def open_list_file(path: PathOrUrl, root: PathOrUrl | None, *, is_packed: bool = False) -> ManifestReader:
    """Open a list: all of it, unless it states splits.

    Args:
        root: Where its paths start, if not in its own directory.
        is_packed: Whether it is the index of packed videos.
    """
    table = read_list_file(path)
    description = f"packed videos by their {base_name(path)}" if is_packed else f"{base_name(path)}, {table.format}"
    return ManifestReader(match_splits(table.split_names), partial(_build_manifest, table, [table], root, description))


def open_split_lists(folder: PathOrUrl, lists: Mapping[str, PathOrUrl], root: PathOrUrl | None) -> ManifestReader:
    """Open a directory with a list for each split.

    Args:
        lists: The lists, by the name of the split.
        root: Where their paths start, if not in their own directory.
    """

    def read_manifest(split: Split | None) -> Manifest:
        path = select_split(folder, lists, split)
        tables = {each: read_list_file(each) for each in lists.values()}
        description = f"{base_name(path)}, {tables[path].format}"
        return _build_manifest(tables[path], list(tables.values()), root, description, split)

    return ManifestReader(match_splits(lists), read_manifest)


def _build_manifest(
    table: ParsedList, tables: list[ParsedList], root: PathOrUrl | None, description: str, split: Split | None
) -> Manifest:
    """Build the manifest of one list of a dataset; all lists number its classes, so that every split has the same."""
    path, split = table.path, split or "train"
    classes, classes_file = _read_classes(path, tables), join_path(parent_path(path), "classes.txt")
    order = {name: label for label, name in enumerate(classes)}
    if unknown := sorted(set(table.class_to_idx) - set(order)):
        raise InputError(f"{path} has the class {unknown[0]!r}, which is not in {classes_file}; add it there")
    names = SPLIT_ALIASES[split]
    has_splits = not _SPLIT_ALIASES.isdisjoint(table.split_names)
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
    if is_file(classes_file := join_path(parent_path(path), "classes.txt")):
        return tuple(line for _, line in read_lines(classes_file))
    if any(table.class_to_idx for table in tables):
        return tuple(sorted({name for table in tables for name in table.class_to_idx}))
    names = {label: name for table in tables for label, name in table.idx_to_class.items()}
    num_classes = 1 + max(int(table.rows.list_label_pairs()[1].max()) for table in tables)
    return tuple(names.get(i, str(i)) for i in range(num_classes))
