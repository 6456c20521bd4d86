"""Features as one npz file, written and read in pieces: it need not fit into memory."""

import zipfile
from collections.abc import Iterator
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidstill.pipelines.infer.writers.feature_table import BESIDE, Column, Table, beside, npy_header, rows_in, table_of


def write(file: BinaryIO, table: Table) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in beside(table).items():
            with _member(archive, name) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for name, column in table.columns.items():
            with _member(archive, name) as member:
                member.write(npy_header(column.kind, (table.rows, *column.shape)))
                for chunk in column.chunks(table.at_once):
                    member.write(chunk.tobytes())


def read(path: Path) -> Table | None:
    """None for what is no file of features."""
    found, columns = {}, {}
    try:
        with np.load(path, allow_pickle=False) as arrays, zipfile.ZipFile(path) as archive:
            for name in arrays.files:
                if name in BESIDE:
                    found[name] = arrays[name]
                else:
                    with archive.open(f"{name}.npy") as member:
                        kind, shape = _read_header(member)
                    columns[name] = Column(kind, shape[1:], partial(_rows, path, name))
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
        return None
    return table_of(found, columns)


def _member(archive: zipfile.ZipFile, name: str) -> Any:
    """Without the time at which it is written: the same features are the same bytes."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _rows(path: Path, name: str, step: int) -> Iterator[np.ndarray]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        kind, shape = _read_header(member)
        yield from rows_in(BufferedReader(member), kind, shape, step)  # type: ignore[type-var]  # it reads


def _read_header(file: Any) -> tuple[str, tuple[int, ...]]:
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return dtype.str, shape
