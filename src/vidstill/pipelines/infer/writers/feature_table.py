"""What a file of features holds, whatever its format: a row for each video, or for each of its windows."""

import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from vidstill.pipelines.infer.embed_config import Key, Stamp

FLOATS, TIMES = "<f4", "<f8"
"""Of features; of seconds."""

Columns = Mapping[str, tuple[str, tuple[int, ...]]]
"""For each column its kind and the shape of a row's numbers."""

_CHUNK_BYTES = 2**24
_HEADER_BYTES = 128  # of an npy file: room for any shape that features have


@dataclass(frozen=True)
class Column:
    """Numbers of each row, which are read when they are asked for.

    Args:
        shape: of a row's.
        chunks: gives the rows from the first to the last, so many at a time.
    """

    kind: str
    shape: tuple[int, ...]
    chunks: Callable[[int], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Table:
    """
    Args:
        about: `kind`, `encoder`, `settings`, `versions`, and what is `broken`, as plain JSON.
        labels: -1 for none; where a video may have several, 1 for each class that it has; None where there are none.
        offsets: the rows of video i are `offsets[i]` up to `offsets[i + 1]`.
        columns: `starts` and `ends` in seconds, where there are windows; then the features by layer.
    """

    about: Mapping[str, Any]
    keys: list[Key]
    stamps: list[Stamp]
    labels: Int64[np.ndarray, "n"] | UInt8[np.ndarray, "n classes"] | None
    classes: tuple[str, ...]
    offsets: Int64[np.ndarray, "m"]
    columns: Mapping[str, Column]

    @property
    def rows(self) -> int:
        return int(self.offsets[-1])

    @property
    def at_once(self) -> int:
        """So many rows take a few MB."""
        widest = max(8 * math.prod(column.shape) for column in self.columns.values())
        return max(1, _CHUNK_BYTES // widest)

    def says_what(self, other: "Table") -> bool:
        """Whether all but the numbers are the same, and by which version of what they were made."""
        labels = [None if each.labels is None else each.labels.tolist() for each in (self, other)]
        decisive = [[each.about.get(word) for word in ("settings", "broken")] for each in (self, other)]
        ours, theirs = (self.keys, self.stamps, self.classes), (other.keys, other.stamps, other.classes)
        return labels[0] == labels[1] and decisive[0] == decisive[1] and ours == theirs


def columns_of(shapes: Mapping[str, tuple[int, ...]], *, timed: bool) -> Columns:
    """
    Args:
        timed: rows are windows, of which it is known where they begin and end.
    """
    times: Columns = {"starts": (TIMES, ()), "ends": (TIMES, ())} if timed else {}
    return {**times, **{name: (FLOATS, shape) for name, shape in shapes.items()}}


def npy_header(kind: str, shape: tuple[int, ...]) -> bytes:
    """How an npy file begins, in the same number of bytes whatever the shape: the rows may be counted afterwards."""
    text = repr({"descr": kind, "fortran_order": False, "shape": shape})
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", _HEADER_BYTES - 10)
    return start + text.ljust(_HEADER_BYTES - 11).encode() + b"\n"


def rows_in(file: BufferedIOBase, kind: str, shape: tuple[int, ...], step: int) -> Iterator[np.ndarray]:
    """An array of this shape, which stands in a file from where it is, so many rows at a time.

    Raises:
        OSError: the file ends before.
    """
    for first in range(0, shape[0], step):
        part = (min(step, shape[0] - first), *shape[1:])
        size = np.dtype(kind).itemsize * math.prod(part)
        data = file.read(size)
        if len(data) < size:
            raise OSError("the file is cut off")
        yield np.frombuffer(data, kind).reshape(part)


BESIDE = ("about", "names", "splits", "classes", "labels", "offsets", "bytes", "modified")
"""What a file holds beside its columns."""


def beside(table: Table) -> dict[str, np.ndarray]:
    """All but the columns, as arrays by name; `about` is JSON."""
    found: dict[str, np.ndarray] = {"about": np.array(json.dumps(table.about))}
    found["names"] = np.array([key.name for key in table.keys])
    if any(key.split for key in table.keys):
        found["splits"] = np.array([key.split for key in table.keys])
    if table.labels is not None:
        found |= {"classes": np.array(table.classes), "labels": table.labels}
    found["offsets"] = table.offsets
    found["bytes"] = np.array([stamp.bytes for stamp in table.stamps], np.int64)
    found["modified"] = np.array([stamp.modified for stamp in table.stamps], np.int64)
    return found


def table_of(found: Mapping[str, np.ndarray], columns: Mapping[str, Column]) -> Table | None:
    """A table of what `beside` gave; None if it is not that."""
    try:
        about = json.loads(str(found["about"]))
        names, offsets = found["names"].tolist(), found["offsets"].astype(np.int64)
        splits = found["splits"].tolist() if "splits" in found else [""] * len(names)
        classes = tuple(found["classes"].tolist()) if "classes" in found else ()
        stamps = [Stamp(*both) for both in zip(found["bytes"].tolist(), found["modified"].tolist(), strict=True)]
        keys = [Key(*both) for both in zip(splits, names, strict=True)]
        whole = (
            about["kind"] == "features" and bool(about["settings"]) and len(offsets) == len(keys) + 1 == len(stamps) + 1
        )
        whole = whole and all(low <= high for low, high in pairwise(offsets.tolist()))
    except (KeyError, ValueError, TypeError):
        return None
    return Table(about, keys, stamps, found.get("labels"), classes, offsets, columns) if whole else None
