"""Features as one safetensors file, written and read in chunks: it need not fit into memory."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from vidstill.pipelines.infer.writers.features import (
    METADATA_ARRAYS,
    FeatureColumn,
    FeatureTable,
    build_metadata_arrays,
    parse_feature_table,
)

_METADATA_KEY = "vidstill"  # as in our checkpoints
_DTYPES = {"<f4": "F32", "<f8": "F64", "<i8": "I64", "|u1": "U8"}
_NUMPY_DTYPES = {name: dtype for dtype, name in _DTYPES.items()}
_TEXT_ARRAYS = ("names", "splits", "classes")  # in the metadata


def write_feature_safetensors(file: BinaryIO, table: FeatureTable) -> None:
    arrays = build_metadata_arrays(table)
    texts = {name: arrays.pop(name).tolist() for name in _TEXT_ARRAYS if name in arrays}
    metadata = {**json.loads(str(arrays.pop("metadata"))), **texts}
    specs = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    specs |= {name: (column.dtype, (table.num_rows, *column.shape)) for name, column in table.columns.items()}
    header: dict[str, Any] = {"__metadata__": {_METADATA_KEY: json.dumps(metadata)}}
    end = 0
    for name, (dtype, shape) in sorted(specs.items(), key=lambda each: -np.dtype(each[1][0]).itemsize):  # aligned
        start, end = end, end + np.dtype(dtype).itemsize * math.prod(shape)
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in list(header)[1:]:
        chunks = iter([arrays[name]]) if name in arrays else table.columns[name].read_chunks(table.rows_per_chunk)
        for chunk in chunks:
            file.write(chunk.tobytes())


def read_feature_safetensors(path: Path) -> FeatureTable | None:
    arrays, columns = {}, {}
    try:
        file = safe_open(path, framework="np")
        metadata = json.loads((file.metadata() or {})[_METADATA_KEY])
        for name in file.keys():  # noqa: SIM118
            if name in METADATA_ARRAYS:
                arrays[name] = file.get_tensor(name)
            else:
                tensor = file.get_slice(name)
                num_rows, *shape = tensor.get_shape()
                dtype = _NUMPY_DTYPES[tensor.get_dtype()]
                columns[name] = FeatureColumn(dtype, tuple(shape), [(partial(_read_rows, tensor), 0, num_rows)])
        arrays |= {name: np.array(metadata.pop(name)) for name in _TEXT_ARRAYS if name in metadata}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return parse_feature_table({**arrays, "metadata": np.array(json.dumps(metadata))}, columns)


def _read_rows(tensor: Any, first: int, end: int) -> np.ndarray:
    rows: np.ndarray = tensor[first:end]
    return rows
