"""What every data set becomes: rows that are all there, the names of their classes, and what it was taken for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from vidstill.data.manifest.table import Rows
from vidstill.data.storage.fetch import Place, below
from vidstill.data.storage.filesystem import last_name, sizes_below
from vidstill.utils.types import InputError

Split = Literal["train", "val"]

SPLIT_NAMES: Mapping[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "validation", "test")}
"""What files, folders and rows of a split are called; the first that is there is taken."""


@dataclass(frozen=True)
class Listing:
    """A data set's videos.

    Args:
        classes: their names in the order of the labels; empty where there are no labels.
        kind: in words, what the data set was taken for.
        fingerprint: of every row's relative path, label and file size, in order.
        missing: videos that an official list names and that are not there; they are in no row.
        several: a clip may have several labels: one of the data set's clips has, in this split or another.
    """

    rows: Rows
    classes: tuple[str, ...]
    kind: str
    source: Place
    fingerprint: str
    missing: int = 0
    several: bool = False

    def __len__(self) -> int:
        return len(self.rows)


@runtime_checkable
class DataSet(Protocol):
    """Something that was recognised as a data set."""

    def splits(self) -> tuple[Split, ...]:
        """Those that it has; none if it is one whole."""

    def listing(self, split: Split | None) -> Listing:
        """Its videos: of a split (None: of the train split, where there are splits), or all if it is one whole."""


def splits_among(names: Iterable[str]) -> tuple[Split, ...]:
    return tuple(split for split, known in SPLIT_NAMES.items() if set(names).intersection(known))


def chosen(folder: Place, parts: dict[str, Place], split: Split | None) -> Place:
    """The part of a data set that is a split's; None: the train split's."""
    for name in SPLIT_NAMES[split or "train"]:
        if name in parts:
            return parts[name]
    raise InputError(f"{folder} has no {split or 'train'} split, only {', '.join(map(last_name, parts.values()))}")


def make_listing(
    source: Place,
    rows: Rows,
    classes: tuple[str, ...],
    kind: str,
    *,
    lines: Sequence[int] = (),
    missing: int = 0,
    several: bool = False,
) -> Listing:
    """The listing of rows whose files are all there.

    Args:
        lines: where a list states them.
        missing: how many more an official list states.
        several: whether a clip may have several labels.

    Raises:
        InputError: there are none, one is missing, or one lies outside the root.
    """
    for index in rows.strays():
        raise InputError(
            f"line {lines[index] if lines else index + 1} of {source} names {rows.place(index)}, "
            f"which lies outside {rows.root}; move the root up to it"
        )
    there = rows.look_up(sizes_below(rows.root))
    if not there.all():
        first = int(np.argmin(there))
        line = f" (line {lines[first]})" if lines else ""
        raise InputError(
            f"{source}: {(~there).sum()} of its {len(rows)} videos are missing, "
            f"first {below(rows.root, rows.place(first))}{line}; paths start at {rows.root}"
        )
    if not len(rows):
        raise InputError(f"no videos found in {source}; give a folder of videos, a folder for each class, or a list")
    if rows.wrong:
        kind += f", of whose rows {rows.wrong} say that they do not decode"
    if several:
        kind += ", several labels a clip"
    return Listing(rows, classes, kind, source, rows.fingerprint(), missing, several)
