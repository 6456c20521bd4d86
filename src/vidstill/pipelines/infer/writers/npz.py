"""Features as one npz file, written and read in pieces: it need not fit into memory."""

import zipfile
from collections.abc import Iterator
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidstill.pipelines.infer.writers.feature_table import (
    METADATA_ARRAYS,
    FeatureColumn,
    FeatureTable,
    build_feature_table,
    build_metadata_arrays,
    build_npy_header,
    read_array_chunks,
)


def write_npz(file: BinaryIO, table: FeatureTable) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in build_metadata_arrays(table).items():
            with _open_member(archive, name) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for name, column in table.columns.items():
            with _open_member(archive, name) as member:
                member.write(build_npy_header(column.dtype, (table.num_rows, *column.shape)))
                for chunk in column.read_chunks(table.rows_per_chunk):
                    member.write(chunk.tobytes())


def read_npz(path: Path) -> FeatureTable | None:
    """None for what is no file of features."""
    found, columns = {}, {}
    try:
        with np.load(path, allow_pickle=False) as arrays, zipfile.ZipFile(path) as archive:
            for name in arrays.files:
                if name in METADATA_ARRAYS:
                    found[name] = arrays[name]
                else:
                    with archive.open(f"{name}.npy") as member:
                        kind, shape = _read_header(member)
                    columns[name] = FeatureColumn(kind, shape[1:], partial(_read_chunks, path, name))
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
        return None
    return build_feature_table(found, columns)


def _open_member(archive: zipfile.ZipFile, name: str) -> Any:
    """Without the time at which it is written: the same features are the same bytes."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _read_chunks(path: Path, name: str, chunk_rows: int) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        kind, shape = _read_header(member)
        yield from read_array_chunks(BufferedReader(member), kind, shape, chunk_rows)  # type: ignore[type-var]  # it reads


def _read_header(file: Any) -> tuple[str, tuple[int, ...]]:
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return dtype.str, shape
