"""The videos of a dataset, any number of them: NumPy columns, from which rows are made on demand."""

import copy
import hashlib
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from vidstill.data.decode.images import is_image_file
from vidstill.data.storage.addresses import check_inside
from vidstill.data.storage.fetch import PathOrUrl, ShardMember, join_path
from vidstill.data.storage.filesystem import FileState
from vidstill.synthetic.made import identify_made, is_made

COLUMNS: dict[str, tuple[type, int]] = {  # the type of each column, and the value where nothing is stated
    "label": (np.int32, -1),  # the first of several
    "frames": (np.int32, 0),
    "frame_rate": (np.float64, 0),
    "file_size": (np.int64, -1),  # in bytes
    "mtime_ns": (np.int64, -1),  # when the file was modified; stated where it was looked up
    "shard": (np.int32, -1),  # index into the paths of the shards; -1 for a file of its own
    "offset": (np.int64, 0),  # in the shard, in bytes
    "width": (np.int32, 0),  # in pixels
    "height": (np.int32, 0),
    "codec": (np.int32, -1),  # index into the names of the codecs
    "group": (np.int32, -1),  # index into the names of the groups: of a person, a place, a recording
}


@dataclass(frozen=True)
class VideoRow:
    """One video: its file, its class counted from 0, and what is known without opening it."""

    source: PathOrUrl | ShardMember
    label: int | None  # its only label, or the first of several; None if it has none
    frames: int | None = None  # as stated by a list, a scan or a pack; None if not stated
    frame_rate: float | None = None  # likewise
    name: str = ""  # as the dataset states it: a path relative to the root; of a packed video before it was packed
    error: str = ""  # why it does not decode, according to a scan; empty if it decodes, or was not scanned
    extra_labels: tuple[int, ...] = ()  # the labels after the first

    @property
    def labels(self) -> tuple[int, ...]:
        """All labels in the order of the list; each once."""
        return () if self.label is None else (self.label, *self.extra_labels)


