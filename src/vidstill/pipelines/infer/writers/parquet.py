"""Features as one Parquet file, a row for each video or window, written and read in pieces; pyarrow does it."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidstill.pipelines.infer.writers.feature_table import FLOATS, TIMES, Column, Table, beside, table_of
from vidstill.utils.types import InputError

_ABOUT = b"vidstill"  # where the metadata stand
_TIMES = ("starts", "ends")


def pyarrow() -> tuple[Any, Any]:
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


def write(file: BinaryIO, table: Table) -> None:
    arrow, parquet = pyarrow()
    told = beside(table)
    about = {**table.about, "classes": table.classes, "shapes": {n: c.shape for n, c in table.columns.items()}}
    of_video = _of_video(arrow, table, told)
    kinds = {name: arrow.float64() if name in _TIMES else arrow.float32() for name in table.columns}
    kinds |= {n: arrow.list_(kinds[n], math.prod(c.shape)) for n, c in table.columns.items() if c.shape}
    fields = [(name, array.type) for name, array in of_video.items()] + list(kinds.items())
    schema = arrow.schema(fields, metadata={_ABOUT: json.dumps(about)})
    video_of = np.repeat(np.arange(len(table.keys)), np.diff(table.offsets))
    chunks = {name: column.chunks(table.at_once) for name, column in table.columns.items()}
    with parquet.ParquetWriter(file, schema) as writer:
        for first in range(0, table.rows, table.at_once):
            videos = arrow.array(video_of[first : first + table.at_once])
            columns = [array.take(videos) for array in of_video.values()]
            for name, kind in kinds.items():
                numbers = arrow.array(next(chunks[name]).reshape(-1))
                columns.append(
                    arrow.FixedSizeListArray.from_arrays(numbers, type=kind) if table.columns[name].shape else numbers
                )
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))


def _of_video(arrow: Any, table: Table, told: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What is the same in all rows of a video, by the name of its column."""
    found = {"name": arrow.array(told["names"].tolist())}
    if "splits" in told:
        found["split"] = arrow.array(told["splits"].tolist())
    if table.labels is not None and table.labels.ndim == 2:
        found["labels"] = arrow.array([np.flatnonzero(each) for each in table.labels], arrow.list_(arrow.int64()))
    elif table.labels is not None:
        found["label"] = arrow.array(table.labels, mask=table.labels < 0)
    return found | {name: arrow.array(told[name]) for name in ("bytes", "modified")}


def read(path: Path) -> Table | None:
    """None for what is no file of features."""
    arrow, parquet = pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            about = json.loads((file.schema_arrow.metadata or {})[_ABOUT])
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
        found |= {"classes": np.array(classes), "labels": _labels(read.take(first), len(classes))}
    columns = {
        name: Column(
            kind := TIMES if name in _TIMES else FLOATS, tuple(shape), partial(_rows, path, name, kind, tuple(shape))
        )
        for name, shape in shapes.items()
    }
    return table_of(found, columns)


def _labels(read: Any, classes: int) -> np.ndarray:
    if "label" in read.column_names:
        return read["label"].fill_null(-1).to_numpy()
    hot = np.zeros((read.num_rows, classes), np.uint8)
    for place, labels in enumerate(read["labels"].to_pylist()):
        hot[place, labels] = 1
    return hot


def _rows(path: Path, name: str, kind: str, shape: tuple[int, ...], step: int) -> Iterator[np.ndarray]:
    _, parquet = pyarrow()
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=step, columns=[name]):
            column = batch.column(0)
            yield (column.flatten() if shape else column).to_numpy().astype(kind, copy=False).reshape(-1, *shape)
