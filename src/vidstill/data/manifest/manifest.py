"""The manifest of a dataset: rows whose files all exist, the names of the classes, and a description."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool

from vidstill.data.manifest.table import VideoTable
from vidstill.data.storage.fetch import PathOrUrl, join_path
from vidstill.data.storage.filesystem import base_name, build_file_lookup
from vidstill.utils.types import InputError

Split = Literal["train", "val"]

SPLIT_ALIASES: Mapping[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "validation", "test")}
"""The names that files, directories and rows of a split may have; the first that exists is taken."""


@dataclass(frozen=True)
class Manifest:
    """The videos of a dataset."""

    rows: VideoTable
    classes: tuple[str, ...]  # names in the order of the labels; empty where there are no labels
    description: str  # what the dataset was recognized as
    source: PathOrUrl
    fingerprint: str  # SHA-256 of every row's relative path, labels and file size, in order
    num_missing: int = 0  # videos of an official list that do not exist; they are in no row
    multi_label: bool = False  # whether a clip of the dataset has several labels, in this split or another
    num_links_outside: int = 0  # files of a local dataset that are read through a link that leads out of its root
    first_link_outside: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def noun(self) -> Literal["image", "video"]:
        """What messages call a row: "image" if all files are images, else "video"."""
        return self.rows.get_noun()

    @cached_property
    def file_times(self) -> dict[str, Any]:
        """What `describe_changes` compares: when the newest file was modified, and the SHA-256 of all these times."""
        times = self.rows.column("mtime_ns")
        return {"newest_ns": int(times.max(initial=-1)), "sha256": hashlib.sha256(times.data).hexdigest()}

    def describe_changes(self, earlier: Mapping[str, Any]) -> str:
        """Return a message on files that were modified since a run began with these `file_times`, or "".

        Files that were not looked up (a list states their bytes, or they are behind a URL) are not compared.
        """
        if earlier == self.file_times:
            return ""
        newer = np.flatnonzero(self.rows.column("mtime_ns") > earlier["newest_ns"])
        which = f"{len(newer):,} of {len(self):,} {self.noun}s" if len(newer) else f"some {self.noun}s"
        first = f", first {join_path(self.rows.root, self.rows.get_path(int(newer[0])))}" if len(newer) else ""
        return f"{which} of {self.source} were modified since the run began{first}"

    def select(self, mask: Bool[np.ndarray, "n"], note: str) -> "Manifest":
        """Return a part of the rows, with a note on it in the description."""
        rows, description = self.rows.select(mask), f"{self.description}, {note}"
        fingerprint = rows.compute_fingerprint()
        return replace(self, rows=rows, description=description, fingerprint=fingerprint, num_missing=0)


class ManifestReader(NamedTuple):
    """A recognized dataset."""

    splits: tuple[Split, ...]  # none if it is not split
    read_manifest: Callable[[Split | None], Manifest]  # of a split (None: train), or all of a dataset without splits
    num_folds: int = 1  # official ways to split it


def match_splits(names: Iterable[str]) -> tuple[Split, ...]:
    """Return the splits that have one of the names."""
    return tuple(split for split, aliases in SPLIT_ALIASES.items() if set(names).intersection(aliases))


def select_split(folder: PathOrUrl, split_paths: Mapping[str, PathOrUrl], split: Split | None) -> PathOrUrl:
    """Return the path of a split, None for the train split, or raise an InputError if there is none."""
    for name in SPLIT_ALIASES[split or "train"]:
        if name in split_paths:
            return split_paths[name]
    names = ", ".join(map(base_name, split_paths.values()))
    hint = f", only {names}" if names else "; give a directory with train and val in it, as lists or as directories"
    raise InputError(f"{folder} has no {split or 'train'} split{hint}")


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
    """Build the manifest of rows whose files all exist.

    Args:
        line_numbers: The lines of the rows in a list, for messages; None: a directory was listed, so that a file that
            does not exist is a link to nothing, and is reported when it is read.
        num_missing, multi_label: As in `Manifest`.

    Raises:
        InputError: There are no rows, a file is missing, a path leads out of the root, or a link does from a pack.
    """
    if (index := rows.find_row_outside_root()) is not None:
        line_number = index + 1 if line_numbers is None else line_numbers[index]
        raise InputError(
            f"line {line_number} of {source} names {rows.get_path(index)}, which is outside {rows.root}; put the "
            "list, or its root, into a directory above all its files"
        )
    rows.check_links()
    outside = list[str]()
    exists = rows.resolve_files(build_file_lookup(rows.root, outside), may_be_missing=line_numbers is None)
    if not exists.all():
        first = int(np.argmin(exists))
        line = "" if line_numbers is None else f" (line {line_numbers[first]})"
        raise InputError(
            f"{source}: {(~exists).sum()} of its {len(rows)} {rows.get_noun()}s are missing, "
            f"first {join_path(rows.root, rows.get_path(first))}{line}; paths start at {rows.root}"
        )
    if not len(rows):
        raise InputError(
            f"no videos found in {source}; give a directory of videos, a directory for each class, or a list"
        )
    if len(rows.errors):
        description += f", of whose rows {len(rows.errors)} say that they do not decode"
    if multi_label:
        description += ", several labels a clip"
    first_outside = outside[0] if outside else ""
    if outside:
        description += f", of whose files {len(outside):,} lie outside {rows.root} behind links, first {first_outside}"
    fingerprint = rows.compute_fingerprint()
    return Manifest(
        rows, classes, description, source, fingerprint, num_missing, multi_label, len(outside), first_outside
    )
