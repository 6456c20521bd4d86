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

from vidstill.data.storage.fetch import PathOrUrl, ShardMember, join_path


@dataclass(frozen=True)
class VideoRow:
    """One video: where it is, its class counted from 0, and what is known of it without opening it.

    Args:
        label: its only label, or the first that is stated of several; None: it has none.
        name: as the data set states it: a path relative to the root, or what the video was called before it was packed.
        frames, rate: as a list states them, a scan's or a pack's; None if it does not.
        error: why it does not decode, as a scan found; nothing if it does, or was not looked at.
        extra_labels: the labels after the first, where a clip has several.
    """

    source: PathOrUrl | ShardMember
    label: int | None
    frames: int | None = None
    frame_rate: float | None = None
    name: str = ""
    error: str = ""
    extra_labels: tuple[int, ...] = ()

    @property
    def labels(self) -> tuple[int, ...]:
        """All of them, as they are stated; each once."""
        return () if self.label is None else (self.label, *self.extra_labels)


class VideoTable(Sequence[VideoRow]):
    """Rows at about 120 bytes each, whatever reads them: a Row is made when it is asked for.

    A label after a row's first takes 12 bytes more.
    """

    def __init__(self, root: PathOrUrl):
        self.root = root
        self._name_bytes = bytearray()
        self._name_ends = array("q", [0])
        self._labels = array("i")  # the first; -1: none
        self._extra_labels = array("i")  # the labels after a row's first
        self._extra_label_rows = array("q")  # whose they are, ascending
        self._frames = array("i")  # 0: not stated, as the rates
        self._frame_rates = array("d")
        self._file_sizes = array("q")  # -1: not looked up yet
        self._shards: list[str] = []
        self._shard_to_idx: dict[str, int] = {}  # a shard's place among them
        self._row_shards = array("i")  # -1: a file of its own, as are the rows behind the last packed one
        self._offsets = array("q")
        self._errors: dict[int, str] = {}

    def append(
        self,
        name: str,
        label: int | None,
        frames: int | None = None,
        frame_rate: float | None = None,
        member: tuple[str, int, int] | None = None,
        error: str = "",
        file_size: int | None = None,
        extra_labels: Sequence[int] = (),
    ) -> None:
        """Appends a row.

        Args:
            name: the path as the data set states it, relative to the root.
            member: the shard's path relative to the root, the offset and the size in it in bytes, of a packed video.
            file_size: of a file of its own, in bytes, where it is stated.
            extra_labels: labels after the first.
        """
        letters = name.encode("utf-8", "surrogateescape")  # as the file system's names are
        if error:
            self._errors[len(self)] = error
        if member is not None:
            shard, offset, file_size = member
            self._append_member(shard, offset)
        if extra_labels:
            self._extra_labels.extend(extra_labels)
            self._extra_label_rows.extend([len(self)] * len(extra_labels))
        self._name_bytes += letters
        self._name_ends.append(len(self._name_bytes))
        self._labels.append(-1 if label is None else label)
        self._frames.append(frames or 0)
        self._frame_rates.append(frame_rate or 0)
        self._file_sizes.append(-1 if file_size is None else file_size)

    def _append_member(self, shard: str, offset: int) -> None:
        number = self._shard_to_idx.setdefault(shard, len(self._shards))
        if number == len(self._shards):
            self._shards.append(shard)
        if len(self._row_shards) < len(self):
            self._pad_members()
        self._row_shards.append(number)
        self._offsets.append(offset)

    def _pad_members(self) -> None:
        own = len(self) - len(self._row_shards)
        self._row_shards.extend([-1] * own)
        self._offsets.extend([0] * own)

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, index: int) -> VideoRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[VideoRow]: ...
    def __getitem__(self, index: int | slice) -> VideoRow | list[VideoRow]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        label = self._labels[index]  # an IndexError where there is no such row
        index += len(self) if index < 0 else 0
        return VideoRow(
            self._get_source(index),
            None if label < 0 else label,
            self._frames[index] or None,
            self._frame_rates[index] or None,
            self.get_name(index),
            self._errors.get(index, ""),
            self._get_extra_labels(index) if self._extra_labels else (),
        )

    def _get_extra_labels(self, index: int) -> tuple[int, ...]:
        return tuple(
            self._extra_labels[
                bisect_left(self._extra_label_rows, index) : bisect_left(self._extra_label_rows, index + 1)
            ]
        )

    def get_name(self, index: int) -> str:
        index += len(self) if index < 0 else 0
        return self._name_bytes[self._name_ends[index] : self._name_ends[index + 1]].decode("utf-8", "surrogateescape")

    def get_path(self, index: int) -> str:
        """The path of a row's file, or of its shard, as the data set states it."""
        packed = index < len(self._row_shards) and self._row_shards[index] >= 0
        return self._shards[self._row_shards[index]] if packed else self.get_name(index)

    @property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """Every row's label, the first where it has several, -1 where it has none."""
        return np.array(self._labels, np.int32)

    @property
    def multi_label(self) -> bool:
        """Whether any row has more than one label."""
        return bool(self._extra_labels)

    def list_label_pairs(self) -> tuple[Int64[np.ndarray, "p"], Int32[np.ndarray, "p"]]:
        """Every label of every row: the row, and the label."""
        labels = self.labels
        first = np.flatnonzero(labels >= 0)
        return np.append(first, np.array(self._extra_label_rows, np.int64)), np.append(
            labels[first], np.array(self._extra_labels, np.int32)
        )

    def multi_hot(self, index: int, num_classes: int) -> Float32[np.ndarray, "classes"]:
        """1 for each of a row's labels, 0 for the other classes."""
        hot = np.zeros(num_classes, np.float32)
        hot[list(self[index].labels)] = 1
        return hot

    @property
    def num_broken(self) -> int:
        """How many are stated not to decode."""
        return len(self._errors)

    def _get_source(self, index: int) -> PathOrUrl | ShardMember:
        place = join_path(self.root, self.get_path(index))
        if index >= len(self._row_shards) or self._row_shards[index] < 0:
            return place
        return ShardMember(place, self._offsets[index], self._file_sizes[index], self.get_name(index))

    def find_rows_outside_root(self) -> Iterator[int]:
        """The rows whose paths lead out of the root, upwards; absolute ones are stated on purpose, as lists do."""
        if b".." not in self._name_bytes and not any(".." in shard for shard in self._shards):
            return
        for index in range(len(self)):
            place = self.get_path(index)
            if ".." in place and "://" not in place and os.path.normpath(place).split(os.sep)[0] == "..":
                yield index

    def resolve_files(self, get_file_size: Callable[[str], int | None]) -> Bool[np.ndarray, "n"]:
        """Finds the files whose sizes are not stated; says of every row whether it is there.

        A bare name may stand for an mp4. Where a size is not stated, a stated number of frames is taken for a folder of
        frames only: a video's is known better by its packets.

        Args:
            get_file_size: gives a file's size in bytes, 0 for a folder, None where there is nothing.
        """
        there = np.ones(len(self), bool)
        names: dict[int, str] = {}
        for index, stated in enumerate(self._file_sizes):
            if stated >= 0:
                continue
            name = self.get_name(index)
            size = get_file_size(name)
            if size is None and "." not in name.rpartition("/")[2]:
                names[index] = f"{name}.mp4"
                size = get_file_size(names[index])
            if size is None:
                there[index] = False
            else:
                self._file_sizes[index] = size
                if size:
                    self._frames[index], self._frame_rates[index] = 0, 0
        if names:
            self._rename_rows({index: name for index, name in names.items() if there[index]})
        return there

    def _rename_rows(self, names: Mapping[int, str]) -> None:
        renamed = [names.get(index) or self.get_name(index) for index in range(len(self))]
        letters = [name.encode("utf-8", "surrogateescape") for name in renamed]
        self._name_bytes = bytearray(b"".join(letters))
        self._name_ends = array("q", itertools.accumulate(map(len, letters), initial=0))

    def select(self, mask: Bool[np.ndarray, "n"], label_map: Int32[np.ndarray, "m"] | None = None) -> "VideoTable":
        """A copy of some of the rows.

        Args:
            label_map: for each label its new one, where all rows have labels; None: they stay.
        """
        rows = VideoTable(self.root)
        ends = np.array(self._name_ends)
        lengths = ends[1:] - ends[:-1]
        rows._name_bytes = bytearray(np.array(self._name_bytes)[np.repeat(mask, lengths)])
        rows._name_ends.frombytes(np.cumsum(lengths[mask]).tobytes())
        labels, more, more_of = (
            self.labels,
            np.array(self._extra_labels, np.int32),
            np.array(self._extra_label_rows, np.int64),
        )
        if label_map is not None:
            labels, more = label_map[labels], label_map[more]
        rows._labels.frombytes(labels[mask].tobytes())
        rows._extra_labels.frombytes(more[mask[more_of]].tobytes())
        places = np.cumsum(mask) - 1
        rows._extra_label_rows.frombytes(places[more_of[mask[more_of]]].tobytes())
        for ours, theirs in (
            (rows._frames, self._frames),
            (rows._frame_rates, self._frame_rates),
            (rows._file_sizes, self._file_sizes),
        ):
            ours.frombytes(np.array(theirs)[mask].tobytes())
        if self._shards:
            self._pad_members()
            rows._shards, rows._shard_to_idx = list(self._shards), dict(self._shard_to_idx)
            rows._row_shards.frombytes(np.array(self._row_shards)[mask].tobytes())
            rows._offsets.frombytes(np.array(self._offsets)[mask].tobytes())
        rows._errors = {int(places[index]): wrong for index, wrong in self._errors.items() if mask[index]}
        return rows

    def compute_fingerprint(self) -> str:
        """Of every row's path, labels and file size, in order."""
        digest = hashlib.sha256()
        for column in (
            self._name_bytes,
            self._name_ends,
            self._labels,
            self._file_sizes,
            self._extra_label_rows,
            self._extra_labels,
        ):
            digest.update(column)
        return digest.hexdigest()
