"""Hold out a part of a dataset to validate or test on: of each class the same share, whole groups on one side."""

import math
import os
import re
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from vidstill.data.manifest.manifest import Manifest
from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import join_path
from vidstill.utils.rng import numpy_rng
from vidstill.utils.text import pluralize
from vidstill.utils.types import InputError

SplitBy = Literal["clip", "group", "directory"]
"""Which videos stay together: only the rows of one file; those of a person, place or recording; of a directory."""

_MAX_VISITS = 200_000  # of videos or groups, in all random orders that are tried
_MISSING_CLASS = 1e6  # what a class that one side lacks counts, beside squared relative differences of at most 1
_RECORDING = re.compile(r"(.+_g\d+)_c\d+")  # the clips of a group of UCF101: v_PushUps_g01_c01, v_PushUps_g01_c02


def hold_out(manifest: Manifest, share: float, *, by: SplitBy = "clip", seed: int = 0) -> tuple[Manifest, Manifest]:
    """Split a dataset in two, stratified by class: the rest, and the part that is held out.

    Each class has at least one video on both sides if its videos and groups allow it. The split depends on nothing but
    the rows and the arguments.

    Args:
        share: Share of the videos that is held out, in (0, 1).
        by: Which videos stay together.
        seed: Random seed.

    Raises:
        InputError: There are no such groups, or one side would be empty.
    """
    if not 0 < share < 1:
        raise InputError(f"a share of {share} cannot be held out; give --val-share between 0 and 1, such as 0.2")
    units = np.unique(_list_groups(manifest, by), return_inverse=True)[1]
    is_held_out = _choose_units(units, manifest, share, seed)[units]
    if is_held_out.all() or not is_held_out.any():
        groups = pluralize(len(np.unique(units)), "file" if by == "clip" else by)
        mend = "" if by == "clip" else f", or split by clip: vidstill data split {manifest.source} --out DIR --by clip"
        raise InputError(
            f"{manifest.source} cannot be split by {by}: its {groups} would be on one side; add others{mend}"
        )
    percent = f"{100 * share:g} %"
    return (
        manifest.select(~is_held_out, f"without the {percent} that are held out"),
        manifest.select(is_held_out, f"the {percent} that are held out"),
    )


def list_folds(manifest: Manifest, count: int) -> list[tuple[Manifest, Manifest]]:
    """Split a dataset for cross-validation, stratified by class: of each fold the rest, and the part that is held out.

    Groups that the rows state stay together. Where they state none, or fewer than folds, a class is cut in the order of
    its files' names, since neighbours are often of one recording. The folds depend on nothing but the rows.

    Args:
        count: Folds; each video is held out in one of them, as far as there are enough.
    """
    is_grouped = read_groups(manifest.rows) is not None and count_groups(manifest, "group") >= count
    folds = _choose_group_folds(manifest, count) if is_grouped else _choose_name_folds(manifest, count)
    return [
        (manifest.select(folds != fold, f"without fold {fold + 1}"), manifest.select(folds == fold, f"fold {fold + 1}"))
        for fold in np.unique(folds).tolist()
    ]


def _choose_group_folds(manifest: Manifest, count: int) -> Int64[np.ndarray, "n"]:
    units = np.unique(_list_groups(manifest, "group"), return_inverse=True)[1]
    folds = np.zeros(len(units), np.int64)
    for fold in range(1, count):  # each takes its share of what the folds before have left
        rest = np.flatnonzero(folds == 0)
        others = np.unique(units[rest], return_inverse=True)[1]
        left = manifest.select(folds == 0, "")
        folds[rest[_choose_units(others, left, 1 / (count - fold + 1), seed=0)[others]]] = fold
    return folds


def _choose_name_folds(manifest: Manifest, count: int) -> Int64[np.ndarray, "n"]:
    rows, labels = manifest.rows.list_label_pairs()
    first_label = dict(zip(rows[::-1].tolist(), labels[::-1].tolist(), strict=True))
    _, first_row, file_of_row = np.unique(identify_files(manifest.rows), return_index=True, return_inverse=True)
    labels = np.array([first_label.get(row, -1) for row in first_row.tolist()])
    fold_of_file = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        files = np.flatnonzero(labels == label)
        fold_of_file[files] = np.arange(len(files)) * count // len(files)
    return fold_of_file[file_of_row]


def count_groups(manifest: Manifest, by: SplitBy) -> int:
    """Return the number of files, groups or directories that the rows are of."""
    return len(set(_list_groups(manifest, by)))


