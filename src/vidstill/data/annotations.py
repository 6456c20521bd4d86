"""Finds a data set's videos and labels: folders, `path label` lists and CSV tables become rows."""

import hashlib
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np

from vidstill.data.lists import Entry, read_list
from vidstill.data.video import PICTURES, VIDEOS
from vidstill.types import InputError

Split = Literal["train", "val"]

_SPLIT_NAMES = {"train": ("train",), "val": ("val", "validation", "test")}  # MVD tests on val, the others on its copy


@dataclass(frozen=True)
class Row:
    """One video: where it is, its class counted from 0, and the number of frames that a list states."""

    path: Path
    label: int | None
    frames: int | None = None


class Rows(Sequence[Row]):
    """Any number of rows at the price of their letters: a Row is made when it is asked for."""

    def __init__(self, root: Path, entries: Iterator[Entry]):
        self.root = root
        names, ends, labels, frames = bytearray(), array("q", [0]), array("i"), array("i")
        for entry in entries:
            names += os.fsencode(entry.path)
            ends.append(len(names))
            labels.append(-1 if entry.label is None else entry.label)
            frames.append(entry.frames or 0)
        self._names, self._ends = bytes(names), np.array(ends)
        self.labels = np.array(labels, np.int32)
        self._frames = np.array(frames, np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        label, frames = int(self.labels[index]), int(self._frames[index])  # raises where there is no such row
        path = self.root / self.name(index)
        return Row(path, None if label < 0 else label, frames or None)

    def name(self, index: int) -> str:
        """The path as the data set states it, relative to the root."""
        index = index + len(self) if index < 0 else index
        return os.fsdecode(self._names[self._ends[index] : self._ends[index + 1]])


@dataclass(frozen=True)
class Listing:
    """A data set's videos.

    Args:
        classes: their names in the order of the labels; empty if there are no labels.
        kind: in words, what the data set was taken for.
        fingerprint: of every relative path, label and file size, in order.
    """

    rows: Rows
    classes: tuple[str, ...]
    kind: str
    source: Path
    fingerprint: str


def read_listing(path: Path, *, split: Split | None = None, root: Path | None = None) -> Listing:
    """The videos of a folder or of a list; what it is, is detected and said in the listing's `kind`.

    A folder may hold `train.csv` and `val.csv` (`path label` lines, or a header), or `train` and `val` folders, or a
    folder for each class, or videos. A file is one video, or a list.

    Args:
        split: the part that is wanted. None takes the train split where there are splits.
        root: the folder that a list's paths are relative to, if it is not the list's own.

    Raises:
        InputError: there is no such data, a line of a list cannot be read, or a video that it names is missing.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give a folder of videos or a list of them")
    if path.is_file():
        if path.suffix.lower() in VIDEOS | PICTURES:
            return _listing(path.parent, [Entry(path.name)], (), "one video", path)
        return _from_lists(path, [path], split, root)
    lists = _named(path, [f"{name}.csv" for names in _SPLIT_NAMES.values() for name in names])
    if lists:
        return _from_lists(_of_split(path, lists, split), lists, split, root)
    parts = [part for part in _named(path, [n for names in _SPLIT_NAMES.values() for n in names]) if part.is_dir()]
    if parts:
        return _from_folder(_of_split(path, parts, split), parts, f" ({split or 'train'} split)")
    if split == "val":
        raise InputError(f"{path} has no val split; give a folder with train and val in it, as lists or as folders")
    return _from_folder(path, [path], "")


def _named(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).exists()]


def _of_split(path: Path, parts: Sequence[Path], split: Split | None) -> Path:
    for name in _SPLIT_NAMES[split or "train"]:
        for part in parts:
            if part.stem == name:
                return part
    raise InputError(f"{path} has no {split or 'train'} split, only {', '.join(part.name for part in parts)}")


def _from_lists(chosen: Path, lists: Sequence[Path], split: Split | None, root: Path | None) -> Listing:
    """One list of a data set; the others only help to name its classes, so that all splits number them alike."""
    tables = {path: read_list(path) for path in lists}
    table = tables[chosen]
    classes = _classes_of(chosen, tables.values())
    root = root or chosen.parent
    ...
