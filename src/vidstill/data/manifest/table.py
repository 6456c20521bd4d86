"""The videos of a data set, any number of them: one row each, kept as letters and numbers rather than as objects."""

import hashlib
import itertools
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from vidstill.data.storage.fetch import Piece, Place, below


@dataclass(frozen=True)
class Row:
    """One video: where it is, its class counted from 0, and what is known of it without opening it.

    Args:
        label: its only label, or the first that is stated of several; None: it has none.
        name: as the data set states it: a path relative to the root, or what the video was called before it was packed.
        frames, rate: as a list states them, a scan's or a pack's; None if it does not.
        wrong: why it does not decode, as a scan found; nothing if it does, or was not looked at.
        more: the labels after the first, where a clip has several.
    """

    source: Place | Piece
    label: int | None
    frames: int | None = None
    rate: float | None = None
    name: str = ""
    wrong: str = ""
    more: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[int, ...]:
        """All of them, as they are stated; each once."""
        return () if self.label is None else (self.label, *self.more)


class Rows(Sequence[Row]):
    """Rows at about 120 bytes each, whatever reads them: a Row is made when it is asked for.

    A label after a row's first takes 12 bytes more.
    """

    def __init__(self, root: Place):
        self.root = root
        self._names = bytearray()
        self._ends = array("q", [0])
        self._labels = array("i")  # the first; -1: none
        self._more = array("i")  # the labels after a row's first
        self._more_of = array("q")  # whose they are, ascending
        self._frames = array("i")  # 0: not stated, as the rates
        self._rates = array("d")
        self._sizes = array("q")  # -1: not looked up yet
        self._shards: list[str] = []
        self._numbers: dict[str, int] = {}  # a shard's place among them
        self._shard_of = array("i")  # -1: a file of its own, as are the rows behind the last packed one
        self._offsets = array("q")
        self._wrong: dict[int, str] = {}

    def add(
        self,
        name: str,
        label: int | None,
        frames: int | None = None,
        rate: float | None = None,
        piece: tuple[str, int, int] | None = None,
        wrong: str = "",
        size: int | None = None,
        more: Sequence[int] = (),
    ) -> None:
        """Appends a row.

        Args:
            name: the path as the data set states it, relative to the root.
            piece: the shard's path relative to the root, the offset and the size in it in bytes, of a packed video.
            size: of a file of its own, in bytes, where it is stated.
            more: labels after the first.
        """
        letters = name.encode("utf-8", "surrogateescape")  # as the file system's names are
        if wrong:
            self._wrong[len(self)] = wrong
        if piece is not None:
            shard, offset, size = piece
            self._add_piece(shard, offset)
        if more:
            self._more.extend(more)
            self._more_of.extend([len(self)] * len(more))
        self._names += letters
        self._ends.append(len(self._names))
        self._labels.append(-1 if label is None else label)
        self._frames.append(frames or 0)
        self._rates.append(rate or 0)
        self._sizes.append(-1 if size is None else size)

    def _add_piece(self, shard: str, offset: int) -> None:
        number = self._numbers.setdefault(shard, len(self._shards))
        if number == len(self._shards):
            self._shards.append(shard)
        if len(self._shard_of) < len(self):
            self._pad_pieces()
        self._shard_of.append(number)
        self._offsets.append(offset)

    def _pad_pieces(self) -> None:
        own = len(self) - len(self._shard_of)
        self._shard_of.extend([-1] * own)
        self._offsets.extend([0] * own)

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
            self._more_labels(index) if self._more else (),
        )

    def _more_labels(self, index: int) -> tuple[int, ...]:
        return tuple(self._more[bisect_left(self._more_of, index) : bisect_left(self._more_of, index + 1)])

    def name(self, index: int) -> str:
        index += len(self) if index < 0 else 0
        return self._names[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")

    def place(self, index: int) -> str:
        """The path of a row's file, or of its shard, as the data set states it."""
        packed = index < len(self._shard_of) and self._shard_of[index] >= 0
        return self._shards[self._shard_of[index]] if packed else self.name(index)

    @property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """Every row's label, the first where it has several, -1 where it has none."""
        return np.array(self._labels, np.int32)

    @property
    def several(self) -> bool:
        """Whether any row has more than one label."""
        return bool(self._more)

    def pairs(self) -> tuple[Int64[np.ndarray, "p"], Int32[np.ndarray, "p"]]:
        """Every label of every row: the row, and the label."""
        labels = self.labels
        first = np.flatnonzero(labels >= 0)
        return np.append(first, np.array(self._more_of, np.int64)), np.append(
            labels[first], np.array(self._more, np.int32)
        )

    def hot(self, index: int, classes: int) -> Float32[np.ndarray, "classes"]:
        """1 for each of a row's labels, 0 for the other classes."""
        hot = np.zeros(classes, np.float32)
        hot[list(self[index].labels)] = 1
        return hot

    @property
    def wrong(self) -> int:
        """How many are stated not to decode."""
        return len(self._wrong)

    def _source(self, index: int) -> Place | Piece:
        place = below(self.root, self.place(index))
        if index >= len(self._shard_of) or self._shard_of[index] < 0:
            return place
        return Piece(place, self._offsets[index], self._sizes[index], self.name(index))

    def strays(self) -> Iterator[int]:
        """The rows whose paths lead out of the root, upwards; absolute ones are stated on purpose, as lists do."""
        if b".." not in self._names and not any(".." in shard for shard in self._shards):
            return
        for index in range(len(self)):
            place = self.place(index)
            if ".." in place and "://" not in place and os.path.normpath(place).split(os.sep)[0] == "..":
                yield index

    def look_up(self, size_of: Callable[[str], int | None]) -> Bool[np.ndarray, "n"]:
        """Finds the files whose sizes are not stated; says of every row whether it is there.

        A bare name may stand for an mp4. Where a size is not stated, a stated number of frames is taken for a folder of
        frames only: a video's is known better by its packets.

        Args:
            size_of: gives a file's size in bytes, 0 for a folder, None where there is nothing.
        """
        there = np.ones(len(self), bool)
        names: dict[int, str] = {}
        for index, stated in enumerate(self._sizes):
            if stated >= 0:
                continue
            name = self.name(index)
            size = size_of(name)
            if size is None and "." not in name.rpartition("/")[2]:
                names[index] = f"{name}.mp4"
                size = size_of(names[index])
            if size is None:
                there[index] = False
            else:
                self._sizes[index] = size
                if size:
                    self._frames[index], self._rates[index] = 0, 0
        if names:
            self._rename({index: name for index, name in names.items() if there[index]})
        return there

    def _rename(self, names: Mapping[int, str]) -> None:
        renamed = [names.get(index) or self.name(index) for index in range(len(self))]
        letters = [name.encode("utf-8", "surrogateescape") for name in renamed]
        self._names = bytearray(b"".join(letters))
        self._ends = array("q", itertools.accumulate(map(len, letters), initial=0))

    def taken(self, kept: Bool[np.ndarray, "n"], numbers: Int32[np.ndarray, "m"] | None = None) -> "Rows":
        """A copy of some of the rows.

        Args:
            numbers: for each label its new one, where all rows have labels; None: they stay.
        """
        rows = Rows(self.root)
        ends = np.array(self._ends)
        lengths = ends[1:] - ends[:-1]
        rows._names = bytearray(np.array(self._names)[np.repeat(kept, lengths)])
        rows._ends.frombytes(np.cumsum(lengths[kept]).tobytes())
        labels, more, more_of = self.labels, np.array(self._more, np.int32), np.array(self._more_of, np.int64)
        if numbers is not None:
            labels, more = numbers[labels], numbers[more]
        rows._labels.frombytes(labels[kept].tobytes())
        rows._more.frombytes(more[kept[more_of]].tobytes())
        places = np.cumsum(kept) - 1
        rows._more_of.frombytes(places[more_of[kept[more_of]]].tobytes())
        for ours, theirs in ((rows._frames, self._frames), (rows._rates, self._rates), (rows._sizes, self._sizes)):
            ours.frombytes(np.array(theirs)[kept].tobytes())
        if self._shards:
            self._pad_pieces()
            rows._shards, rows._numbers = list(self._shards), dict(self._numbers)
            rows._shard_of.frombytes(np.array(self._shard_of)[kept].tobytes())
            rows._offsets.frombytes(np.array(self._offsets)[kept].tobytes())
        rows._wrong = {int(places[index]): wrong for index, wrong in self._wrong.items() if kept[index]}
        return rows

    def fingerprint(self) -> str:
        """Of every row's path, labels and file size, in order."""
        digest = hashlib.sha256()
        for column in (self._names, self._ends, self._labels, self._sizes, self._more_of, self._more):
            digest.update(column)
        return digest.hexdigest()
