"""Features as one npz file, written and read in chunks: it need not fit into memory."""

import os
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vidstill.pipelines.infer.writers.features import (
    METADATA_ARRAYS,
    FeatureColumn,
    FeatureTable,
    build_metadata_arrays,
    parse_feature_table,
    write_npy_header,
)


def write_npz(file: BinaryIO, table: FeatureTable) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in build_metadata_arrays(table).items():
            with _open_member(archive, name) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        for name, column in table.columns.items():
            with _open_member(archive, name) as member:
                write_npy_header(member, column.dtype, (table.num_rows, *column.shape))
                for chunk in column.read_chunks(table.rows_per_chunk):
                    member.write(chunk.tobytes())


def read_npz(path: Path) -> FeatureTable | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            metadata = {name: arrays[name] for name in arrays.files if name in METADATA_ARRAYS}
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            names = {member: member.filename.removesuffix(".npy") for member in archive.infolist()}
            columns = {
                name: _open_column(path, file, member.header_offset)
                for member, name in names.items()
                if name not in metadata
            }
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, struct.error, zipfile.BadZipFile):
        return None
    return parse_feature_table(metadata, columns)


def _open_member(archive: zipfile.ZipFile, name: str) -> Any:
    """Open a member without the time of writing."""
    return archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)


def _open_column(path: Path, file: BinaryIO, header_offset: int) -> FeatureColumn:
    """Map an uncompressed member of the archive: its local header ends with the lengths of a name and extra fields."""
    file.seek(header_offset + 26)
    file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    array = np.memmap(path, dtype, "r", file.tell(), shape)
    return FeatureColumn(dtype.str, shape[1:], [(lambda first, end: array[first:end], 0, len(array))])
