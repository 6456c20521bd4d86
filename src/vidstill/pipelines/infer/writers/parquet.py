"""Features as one Parquet file, a row for each video or window, written and read in pieces; pyarrow does it."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidstill.pipelines.infer.writers.feature_table import (
    FEATURE_DTYPE,
    TIME_DTYPE,
    FeatureColumn,
    FeatureTable,
    build_feature_table,
    build_metadata_arrays,
)
from vidstill.utils.types import InputError

_METADATA_KEY = b"vidstill"  # where the metadata stand
_TIME_COLUMNS = ("starts", "ends")


def import_pyarrow() -> tuple[Any, Any]:
    """
    Raises:
        InputError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("Parquet needs pyarrow: pip install 'vidstill[parquet]', or take npz or safetensors") from None
    return pyarrow, pyarrow.parquet


def write_parquet(file: BinaryIO, table: FeatureTable) -> None:
    arrow, parquet = import_pyarrow()
    told = build_metadata_arrays(table)
    about = {**table.metadata, "classes": table.classes, "shapes": {n: c.shape for n, c in table.columns.items()}}
    of_video = _build_video_columns(arrow, table, told)
    kinds = {name: arrow.float64() if name in _TIME_COLUMNS else arrow.float32() for name in table.columns}
    kinds |= {n: arrow.list_(kinds[n], math.prod(c.shape)) for n, c in table.columns.items() if c.shape}
    fields = [(name, array.type) for name, array in of_video.items()] + list(kinds.items())
    schema = arrow.schema(fields, metadata={_METADATA_KEY: json.dumps(about)})
    video_of = np.repeat(np.arange(len(table.keys)), np.diff(table.offsets))
    chunks = {name: column.read_chunks(table.rows_per_chunk) for name, column in table.columns.items()}
    with parquet.ParquetWriter(file, schema) as writer:
        for first in range(0, table.num_rows, table.rows_per_chunk):
            videos = arrow.array(video_of[first : first + table.rows_per_chunk])
            columns = [array.take(videos) for array in of_video.values()]
            for name, kind in kinds.items():
                numbers = arrow.array(next(chunks[name]).reshape(-1))
                columns.append(
                    arrow.FixedSizeListArray.from_arrays(numbers, type=kind) if table.columns[name].shape else numbers
                )
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def _build_video_columns(arrow: Any, table: FeatureTable, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What is the same in all rows of a video, by the name of its column."""
    found = {"name": arrow.array(arrays["names"].tolist())}
    if "splits" in arrays:
        found["split"] = arrow.array(arrays["splits"].tolist())
    if table.labels is not None and table.labels.ndim == 2:
        found["labels"] = arrow.array([np.flatnonzero(each) for each in table.labels], arrow.list_(arrow.int64()))
    elif table.labels is not None:
        found["label"] = arrow.array(table.labels, mask=table.labels < 0)
    return found | {name: arrow.array(arrays[name]) for name in ("bytes", "modified")}


def read_parquet(path: Path) -> FeatureTable | None:
    """None for what is no file of features."""
    arrow, parquet = import_pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            about = json.loads((file.schema_arrow.metadata or {})[_METADATA_KEY])
            shapes, classes = about.pop("shapes"), about.pop("classes")
            read = file.read(columns=[name for name in file.schema_arrow.names if name not in shapes])
    except (OSError, ValueError, KeyError, TypeError, arrow.ArrowException):
        return None
    told = {name: np.array(read[name].to_pylist()) for name in ("name", "split") if name in read.column_names}
    new = np.any([column[1:] != column[:-1] for column in told.values()], axis=0)  # rows of a video follow one another
    first = np.flatnonzero(np.append(True, new))
    found = {"about": np.array(json.dumps(about)), "offsets": np.append(first, read.num_rows)}
    found |= {f"{name}s": column[first] for name, column in told.items()}
    found |= {name: read[name].to_numpy()[first] for name in ("bytes", "modified")}
    if classes:
        found |= {"classes": np.array(classes), "labels": _decode_labels(read.take(first), len(classes))}
    columns = {
        name: FeatureColumn(
            kind := TIME_DTYPE if name in _TIME_COLUMNS else FEATURE_DTYPE,
            tuple(shape),
            partial(_read_chunks, path, name, kind, tuple(shape)),
        )
        for name, shape in shapes.items()
    }
    return build_feature_table(found, columns)


def _decode_labels(read: Any, classes: int) -> np.ndarray:
    if "label" in read.column_names:
        return read["label"].fill_null(-1).to_numpy()
    hot = np.zeros((read.num_rows, classes), np.uint8)
    for place, labels in enumerate(read["labels"].to_pylist()):
        hot[place, labels] = 1
    return hot


def _read_chunks(path: Path, name: str, dtype: str, shape: tuple[int, ...], chunk_rows: int) -> Iterator[np.ndarray]:
    _, parquet = import_pyarrow()
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=chunk_rows, columns=[name]):
            column = batch.column(0)
            yield (column.flatten() if shape else column).to_numpy().astype(dtype, copy=False).reshape(-1, *shape)
