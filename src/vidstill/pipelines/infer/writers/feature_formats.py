"""Features as one npz, safetensors or Parquet file, written and read in chunks: they need not fit into memory.

A format has a function that writes a table, the same bytes for the same table, and one that reads a table whose rows
are read when they are needed, or None for other files.
"""

import json
import math
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from vidstill.pipelines.infer.writers.features import (
    METADATA_ARRAYS,
    FeatureTable,
    build_metadata_arrays,
    parse_feature_table,
    write_npy_header,
)
from vidstill.utils.types import InputError

_METADATA_KEY = "vidstill"  # as in our checkpoints
_SAFETENSORS_DTYPES = {"<f4": "F32", "<f8": "F64", "<i8": "I64", "|u1": "U8"}
_NUMPY_DTYPES = {name: dtype for dtype, name in _SAFETENSORS_DTYPES.items()}
_TEXT_ARRAYS = ("names", "splits", "classes")  # in the metadata of safetensors
_TIME_COLUMNS = ("starts", "ends")


class FileFormat(NamedTuple):
    """A format of one file for all videos."""

    read: Callable[[Path], FeatureTable | None]
    write: Callable[[BinaryIO, FeatureTable], None]


def _write_npz(file: BinaryIO, table: FeatureTable) -> None:
    with zipfile.ZipFile(file, "w") as archive:

        def open_member(name: str) -> Any:
            return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)  # without the time of writing

        for name, array in build_metadata_arrays(table).items():
            with open_member(name) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for name, dtype in table.columns.items():
            with open_member(name) as member:
                write_npy_header(member, dtype, table.num_rows)
                for chunk in table.read_chunks(name):
                    member.write(chunk.tobytes())


def _read_npz(path: Path) -> FeatureTable | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            metadata = {name: arrays[name] for name in arrays.files if name in METADATA_ARRAYS}
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            members = {each.filename.removesuffix(".npy"): each.header_offset for each in archive.infolist()}
            columns = {name: _map_member(file, members[name]) for name in members if name not in metadata}
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, struct.error, zipfile.BadZipFile):
        return None
    row_dtype = np.dtype([(name, column.dtype, column.shape[1:]) for name, column in columns.items()])
    return parse_feature_table(metadata, row_dtype, lambda name, first, end: columns[name][first:end])


def _map_member(file: BinaryIO, header_offset: int) -> np.ndarray:
    """Map an uncompressed member of an archive: its local header ends with the lengths of a name and extra fields."""
    file.seek(header_offset + 26)
    file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:  # numpy would take the file's bytes for addresses in memory
        raise ValueError("Python objects are not read")
    return np.memmap(file, dtype, "r", file.tell(), shape)


def _write_safetensors(file: BinaryIO, table: FeatureTable) -> None:
    arrays = build_metadata_arrays(table)
    texts = {name: arrays.pop(name).tolist() for name in _TEXT_ARRAYS if name in arrays}
    metadata = {**json.loads(str(arrays.pop("metadata"))), **texts}
    specs = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    specs |= {name: (dtype.base, (table.num_rows, *dtype.shape)) for name, dtype in table.columns.items()}
    header: dict[str, Any] = {"__metadata__": {_METADATA_KEY: json.dumps(metadata)}}
    end = 0
    for name, (dtype, shape) in sorted(specs.items(), key=lambda each: -each[1][0].itemsize):  # aligned
        start, end = end, end + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": _SAFETENSORS_DTYPES[dtype.str], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in list(header)[1:]:
        for chunk in [arrays[name]] if name in arrays else table.read_chunks(name):
            file.write(chunk.tobytes())


def _read_safetensors(path: Path) -> FeatureTable | None:
    arrays, columns, fields = {}, {}, []
    try:
        file = safe_open(path, framework="np")
        metadata = json.loads((file.metadata() or {})[_METADATA_KEY])
        for name in file.keys():  # noqa: SIM118
            if name in METADATA_ARRAYS:
                arrays[name] = file.get_tensor(name)
            else:
                columns[name] = file.get_slice(name)
                shape, dtype = columns[name].get_shape()[1:], _NUMPY_DTYPES[columns[name].get_dtype()]
                fields.append((name, dtype, tuple(shape)))
        arrays |= {name: np.array(metadata.pop(name)) for name in _TEXT_ARRAYS if name in metadata}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    arrays["metadata"] = np.array(json.dumps(metadata))
    return parse_feature_table(arrays, np.dtype(fields), lambda name, first, end: columns[name][first:end])


def import_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and pyarrow.parquet.

    Raises:
        InputError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "Parquet needs pyarrow: pip install 'vidstill[parquet]', or choose npz or safetensors"
        ) from None
    return pyarrow, pyarrow.parquet


