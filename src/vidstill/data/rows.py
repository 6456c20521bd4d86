"""The videos of a data set, any number of them: one row each, kept as letters and numbers rather than as objects."""

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Int32

from vidstill.data.sources import Piece, Place, below


@dataclass(frozen=True)
class Row:
    """One video: where it is, its class counted from 0, and what is known of it without opening it.

    Args:
        name: as the data set states it: a path relative to the root, or what the video was called before it was packed.
        frames, rate: as a list states them, a scan's or a pack's; None if it does not.
        wrong: why it does not decode, as a scan found; nothing if it does, or was not looked at.
    """

    source: Place | Piece
    label: int | None
    frames: int | None = None
    rate: float | None = None
    name: str = ""
    wrong: str = ""


class Rows(Sequence[Row]):
    """Rows at about 120 bytes each, whatever reads them: a Row is made when it is asked for."""

    def __init__(self, root: Place):
        self.root = root
        self._names = bytearray()
        self._ends = array("q", [0])
        self._labels = array("i")
        self._frames = array("i")
        self._rates = array("d")
        self._offsets = array("q")
        self._sizes = array("q")
        self._shard_of = array("i")  # -1: a file of its own
        self._shards: list[str] = []
        self._wrong: dict[int, str] = {}

    def add(
        self,
        name: str,
        label: int | None,
        frames: int | None = None,
        rate: float | None = None,
        piece: tuple[str, int, int] | None = None,
        wrong: str = "",
    ) -> None:
        """Appends a row.

        Args:
            name: the path as the data set states it, relative to the root.
            piece: the shard's path relative to the root, the offset and the size in it in bytes, of a packed video.
        """
        if wrong:
            self._wrong[len(self)] = wrong
        self._names += os.fsencode(name)
        self._ends.append(len(self._names))
        self._labels.append(-1 if label is None else label)
        self._frames.append(frames or 0)
        self._rates.append(rate or 0)
        shard, offset, size = piece or ("", 0, 0)
        if piece and shard not in self._shards[-1:]:  # a shard's rows stand together
            self._shards.append(shard)
        self._shard_of.append(len(self._shards) - 1 if piece else -1)
        self._offsets.append(offset)
        self._sizes.append(size)

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        label = self._labels[index]  # an IndexError where there is no such row
        index += len(self) if index < 0 else 0
        return Row(
            self._source(index),
            None if label < 0 else label,
            self._frames[index] or None,
            self._rates[index] or None,
            self.name(index),
            self._wrong.get(index, ""),
        )

    def name(self, index: int) -> str:
        index += len(self) if index < 0 else 0
        return os.fsdecode(bytes(self._names[self._ends[index] : self._ends[index + 1]]))

    @property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """Every row's label, -1 where it has none."""
        return np.array(self._labels, np.int32)

    def _source(self, index: int) -> Place | Piece:
        name, shard = self.name(index), self._shard_of[index]
        if shard < 0:
            return below(self.root, name)
        return Piece(below(self.root, self._shards[shard]), self._offsets[index], self._sizes[index], name)