def list_missing_classes(*parts: Manifest) -> list[str]:
    """Return the classes that have videos in one part and none in another."""
    counts = [np.bincount(part.rows.list_label_pairs()[1], minlength=len(part.classes)) for part in parts]
    return [parts[0].classes[label] for label in np.flatnonzero(np.any(counts, 0) & ~np.all(counts, 0))]


def identify_files(rows: VideoTable) -> list[str]:
    """Return the file of each row, or its shard and offset, however a list spells it; local links are followed."""
    real_directory = cache(os.path.realpath)  # much slower than `islink`
    root, is_remote = str(rows.root), isinstance(rows.root, str)
    files = []
    for index, offset in enumerate(np.where(rows.column("shard") < 0, -1, rows.column("offset")).tolist()):
        path = rows.get_path(index)
        if is_remote or "://" in path:
            file = str(join_path(rows.root, path))
        else:
            full = os.path.join(root, path).rstrip("/")
            directory, _, name = full.rpartition("/")
            file = os.path.realpath(full) if os.path.islink(full) else f"{real_directory(directory)}/{name}"
        files.append(file if offset < 0 else f"{file}:{offset}")
    return files


def read_groups(rows: VideoTable) -> list[str] | None:
    """Return the group that each row states, "" for none, or that names such as UCF101's do; None if no row does."""
    indices = rows.column("group").tolist()
    if max(indices, default=-1) >= 0:
        return ["" if index < 0 else rows.groups[index] for index in indices]
    matches = [_RECORDING.match(rows.get_name(index).rpartition("/")[2]) for index in range(len(rows))]
    return [match[1] for match in matches if match] if all(matches) else None


def _list_groups(manifest: Manifest, by: SplitBy) -> list[str]:
    """Return the group of each row; a row that states none is alone with those of its file.

    Raises:
        InputError: No row states a group, or a file is in two.
    """
    files, rows = identify_files(manifest.rows), manifest.rows
    if by == "clip":
        return files
    if by == "directory":
        return [file.rpartition("/")[0] for file in files]
    groups = read_groups(rows)
    if groups is None:
        raise InputError(
            f"{manifest.source} states no groups; give a table with a column `group` (the person, place or recording "
            "of each row), or split by directory or clip"
        )
    group_of_file: dict[str, str] = {}
    for index, (file, group) in enumerate(zip(files, groups, strict=True)):
        if group and group != (other := group_of_file.setdefault(file, group)):
            raise InputError(f"{rows.get_name(index)} is in the groups {other!r} and {group!r}; give it one")
    return [group_of_file.get(file, f"/{file}") for file in files]


def _choose_units(units: np.ndarray, manifest: Manifest, share: float, seed: int) -> Bool[np.ndarray, "units"]:
    """Choose the units that are held out: of several random orders, the one whose class counts are nearest to `share`.

    In each order, a unit is held out if that brings the counts of its classes nearer.
    """
    rows, labels = manifest.rows.list_label_pairs()
    if not len(labels):  # no labels: one class of all
        rows, labels = np.arange(len(units)), np.zeros(len(units), int)
    costs = [_compute_costs(total, share) for total in np.bincount(labels).tolist()]
    num_units = int(units.max()) + 1
    members: list[list[tuple[int, int]]] = [[] for _ in range(num_units)]  # of each unit: class, number of videos
    pairs, counts = np.unique(np.stack([units[rows], labels]), axis=1, return_counts=True)
    for unit, label, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
        members[unit].append((label, count))

    best, lowest = np.zeros(num_units, bool), math.inf
    rng = numpy_rng(seed, "hold out")
    for _ in range(max(1, min(100, _MAX_VISITS // num_units))):
        is_held_out, num_held_out = np.zeros(num_units, bool), [0] * len(costs)
        for unit in rng.permutation(num_units).tolist():
            before = sum(costs[label][num_held_out[label]] for label, _ in members[unit])
            if sum(costs[label][num_held_out[label] + count] for label, count in members[unit]) < before:
                is_held_out[unit] = True
                for label, count in members[unit]:
                    num_held_out[label] += count
        if (cost := sum(of_class[number] for of_class, number in zip(costs, num_held_out, strict=True))) < lowest:
            best, lowest = is_held_out, cost
        if not lowest:
            break
    return best


def _compute_costs(total: int, share: float) -> list[float]:
    """Return the cost of holding out 0, 1, 2 … of the videos of a class: how far it is from the share."""
    target = min(max(round(share * total), 1), total - 1)
    costs = [((held - target) / total) ** 2 for held in range(total + 1)] if total else [0.0]
    if total:
        costs[0] += _MISSING_CLASS
        costs[total] += _MISSING_CLASS
    return costs