def _write_parquet(file: BinaryIO, table: FeatureTable) -> None:
    """Write one row per video or window; the columns of a video have the same value in all its rows."""
    arrow, parquet = import_pyarrow()
    arrays = build_metadata_arrays(table)
    of_video = {"name": arrow.array(arrays["names"].tolist())}
    if "splits" in arrays:
        of_video["split"] = arrow.array(arrays["splits"].tolist())
    if table.labels is not None and table.labels.ndim == 2:
        of_video["labels"] = arrow.array([np.flatnonzero(each) for each in table.labels], arrow.list_(arrow.int64()))
    elif table.labels is not None:
        of_video["label"] = arrow.array(table.labels, mask=table.labels < 0)
    of_video |= {name: arrow.array(arrays[name]) for name in ("num_bytes", "mtime_ns")}
    shapes = {name: dtype.shape for name, dtype in table.columns.items()}
    types = {name: arrow.from_numpy_dtype(dtype.base) for name, dtype in table.columns.items()}
    types |= {name: arrow.list_(types[name], math.prod(shape)) for name, shape in shapes.items() if shape}
    metadata = json.dumps({**table.metadata, "classes": table.classes, "shapes": shapes})
    fields = [*((name, array.type) for name, array in of_video.items()), *types.items()]
    schema = arrow.schema(fields, metadata={_METADATA_KEY: metadata})
    video_of_row = np.repeat(np.arange(len(table.keys)), np.diff(table.offsets))
    chunks = {name: table.read_chunks(name) for name in types}
    with parquet.ParquetWriter(file, schema) as writer:
        for first in range(0, table.num_rows, table.rows_per_chunk):
            videos = arrow.array(video_of_row[first : first + table.rows_per_chunk])
            columns = [array.take(videos) for array in of_video.values()]
            for name, kind in types.items():
                numbers = arrow.array(next(chunks[name]).reshape(-1))
                columns.append(arrow.FixedSizeListArray.from_arrays(numbers, type=kind) if shapes[name] else numbers)
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def _read_parquet(path: Path) -> FeatureTable | None:
    arrow, parquet = import_pyarrow()
    try:
        file = parquet.ParquetFile(path)
        metadata = json.loads((file.schema_arrow.metadata or {})[_METADATA_KEY.encode()])
        shapes, classes = metadata.pop("shapes"), metadata.pop("classes")
        rows = file.read(columns=[name for name in file.schema_arrow.names if name not in shapes])
    except (OSError, ValueError, KeyError, TypeError, arrow.ArrowException):
        return None
    names = {name: np.array(rows[name].to_pylist()) for name in ("name", "split") if name in rows.column_names}
    begins = np.any([column[1:] != column[:-1] for column in names.values()], axis=0)  # a video's rows are consecutive
    first_rows = np.flatnonzero(np.append(True, begins))
    arrays = {"metadata": np.array(json.dumps(metadata)), "offsets": np.append(first_rows, rows.num_rows)}
    arrays |= {f"{name}s": column[first_rows] for name, column in names.items()}
    arrays |= {name: rows[name].to_numpy()[first_rows] for name in ("num_bytes", "mtime_ns")}
    if classes:
        arrays |= {"classes": np.array(classes), "labels": _decode_labels(rows.take(first_rows), len(classes))}
    dtypes = {name: "<f8" if name in _TIME_COLUMNS else "<f4" for name in shapes}
    group_size = file.metadata.row_group(0).num_rows  # of all row groups but the last

    @lru_cache(maxsize=len(shapes))
    def read_group(name: str, number: int) -> np.ndarray:
        column = file.read_row_group(number, columns=[name]).column(0).combine_chunks()
        numbers = (column.flatten() if shapes[name] else column).to_numpy()
        return numbers.astype(dtypes[name], copy=False).reshape(-1, *shapes[name])

    def read_rows(name: str, first: int, end: int) -> np.ndarray:
        start = first // group_size * group_size
        return read_group(name, first // group_size)[first - start : end - start]

    row_dtype = np.dtype([(name, dtypes[name], tuple(shape)) for name, shape in shapes.items()])
    return parse_feature_table(arrays, row_dtype, read_rows)


def _decode_labels(rows: Any, num_classes: int) -> np.ndarray:
    if "label" in rows.column_names:
        labels: np.ndarray = rows["label"].fill_null(-1).to_numpy()
        return labels
    hot = np.zeros((rows.num_rows, num_classes), np.uint8)
    for number, labels_of_row in enumerate(rows["labels"].to_pylist()):
        hot[number, labels_of_row] = 1
    return hot


FILE_FORMATS: Mapping[str, FileFormat] = {
    "npz": FileFormat(_read_npz, _write_npz),
    "safetensors": FileFormat(_read_safetensors, _write_safetensors),
    "parquet": FileFormat(_read_parquet, _write_parquet),
}
"""By suffix."""