class VideoTable(Sequence[VideoRow]):
    """The rows of a dataset in columns, at most about 130 bytes a row.

    Args:
        root: The directory or URL that the names are relative to.
        names: The path of each video as the dataset states it.
        columns: Those of `COLUMNS` that are stated.
        shards: The paths of the shards, relative to the root.
        codecs: The names of the codecs.
        groups: The names of the groups.
        errors: Why rows do not decode, by index.
        extra_labels: The labels after a row's first as (row, label), rows ascending.
        shard_roots: The local directory that each shard has to be in, as in `ShardMember`; if empty, none is given.
        is_confined: Whether all files, and all shards, have to be in the root, with all links followed.
    """

    def __init__(
        self,
        root: PathOrUrl,
        names: Iterable[str] = (),
        columns: Mapping[str, Sequence[int | float] | np.ndarray] | None = None,
        *,
        shards: Sequence[str] = (),
        codecs: Sequence[str] = (),
        groups: Sequence[str] = (),
        errors: Mapping[int, str] | None = None,
        extra_labels: Sequence[tuple[int, int]] = (),
        shard_roots: Sequence[Path | None] = (),
        is_confined: bool = False,
    ):
        self.root, self.shards, self.errors = root, tuple(shards), dict(errors or {})
        self.is_confined, self._shard_roots = is_confined, tuple(shard_roots)
        self.codecs, self.groups = tuple(codecs), tuple(groups)
        self._columns: dict[str, np.ndarray] = {
            name: np.array(column, COLUMNS[name][0]) for name, column in (columns or {}).items()
        }
        pairs = np.array(extra_labels, np.int64).reshape(-1, 2)
        self._extra_rows, self._extra_labels = pairs[:, 0].copy(), pairs[:, 1].astype(np.int32)
        self._set_names(names)

    @classmethod
    def from_rows(cls, rows: Iterable[VideoRow]) -> "VideoTable":
        """Build a table of videos from anywhere, named by their sources; packed ones keep their names."""
        rows = list(rows)
        members = [row.source if isinstance(row.source, ShardMember) else None for row in rows]
        shards: dict[tuple[str, Path | None], int] = {}
        shard_numbers = [
            shards.setdefault((str(each.shard), each.root), len(shards)) if each else -1 for each in members
        ]
        columns: dict[str, Sequence[int | float]] = {
            "label": [-1 if row.label is None else row.label for row in rows],
            "frames": [row.frames or 0 for row in rows],
            "frame_rate": [row.frame_rate or 0 for row in rows],
            "shard": shard_numbers,
            "offset": [member.offset if member else 0 for member in members],
            "file_size": [member.size if member else -1 for member in members],
        }
        return cls(
            Path(),
            [member.name if member else str(row.source) for member, row in zip(members, rows, strict=True)],
            columns,
            shards=[shard for shard, _ in shards],
            shard_roots=[root for _, root in shards],
            errors={i: row.error for i, row in enumerate(rows) if row.error},
            extra_labels=[(i, label) for i, row in enumerate(rows) for label in row.extra_labels],
        )

    def _set_names(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]  # as file systems have them
        self._name_bytes = b"".join(encoded)
        self._name_ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._name_ends) - 1

    @overload
    def __getitem__(self, index: int) -> VideoRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[VideoRow]: ...
    def __getitem__(self, index: int | slice) -> VideoRow | list[VideoRow]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        name, label = self.get_name(index), self._get("label", index)
        source: Any = join_path(self.root, self.get_path(index))
        root, shard = self.root if self.is_confined and isinstance(self.root, Path) else None, self._get("shard", index)
        if shard >= 0:
            root = self._shard_roots[int(shard)] if self._shard_roots else root
            source = ShardMember(
                source, int(self._get("offset", index)), int(self._get("file_size", index)), name, root
            )
        elif root is not None:
            check_inside(source, root)
        first, last = (bisect_left(self._extra_rows, i) for i in (index, index + 1))
        return VideoRow(
            source,
            None if label < 0 else int(label),
            int(self._get("frames", index)) or None,
            self._get("frame_rate", index) or None,
            name,
            self.errors.get(index, ""),
            tuple(self._extra_labels[first:last].tolist()),
        )

    def _get(self, column: str, index: int) -> int | float:
        return self._columns[column].item(index) if column in self._columns else COLUMNS[column][1]

    def get_name(self, index: int) -> str:
        """Return the path of a video as the dataset states it."""
        first, last = self._name_ends[index : index + 2]
        return self._name_bytes[first:last].decode("utf-8", "surrogateescape")

    def get_path(self, index: int) -> str:
        """Return the path of a row's file, or of its shard, as the dataset states it."""
        shard = int(self._get("shard", index))
        return self.shards[shard] if shard >= 0 else self.get_name(index)

    def column(self, name: str) -> np.ndarray:
        """Return a column; where the dataset does not state it, the value for nothing in every row."""
        dtype, missing = COLUMNS[name]
        return self._columns[name] if name in self._columns else np.full(len(self), missing, dtype)

    @property
    def labels(self) -> Int32[np.ndarray, "n"]:
        """The label of each row: the first where it has several, -1 where it has none."""
        return self.column("label")

    @property
    def multi_label(self) -> bool:
        """Whether any row has more than one label."""
        return len(self._extra_rows) > 0

    def list_label_pairs(self) -> tuple[Int64[np.ndarray, "p"], Int32[np.ndarray, "p"]]:
        """Return every label of every row: the rows, and the labels."""
        labels = self.labels
        first = np.flatnonzero(labels >= 0)
        return np.append(first, self._extra_rows), np.append(labels[first], self._extra_labels)

    def multi_hot(self, index: int, num_classes: int) -> Float32[np.ndarray, "classes"]:
        """Return 1 for each of a row's labels and 0 for the other classes."""
        target = np.zeros(num_classes, np.float32)
        target[list(self[index].labels)] = 1
        return target

    def get_noun(self) -> Literal["image", "video"]:
        """Return "image" if all files are images, else "video"."""
        return "image" if all(map(is_image_file, map(self.get_name, range(len(self))))) else "video"

    def check_links(self) -> None:
        """Raise an InputError if a file of a confined table leads out of a local root by a link."""
        if self.is_confined and isinstance(self.root, Path):
            for path in {self.get_path(index): None for index in range(len(self))}:
                check_inside(self.root / path, self.root)

    def find_row_outside_root(self) -> int | None:
        """Return the first row whose relative path leads upwards out of the root; absolute paths are meant as such."""
        if b".." in self._name_bytes or any(".." in shard for shard in self.shards):
            for index, path in enumerate(map(self.get_path, range(len(self)))):
                if ".." in path and "://" not in path and os.path.normpath(path).split(os.sep)[0] == "..":
                    return index
        return None

    def resolve_files(
        self, look_up: Callable[[str], FileState | None], *, may_be_missing: bool = False
    ) -> Bool[np.ndarray, "n"]:
        """Look up the files whose sizes are not stated, and return whether each row's file exists.

        `look_up` returns None where there is nothing. A name without a suffix may stand for an mp4. Where a size is not
        stated, a stated number of frames counts only for a directory of frames: a video's packets tell it better.
        Where files `may_be_missing`, those that do not exist have 0 bytes.
        """
        has_size, sizes = self.column("file_size") >= 0, self.column("file_size").copy()
        times, new_names = self.column("mtime_ns").copy(), dict[int, str]()
        for index in np.flatnonzero(~has_size).tolist():
            name = self.get_name(index)
            state = look_up(name)
            if state is None and "." not in name.rpartition("/")[2]:
                state = look_up(f"{name}.mp4")
                if state is not None:
                    new_names[index] = f"{name}.mp4"
            if state is not None or may_be_missing:
                sizes[index], times[index] = state or FileState(0)
        for column in self._columns.keys() & {"frames", "frame_rate"}:
            self._columns[column][(sizes > 0) & ~has_size] = 0
        self._columns |= {"file_size": sizes, "mtime_ns": times}
        if new_names:
            self._set_names([new_names.get(index) or self.get_name(index) for index in range(len(self))])
        return sizes >= 0

    def select(self, mask: Bool[np.ndarray, "n"], label_map: Int32[np.ndarray, "m"] | None = None) -> "VideoTable":
        """Return a copy of some rows, with the new label of each label where all rows have labels."""
        rows = copy.copy(self)
        lengths = np.diff(self._name_ends)
        rows._name_bytes = np.frombuffer(self._name_bytes, np.uint8)[np.repeat(mask, lengths)].tobytes()
        rows._name_ends = np.append(0, lengths[mask].cumsum())
        rows._columns = {name: column[mask] for name, column in self._columns.items()}
        new_index = mask.cumsum() - 1
        extra = mask[self._extra_rows]
        rows._extra_rows, rows._extra_labels = new_index[self._extra_rows[extra]], self._extra_labels[extra]
        if label_map is not None:
            rows._columns["label"] = label_map[rows.labels]
            rows._extra_labels = label_map[rows._extra_labels]
        rows.errors = {int(new_index[index]): error for index, error in self.errors.items() if mask[index]}
        return rows

    def compute_fingerprint(self) -> str:
        """Return the SHA-256 of every row's path, labels and file size, in order, and of drawn clips' address."""
        digest = hashlib.sha256(self._name_bytes)
        if is_made(self.root):
            digest.update(identify_made(self.root).encode())
        for column in self._name_ends, self.labels, self.column("file_size"), self._extra_rows, self._extra_labels:
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()
