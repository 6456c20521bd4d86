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

from vidstill.pipelines.infer.embed_config import FeatureKey, FileStamp

FEATURE_DTYPE, TIME_DTYPE = "<f4", "<f8"
"""Of features; of seconds."""

ColumnSpecs = Mapping[str, tuple[str, tuple[int, ...]]]
"""For each column its kind and the shape of a row's numbers."""

_CHUNK_BYTES = 2**24
_HEADER_BYTES = 128  # of an npy file: room for any shape that features have


@dataclass(frozen=True)
class FeatureColumn:
    """Numbers of each row, which are read when they are asked for.

    Args:
        shape: of a row's.
        read_chunks: gives the rows from the first to the last, so many at a time.
    """

    dtype: str
    shape: tuple[int, ...]
    read_chunks: Callable[[int], Iterator[np.ndarray]]


@dataclass(frozen=True)
class FeatureTable:
    """
    Args:
        metadata: `kind`, `encoder`, `settings`, `versions`, and what is `broken`, as plain JSON.
        labels: -1 for none; where a video may have several, 1 for each class that it has; None where there are none.
        offsets: the rows of video i are `offsets[i]` up to `offsets[i + 1]`.
        columns: `starts` and `ends` in seconds, where there are windows; then the features by layer.
    """

    metadata: Mapping[str, Any]
    keys: list[FeatureKey]
    stamps: list[FileStamp]
    labels: Int64[np.ndarray, "n"] | UInt8[np.ndarray, "n classes"] | None
    classes: tuple[str, ...]
    offsets: Int64[np.ndarray, "m"]
    columns: Mapping[str, FeatureColumn]

    @property
    def num_rows(self) -> int:
        return int(self.offsets[-1])

    @property
    def rows_per_chunk(self) -> int:
        """So many rows take a few MB."""
        widest = max(8 * math.prod(column.shape) for column in self.columns.values())
        return max(1, _CHUNK_BYTES // widest)

    def has_same_metadata(self, other: "FeatureTable") -> bool:
        """Whether all but the numbers are the same, and by which version of what they were made."""
        labels = [None if each.labels is None else each.labels.tolist() for each in (self, other)]
        decisive = [[each.metadata.get(word) for word in ("settings", "broken")] for each in (self, other)]
        ours, theirs = (self.keys, self.stamps, self.classes), (other.keys, other.stamps, other.classes)
        return labels[0] == labels[1] and decisive[0] == decisive[1] and ours == theirs


def build_column_specs(shapes: Mapping[str, tuple[int, ...]], *, with_times: bool) -> ColumnSpecs:
    """
    Args:
        with_times: rows are windows, of which it is known where they begin and end.
    """
    times: ColumnSpecs = {"starts": (TIME_DTYPE, ()), "ends": (TIME_DTYPE, ())} if with_times else {}
    return {**times, **{name: (FEATURE_DTYPE, shape) for name, shape in shapes.items()}}


def build_npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """How an npy file begins, in the same number of bytes whatever the shape: the rows may be counted afterwards."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape})
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", _HEADER_BYTES - 10)
    return start + text.ljust(_HEADER_BYTES - 11).encode() + b"\n"


def read_array_chunks(
    file: BufferedIOBase, dtype: str, shape: tuple[int, ...], chunk_rows: int
) -> Iterator[np.ndarray]:
    """An array of this shape, which stands in a file from where it is, so many rows at a time.

    Raises:
        OSError: the file ends before.
    """
    for first in range(0, shape[0], chunk_rows):
        part = (min(chunk_rows, shape[0] - first), *shape[1:])
        size = np.dtype(dtype).itemsize * math.prod(part)
        data = file.read(size)
        if len(data) < size:
            raise OSError("the file is cut off")
        yield np.frombuffer(data, dtype).reshape(part)


METADATA_ARRAYS = ("about", "names", "splits", "classes", "labels", "offsets", "bytes", "modified")
"""What a file holds beside its columns."""


def build_metadata_arrays(table: FeatureTable) -> dict[str, np.ndarray]:
    """All but the columns, as arrays by name; `about` is JSON."""
    found: dict[str, np.ndarray] = {"about": np.array(json.dumps(table.metadata))}
    found["names"] = np.array([key.name for key in table.keys])
    if any(key.split for key in table.keys):
        found["splits"] = np.array([key.split for key in table.keys])
    if table.labels is not None:
        found |= {"classes": np.array(table.classes), "labels": table.labels}
    found["offsets"] = table.offsets
    found["bytes"] = np.array([stamp.num_bytes for stamp in table.stamps], np.int64)
    found["modified"] = np.array([stamp.mtime_ns for stamp in table.stamps], np.int64)
    return found


def build_feature_table(arrays: Mapping[str, np.ndarray], columns: Mapping[str, FeatureColumn]) -> FeatureTable | None:
    """A table of what `build_metadata_arrays` gave; None if it is not that."""
    try:
        about = json.loads(str(arrays["about"]))
        names, offsets = arrays["names"].tolist(), arrays["offsets"].astype(np.int64)
        splits = arrays["splits"].tolist() if "splits" in arrays else [""] * len(names)
        classes = tuple(arrays["classes"].tolist()) if "classes" in arrays else ()
        stamps = [FileStamp(*both) for both in zip(arrays["bytes"].tolist(), arrays["modified"].tolist(), strict=True)]
        keys = [FeatureKey(*both) for both in zip(splits, names, strict=True)]
        whole = (
            about["kind"] == "features" and bool(about["settings"]) and len(offsets) == len(keys) + 1 == len(stamps) + 1
        )
        whole = whole and all(low <= high for low, high in pairwise(offsets.tolist()))
    except (KeyError, ValueError, TypeError):
        return None
    return FeatureTable(about, keys, stamps, arrays.get("labels"), classes, offsets, columns) if whole else None
