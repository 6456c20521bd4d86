"""What a file of features holds, whatever its format: one row per video, or one per window.

A format is a module with `write(file, table)`, which gives the same bytes for the same table, and `read(path)`, which
gives a table whose rows are read when they are needed, or None for other files.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from vidstill.utils.files import PARTIAL_SUFFIX, convert_write_errors

FEATURE_DTYPE, TIME_DTYPE = "<f4", "<f8"

ColumnSpecs = Mapping[str, tuple[str, tuple[int, ...]]]
"""The dtype of each column, and the shape of one row."""

RowReader = Callable[[int, int], np.ndarray]
"""`(first, end)` → these rows, read when they are needed."""

METADATA_ARRAYS = ("metadata", "names", "splits", "classes", "labels", "offsets", "num_bytes", "mtime_ns")
"""What a file holds beside its columns."""

_CHUNK_BYTES = 2**24


class FeatureKey(NamedTuple):
    """Identifies a video in a file of features."""

    split: str  # "" where the data set has none
    name: str  # as in the data set, bytes that are not UTF-8 as `\\xff`


class FileStamp(NamedTuple):
    """By which a file is recognised as unchanged; -1 for what is behind a URL."""

    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class FeatureColumn:
    """The rows of one column, in segments that are read when they are needed.

    Args:
        shape: Of one row.
        segments: Readers, each with its first row and number of rows.
    """

    dtype: str
    shape: tuple[int, ...]
    segments: Sequence[tuple[RowReader, int, int]]

    def read_chunks(self, num_rows: int) -> Iterator[np.ndarray]:
        """Yield the rows, so many at a time, across segments."""
        chunk: list[np.ndarray] = []
        missing = num_rows
        for read, first, rows in self.segments:
            end = first + rows
            while first < end:
                chunk.append(read(first, min(end, first + missing)))
                first += len(chunk[-1])
                missing -= len(chunk[-1])
                if not missing:
                    yield np.concatenate(chunk)
                    chunk, missing = [], num_rows
        if chunk:
            yield np.concatenate(chunk)


@dataclass(frozen=True)
class FeatureTable:
    """The features of videos.

    Args:
        metadata: `kind`, `encoder`, `settings`, `versions` and `broken`, as JSON values.
        labels: -1 for none; one-hot rows if a video may have several; None without classes.
        offsets: The rows of video i are `offsets[i]` up to `offsets[i + 1]`.
        columns: `starts` and `ends` in seconds, if there are windows; then the features by layer.
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
        """Rows that take 16 MB."""
        return max(1, _CHUNK_BYTES // max(8 * math.prod(column.shape) for column in self.columns.values()))


def build_column_specs(shapes: Mapping[str, tuple[int, ...]], *, with_times: bool) -> ColumnSpecs:
    """Return the columns for features of these shapes by layer, with the times of windows if there are any."""
    times: ColumnSpecs = {"starts": (TIME_DTYPE, ()), "ends": (TIME_DTYPE, ())} if with_times else {}
    return {**times, **{name: (FEATURE_DTYPE, shape) for name, shape in shapes.items()}}


def build_metadata_arrays(table: FeatureTable) -> dict[str, np.ndarray]:
    """Return all but the columns as arrays by name; `metadata` is JSON."""
    arrays = {"metadata": np.array(json.dumps(table.metadata)), "names": np.array([key.name for key in table.keys])}
    if any(key.split for key in table.keys):
        arrays["splits"] = np.array([key.split for key in table.keys])
    if table.labels is not None:
        arrays |= {"classes": np.array(table.classes), "labels": table.labels}
    stamps = np.array(table.stamps, np.int64).reshape(-1, 2)
    return arrays | {"offsets": table.offsets, "num_bytes": stamps[:, 0], "mtime_ns": stamps[:, 1]}


def parse_feature_table(arrays: Mapping[str, np.ndarray], columns: Mapping[str, FeatureColumn]) -> FeatureTable | None:
    """Return the table of `build_metadata_arrays`; None if the arrays are others."""
    try:
        metadata = json.loads(str(arrays["metadata"]))
        names, offsets = arrays["names"].tolist(), arrays["offsets"].astype(np.int64)
        splits = arrays["splits"].tolist() if "splits" in arrays else [""] * len(names)
        classes = tuple(arrays["classes"].tolist()) if "classes" in arrays else ()
        sizes, times = arrays["num_bytes"].tolist(), arrays["mtime_ns"].tolist()
        stamps = [FileStamp(*each) for each in zip(sizes, times, strict=True)]
        keys = [FeatureKey(*each) for each in zip(splits, names, strict=True)]
        complete = metadata["kind"] == "features" and bool(metadata["settings"])
        complete = complete and len(offsets) == len(keys) + 1 == len(stamps) + 1
        complete = complete and all(first <= end for first, end in pairwise(offsets.tolist()))
    except (KeyError, ValueError, TypeError):
        return None
    return FeatureTable(metadata, keys, stamps, arrays.get("labels"), classes, offsets, columns) if complete else None


class VideoArrays:
    """The rows of one video, one npy file per column, written as they come; complete or absent.

    Args:
        paths: The file of each column.
        unfinished: Path of the unfinished files, without suffix; those of a killed process are overwritten.
    """

    def __init__(self, paths: Mapping[str, Path], columns: ColumnSpecs, unfinished: Path):
        self._columns, self._paths = columns, paths
        self._partial = {name: unfinished.with_name(f"{unfinished.name}.{name}{PARTIAL_SUFFIX}") for name in columns}
        self._files: dict[str, BinaryIO] = {}
        self.num_rows = 0
        for name, path in self._partial.items():
            with convert_write_errors(path):
                self._files[name] = path.open("wb")
                self._write_header(name)

    def append(self, arrays: Mapping[str, np.ndarray | float | None]) -> None:
        """Append one row to each column."""
        for name, (dtype, _) in self._columns.items():
            with convert_write_errors(self._partial[name]):
                self._files[name].write(np.ascontiguousarray(arrays[name], dtype).tobytes())
        self.num_rows += 1

    def finish(self) -> None:
        """Give the files their names."""
        for name, path in self._paths.items():
            with convert_write_errors(path), self._files[name] as file:
                file.seek(0)
                self._write_header(name)
                path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._partial[name], path)

    def discard(self) -> None:
        """Delete the files."""
        for name, path in self._partial.items():
            with convert_write_errors(path), self._files[name]:
                path.unlink()

    def _write_header(self, name: str) -> None:
        """Write numpy's header, which has the same size for any number of rows."""
        dtype, shape = self._columns[name]
        write_npy_header(self._files[name], dtype, (self.num_rows, *shape))


def write_npy_header(file: Any, dtype: str, shape: tuple[int, ...]) -> None:
    """Write the header of an npy file."""
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})


def read_npy_rows(path: Path, first: int, end: int) -> np.ndarray:
    """Return rows of an npy file; a `RowReader` with the path bound."""
    rows: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)[first:end]
    return rows
