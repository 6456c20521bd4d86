"""Features as one safetensors file, written and read in pieces: it need not fit into memory."""

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidstill.pipelines.infer.writers.feature_table import BESIDE, Column, Table, beside, rows_in, table_of

_ABOUT = "vidstill"  # where the metadata stand, as in our files of weights
_TYPES = {"<f4": "F32", "<f8": "F64", "<i8": "I64", "|u1": "U8"}
_KINDS = {word: kind for kind, word in _TYPES.items()}
_WORDS = ("names", "splits", "classes")  # no tensors, but in the metadata


def write(file: BinaryIO, table: Table) -> None:
    arrays = beside(table)
    words = {name: arrays.pop(name).tolist() for name in _WORDS if name in arrays}
    about = {**json.loads(str(arrays.pop("about"))), **words}
    kinds = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    kinds |= {name: (column.kind, (table.rows, *column.shape)) for name, column in table.columns.items()}
    header: dict[str, Any] = {"__metadata__": {_ABOUT: json.dumps(about)}}
    end = 0
    for name, (kind, shape) in sorted(kinds.items(), key=lambda each: -np.dtype(each[1][0]).itemsize):  # all aligned
        start, end = end, end + np.dtype(kind).itemsize * math.prod(shape)
        header[name] = {"dtype": _TYPES[kind], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in list(header)[1:]:
        chunks = iter([arrays[name]]) if name in arrays else table.columns[name].chunks(table.at_once)
        for chunk in chunks:
            file.write(chunk.tobytes())


def read(path: Path) -> Table | None:
    """None for what is no file of features."""
    found, columns = {}, {}
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size) if size < path.stat().st_size else b"")
            about = json.loads(header.pop("__metadata__")[_ABOUT])
            for name, tensor in header.items():
                kind, shape = _KINDS[tensor["dtype"]], tuple(tensor["shape"])
                start = 8 + size + tensor["data_offsets"][0]
                if name in BESIDE:
                    file.seek(start)
                    found[name] = next(rows_in(file, kind, shape, shape[0]), np.empty(shape, kind))
                else:
                    columns[name] = Column(kind, shape[1:], partial(_rows, path, start, kind, shape))
            found |= {name: np.array(about.pop(name)) for name in _WORDS if name in about}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return table_of({**found, "about": np.array(json.dumps(about))}, columns)


def _rows(path: Path, start: int, kind: str, shape: tuple[int, ...], step: int) -> Iterator[np.ndarray]:
    with path.open("rb") as file:
        file.seek(start)
        yield from rows_in(file, kind, shape, step)
