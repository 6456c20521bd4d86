"""Features as one Parquet file, one row per video or window, written and read in chunks by pyarrow."""

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidstill.pipelines.infer.writers.features import (
    FEATURE_DTYPE,
    TIME_DTYPE,
    FeatureColumn,
    FeatureTable,
    RowReader,
    build_metadata_arrays,
    parse_feature_table,
)
from vidstill.utils.types import InputError

_METADATA_KEY = b"vidstill"
_TIME_COLUMNS = ("starts", "ends")


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


def write_parquet(file: BinaryIO, table: FeatureTable) -> None:
    arrow, parquet = import_pyarrow()
    shapes = {name: column.shape for name, column in table.columns.items()}
    metadata = json.dumps({**table.metadata, "classes": table.classes, "shapes": shapes})
    of_video = _build_video_columns(arrow, table)
    types = {name: arrow.float64() if name in _TIME_COLUMNS else arrow.float32() for name in shapes}
    types |= {name: arrow.list_(types[name], math.prod(shape)) for name, shape in shapes.items() if shape}
    fields = [(name, array.type) for name, array in of_video.items()] + list(types.items())
    schema = arrow.schema(fields, metadata={_METADATA_KEY: metadata})
    video_of_row = np.repeat(np.arange(len(table.keys)), np.diff(table.offsets))
    chunks = {name: column.read_chunks(table.rows_per_chunk) for name, column in table.columns.items()}
    with parquet.ParquetWriter(file, schema) as writer:
        for first in range(0, table.num_rows, table.rows_per_chunk):
            videos = arrow.array(video_of_row[first : first + table.rows_per_chunk])
            columns = [array.take(videos) for array in of_video.values()]
            for name, kind in types.items():
                numbers = arrow.array(next(chunks[name]).reshape(-1))
                columns.append(arrow.FixedSizeListArray.from_arrays(numbers, type=kind) if shapes[name] else numbers)
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def _build_video_columns(arrow: Any, table: FeatureTable) -> dict[str, Any]:
    """Return the columns that are the same in all rows of a video, with one value per video."""
    arrays = build_metadata_arrays(table)
    columns = {"name": arrow.array(arrays["names"].tolist())}
    if "splits" in arrays:
        columns["split"] = arrow.array(arrays["splits"].tolist())
    if table.labels is not None and table.labels.ndim == 2:
        columns["labels"] = arrow.array([np.flatnonzero(each) for each in table.labels], arrow.list_(arrow.int64()))
    elif table.labels is not None:
        columns["label"] = arrow.array(table.labels, mask=table.labels < 0)
    return columns | {name: arrow.array(arrays[name]) for name in ("num_bytes", "mtime_ns")}


def read_parquet(path: Path) -> FeatureTable | None:
    arrow, parquet = import_pyarrow()
    try:
        file = parquet.ParquetFile(path)
        metadata = json.loads((file.schema_arrow.metadata or {})[_METADATA_KEY])
        shapes, classes = metadata.pop("shapes"), metadata.pop("classes")
        rows = file.read(columns=[name for name in file.schema_arrow.names if name not in shapes])
    except (OSError, ValueError, KeyError, TypeError, arrow.ArrowException):
        return None
    names = {name: np.array(rows[name].to_pylist()) for name in ("name", "split") if name in rows.column_names}
    begins = np.any([column[1:] != column[:-1] for column in names.values()], axis=0)  # a video's rows stand together
    first = np.flatnonzero(np.append(True, begins))
    arrays = {"metadata": np.array(json.dumps(metadata)), "offsets": np.append(first, rows.num_rows)}
    arrays |= {f"{name}s": column[first] for name, column in names.items()}
    arrays |= {name: rows[name].to_numpy()[first] for name in ("num_bytes", "mtime_ns")}
    if classes:
        arrays |= {"classes": np.array(classes), "labels": _decode_labels(rows.take(first), len(classes))}
    columns = {}
    for name, shape in shapes.items():
        dtype = TIME_DTYPE if name in _TIME_COLUMNS else FEATURE_DTYPE
        columns[name] = FeatureColumn(
            dtype, tuple(shape), [(_open_column(file, name, dtype, tuple(shape)), 0, rows.num_rows)]
        )
    return parse_feature_table(arrays, columns)


def _decode_labels(rows: Any, num_classes: int) -> np.ndarray:
    if "label" in rows.column_names:
        labels: np.ndarray = rows["label"].fill_null(-1).to_numpy()
        return labels
    hot = np.zeros((rows.num_rows, num_classes), np.uint8)
    for number, labels_of_row in enumerate(rows["labels"].to_pylist()):
        hot[number, labels_of_row] = 1
    return hot


def _open_column(file: Any, name: str, dtype: str, shape: tuple[int, ...]) -> RowReader:
    """Return a reader of one column; all row groups but the last have the same number of rows."""
    size = file.metadata.row_group(0).num_rows

    @lru_cache(maxsize=1)
    def read_group(number: int) -> np.ndarray:
        column = file.read_row_group(number, columns=[name]).column(0).combine_chunks()
        return (column.flatten() if shape else column).to_numpy().astype(dtype, copy=False).reshape(-1, *shape)

    def read_rows(first: int, end: int) -> np.ndarray:
        """Up to the end of the row group."""
        group = first // size
        return read_group(group)[first - group * size : end - group * size]

    return read_rows
