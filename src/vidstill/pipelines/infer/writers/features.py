"""The content of a file of features, whatever its format: one row per video, or one per window."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from vidstill.data.manifest.manifest import Manifest
from vidstill.data.storage.fetch import VideoSource
from vidstill.data.storage.filesystem import stat_source
from vidstill.utils.files import PARTIAL_SUFFIX, convert_write_errors, rename_durably

METADATA_ARRAYS = ("metadata", "names", "splits", "classes", "labels", "offsets", "num_bytes", "mtime_ns")
"""The arrays of a file beside its columns."""

RowReader = Callable[[str, int, int], np.ndarray]
"""`(column, first, end)` → these rows, read when they are needed; fewer, but at least one, where a block ends."""

_CHUNK_BYTES = 2**24


class FeatureKey(NamedTuple):
    """Identifies a video in a file of features."""

    split: str  # "" where the data set has none
    name: str  # as in the data set, bytes that are not UTF-8 as `\\xff`


class FileStamp(NamedTuple):
    """By which a file is recognised as unchanged; -1 for what is behind a URL."""

    num_bytes: int
    mtime_ns: int


class Segment(NamedTuple):
    """Consecutive rows of a table, from `first_row` of what `read` reads."""

    read: RowReader
    first_row: int
    num_rows: int


@dataclass(frozen=True)
class FeatureTable:
    """The features of videos.

    Args:
        metadata: `kind`, `encoder`, `settings`, `versions` and `broken`, as JSON values.
        labels: -1 for none; one-hot rows if a video may have several; None without classes.
        offsets: The rows of video i are `offsets[i]` up to `offsets[i + 1]`.
        row_dtype: `starts` and `ends` in seconds, if there are windows; then the features by layer.
        segments: The rows, in order.
    """

    metadata: Mapping[str, Any]
    keys: list[FeatureKey]
    stamps: list[FileStamp]
    labels: Int64[np.ndarray, "n"] | UInt8[np.ndarray, "n classes"] | None
    classes: tuple[str, ...]
    offsets: Int64[np.ndarray, "m"]
    row_dtype: np.dtype
    segments: Sequence[Segment]

    @property
    def columns(self) -> dict[str, np.dtype]:
        """The type of a row of each column, with its shape."""
        return {name: self.row_dtype[name] for name in self.row_dtype.names or ()}

    @property
    def num_rows(self) -> int:
        return int(self.offsets[-1])

    @property
    def rows_per_chunk(self) -> int:
        """Rows of which no column takes more than 16 MB."""
        return max(1, _CHUNK_BYTES // max(8 * math.prod(dtype.shape) for dtype in self.columns.values()))

    def read_chunks(self, column: str, num_rows: int | None = None) -> Iterator[np.ndarray]:
        """Yield the rows of a column, `num_rows` at a time (None: `rows_per_chunk`)."""
        num_rows = num_rows or self.rows_per_chunk
        chunk: list[np.ndarray] = []
        missing = num_rows
        for read, first, count in self.segments:
            end = first + count
            while first < end:
                chunk.append(read(column, first, min(end, first + missing)))
                first += len(chunk[-1])
                missing -= len(chunk[-1])
                if not missing:
                    yield np.concatenate(chunk)
                    chunk, missing = [], num_rows
        if chunk:
            yield np.concatenate(chunk)


def build_row_dtype(shapes: Mapping[str, tuple[int, ...]], *, with_times: bool) -> np.dtype:
    """Return the type of a row with features of these shapes by layer, and the times of its window if it has one."""
    times = [("starts", "<f8"), ("ends", "<f8")] if with_times else []
    return np.dtype([*times, *((name, "<f4", shape) for name, shape in shapes.items())])


def read_stamp(source: VideoSource) -> FileStamp:
    """Return the present state of a video's file."""
    size, mtime_ns = stat_source(source) or (-1, None)
    return FileStamp(size, -1 if mtime_ns is None else mtime_ns)


def encode_labels(
    manifest: Manifest, indices: Sequence[int]
) -> Int64[np.ndarray, "n"] | UInt8[np.ndarray, "n classes"] | None:
    """Return one label per video, -1 for none; one-hot rows if videos may have several; None without classes."""
    if not manifest.classes:
        return None
    if not manifest.multi_label:
        return manifest.rows.labels[indices].astype(np.int64)
    return np.stack([manifest.rows.multi_hot(index, len(manifest.classes)) for index in indices]).astype(np.uint8)


