"""The videos of a data set, any number of them: one row each, kept as letters and numbers rather than as objects."""

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import Int32


@dataclass(frozen=True)
class Row:
    """One video: where it is, its class counted from 0, and the number of frames that a list states."""

    path: Path
    label: int | None
    frames: int | None = None


class Rows(Sequence[Row]):
    """Rows at about 80 bytes each, whatever reads them: a Row is made when it is asked for."""

    def __init__(self, root: Path):
        self.root = root
        self._names = bytearray()
        self._ends = array("q", [0])
        self._labels = array("i")
        self._frames = array("i")

    def add(self, name: str, label: int | None, frames: int | None = None) -> None:
        """Appends a row; its name is the path as the data set states it, relative to the root."""
        self._names += os.fsencode(name)
        self._ends.append(len(self._names))
        self._labels.append(-1 if label is None else label)
        self._frames.append(frames or 0)

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        label, frames = self._labels[index], self._frames[index]  # an IndexError where there is no such row
        return Row(self.root / self.name(index), None if label < 0 else label, frames or None)

    def name(self, index: int) -> str:
        index += len(self) if index < 0 else 0
        return os.fsdecode(bytes(self._names[self._ends[index] : self._ends[index + 1]]))

    @property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """Every row's label, -1 where it has none."""
        return np.array(self._labels, np.int32)
