"""What every data set becomes: rows that are all there, the names of their classes, and what it was taken for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import base_name, build_size_lookup
from vidstill.utils.types import InputError

Split = Literal["train", "val"]

SPLIT_ALIASES: Mapping[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "validation", "test")}
"""What files, folders and rows of a split are called; the first that is there is taken."""


@dataclass(frozen=True)
class Manifest:
    """A data set's videos.

    Args:
        classes: their names in the order of the labels; empty where there are no labels.
        description: in words, what the data set was taken for.
        fingerprint: of every row's relative path, label and file size, in order.
        num_missing: videos that an official list names and that are not there; they are in no row.
        multi_label: a clip may have several labels: one of the data set's clips has, in this split or another.
    """

    rows: VideoTable
    classes: tuple[str, ...]
    description: str
    source: PathOrUrl
    fingerprint: str
    num_missing: int = 0
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.rows)


@runtime_checkable
class ManifestReader(Protocol):
    """Something that was recognised as a data set."""

    def list_splits(self) -> tuple[Split, ...]:
        """Those that it has; none if it is one whole."""

    def read_manifest(self, split: Split | None) -> Manifest:
        """Its videos: of a split (None: of the train split, where there are splits), or all if it is one whole."""


def match_splits(names: Iterable[str]) -> tuple[Split, ...]:
    return tuple(split for split, known in SPLIT_ALIASES.items() if set(names).intersection(known))


def select_split(folder: PathOrUrl, split_paths: dict[str, PathOrUrl], split: Split | None) -> PathOrUrl:
    """The part of a data set that is a split's; None: the train split's."""
    for name in SPLIT_ALIASES[split or "train"]:
        if name in split_paths:
            return split_paths[name]
    raise InputError(
        f"{folder} has no {split or 'train'} split, only {', '.join(map(base_name, split_paths.values()))}"
    )


def build_manifest(
    source: PathOrUrl,
    rows: VideoTable,
    classes: tuple[str, ...],
    description: str,
    *,
    line_numbers: np.ndarray | None = None,
    num_missing: int = 0,
    multi_label: bool = False,
) -> Manifest:
    """The listing of rows whose files are all there.

    Args:
        line_numbers: where a list states them.
        num_missing: how many more an official list states.
        multi_label: whether a clip may have several labels.

    Raises:
        InputError: there are none, one is missing, or one lies outside the root.
    """
    for index in rows.find_rows_outside_root():
        raise InputError(
            f"line {index + 1 if line_numbers is None else line_numbers[index]} of {source} names {rows.get_path(index)}, "
            f"which lies outside {rows.root}; move the root up to it"
        )
    there = rows.resolve_files(build_size_lookup(rows.root))
    if not there.all():
        first = int(np.argmin(there))
        line = "" if line_numbers is None else f" (line {line_numbers[first]})"
        raise InputError(
            f"{source}: {(~there).sum()} of its {len(rows)} videos are missing, "
            f"first {join_path(rows.root, rows.get_path(first))}{line}; paths start at {rows.root}"
        )
    if not len(rows):
        raise InputError(f"no videos found in {source}; give a folder of videos, a folder for each class, or a list")
    if rows.num_broken:
        description += f", of whose rows {rows.num_broken} say that they do not decode"
    if multi_label:
        description += ", several labels a clip"
    return Manifest(rows, classes, description, source, rows.compute_fingerprint(), num_missing, multi_label)