def build_metadata_arrays(table: FeatureTable) -> dict[str, np.ndarray]:
    """Return all but the columns as arrays by name; `metadata` is JSON."""
    arrays = {"metadata": np.array(json.dumps(table.metadata)), "names": np.array([key.name for key in table.keys])}
    if any(key.split for key in table.keys):
        arrays["splits"] = np.array([key.split for key in table.keys])
    if table.labels is not None:
        arrays |= {"classes": np.array(table.classes), "labels": table.labels}
    stamps = np.array(table.stamps, np.int64).reshape(-1, 2)
    return arrays | {"offsets": table.offsets, "num_bytes": stamps[:, 0], "mtime_ns": stamps[:, 1]}


def parse_feature_table(arrays: Mapping[str, np.ndarray], row_dtype: np.dtype, read: RowReader) -> FeatureTable | None:
    """Return the table of `build_metadata_arrays`; None if the arrays are others."""
    try:
        metadata = json.loads(str(arrays["metadata"]))
        names, offsets = arrays["names"].tolist(), arrays["offsets"].astype(np.int64)
        splits = arrays["splits"].tolist() if "splits" in arrays else [""] * len(names)
        classes = tuple(arrays["classes"].tolist()) if "classes" in arrays else ()
        stamps = [FileStamp(*map(int, each)) for each in zip(arrays["num_bytes"], arrays["mtime_ns"], strict=True)]
        keys = [FeatureKey(*each) for each in zip(splits, names, strict=True)]
        complete = metadata["kind"] == "features" and bool(metadata["settings"])
        complete = complete and len(offsets) == len(keys) + 1 == len(stamps) + 1
        complete = complete and all(first <= end for first, end in pairwise(offsets.tolist()))
        segments = [Segment(read, 0, int(offsets[-1]))]
    except (KeyError, ValueError, TypeError, IndexError):
        return None
    labels = arrays.get("labels")
    return FeatureTable(metadata, keys, stamps, labels, classes, offsets, row_dtype, segments) if complete else None


class RowFile:
    """The rows of one video in an npy file, appended as they come; the file is complete or absent.

    Args:
        unfinished: Path of the unfinished file; that of a killed process is overwritten.
        row_dtype: The columns of a row.
        column: The only one that is written, as a plain array; None: all.
    """

    def __init__(self, path: Path, unfinished: Path, row_dtype: np.dtype, column: str | None = None):
        self._path, self._column, self.num_rows = path, column, 0
        self._row_dtype = row_dtype if column is None else row_dtype[column]
        self._partial = unfinished.with_name(unfinished.name + PARTIAL_SUFFIX)
        with convert_write_errors(self._partial):
            self._file = self._partial.open("wb")
            self._write_header()

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row, with the value of each column by name."""
        values = row[self._column] if self._column else tuple(row[name] for name in self._row_dtype.names or ())
        with convert_write_errors(self._partial):
            self._file.write(np.array(values, self._row_dtype.base).tobytes())
        self.num_rows += 1

    def finish(self) -> None:
        """Give the file its name."""
        with convert_write_errors(self._path), self._file:
            self._file.seek(0)
            self._write_header()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file.flush()
            rename_durably(self._partial, self._path)

    def discard(self) -> None:
        """Delete the file."""
        with convert_write_errors(self._partial), self._file:
            self._partial.unlink()

    def _write_header(self) -> None:
        """Write numpy's header, which has the same size for any number of rows."""
        write_npy_header(self._file, self._row_dtype, self.num_rows)


def write_npy_header(file: Any, row_dtype: np.dtype, num_rows: int) -> None:
    """Write the header of an npy file of rows of this type."""
    descr, shape = np.lib.format.dtype_to_descr(row_dtype.base), (num_rows, *row_dtype.shape)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


def read_npy_rows(path: Path, column: str, first: int, end: int) -> np.ndarray:
    """Return rows of a column of a `RowFile`; a `RowReader` with the path bound."""
    rows: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)[column][first:end]
    return rows
