"""Features as one safetensors file, written and read in pieces: it need not fit into memory."""

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidstill.pipelines.infer.writers.feature_table import (
    METADATA_ARRAYS,
    FeatureColumn,
    FeatureTable,
    build_feature_table,
    build_metadata_arrays,
    read_array_chunks,
)

_METADATA_KEY = "vidstill"  # where the metadata stand, as in our files of weights
_SAFETENSORS_DTYPES = {"<f4": "F32", "<f8": "F64", "<i8": "I64", "|u1": "U8"}
_NUMPY_DTYPES = {word: kind for kind, word in _SAFETENSORS_DTYPES.items()}
_TEXT_ARRAYS = ("names", "splits", "classes")  # no tensors, but in the metadata


def write_feature_safetensors(file: BinaryIO, table: FeatureTable) -> None:
    arrays = build_metadata_arrays(table)
    words = {name: arrays.pop(name).tolist() for name in _TEXT_ARRAYS if name in arrays}
    about = {**json.loads(str(arrays.pop("about"))), **words}
    kinds = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    kinds |= {name: (column.dtype, (table.num_rows, *column.shape)) for name, column in table.columns.items()}
    header: dict[str, Any] = {"__metadata__": {_METADATA_KEY: json.dumps(about)}}
    end = 0
    for name, (kind, shape) in sorted(kinds.items(), key=lambda each: -np.dtype(each[1][0]).itemsize):  # all aligned
        start, end = end, end + np.dtype(kind).itemsize * math.prod(shape)
        header[name] = {"dtype": _SAFETENSORS_DTYPES[kind], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in list(header)[1:]:
        chunks = iter([arrays[name]]) if name in arrays else table.columns[name].read_chunks(table.rows_per_chunk)
        for chunk in chunks:
            file.write(chunk.tobytes())


def read_feature_safetensors(path: Path) -> FeatureTable | None:
    """None for what is no file of features."""
    found, columns = {}, {}
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size) if size < path.stat().st_size else b"")
            about = json.loads(header.pop("__metadata__")[_METADATA_KEY])
            for name, tensor in header.items():
                kind, shape = _NUMPY_DTYPES[tensor["dtype"]], tuple(tensor["shape"])
                start = 8 + size + tensor["data_offsets"][0]
                if name in METADATA_ARRAYS:
                    file.seek(start)
                    found[name] = next(read_array_chunks(file, kind, shape, shape[0]), np.empty(shape, kind))
                else:
                    columns[name] = FeatureColumn(kind, shape[1:], partial(_read_chunks, path, start, kind, shape))
            found |= {name: np.array(about.pop(name)) for name in _TEXT_ARRAYS if name in about}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return build_feature_table({**found, "about": np.array(json.dumps(about))}, columns)


def _read_chunks(path: Path, start: int, dtype: str, shape: tuple[int, ...], chunk_rows: int) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        file.seek(start)
        yield from read_array_chunks(file, dtype, shape, chunk_rows)
