"""Features as one file, put together when all videos are done; complete or absent."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidstill.pipelines.infer.embed_config import FeatureKey, FileStamp, VideoIndex
from vidstill.pipelines.infer.journal import (
    ColumnSpool,
    Journal,
    JournalEntry,
    count_row_bytes,
    move_file,
    spool_path,
)
from vidstill.pipelines.infer.writers import npz, parquet
from vidstill.pipelines.infer.writers import safetensors as tensors
from vidstill.pipelines.infer.writers.feature_table import ColumnSpecs, FeatureColumn, FeatureTable, read_array_chunks
from vidstill.utils.files import atomic_write, convert_write_errors
from vidstill.utils.types import InputError

SingleFileFormat = Literal["npz", "safetensors", "parquet"]

_FORMATS = {"npz": npz, "safetensors": tensors, "parquet": parquet}
_PREVIOUS_FILE = "old"  # the piece that is the file as it was


class SingleFileStore:
    """A file with all videos, a row for each or for each window of it.

    Args:
        out: the file; `OUT.part` beside it is where the work is done.
    """

    def __init__(self, out: Path, format: SingleFileFormat, columns: ColumnSpecs):
        self.out, self.journal = out, Journal.for_output(out)
        self._format, self._columns = format, columns
        if format == "parquet":
            parquet.import_pyarrow()

    @property
    def metadata(self) -> Mapping[str, Any] | None:
        """What the file says of itself; None if it is not there."""
        return None if self._existing_table is None else self._existing_table.metadata

    @cached_property
    def _existing_table(self) -> FeatureTable | None:
        """
        Raises:
            InputError: what is there is something else.
        """
        if not self.out.exists():
            return None
        table = _FORMATS[self._format].read(self.out) if self.out.is_file() else None
        if table is None:
            raise InputError(f"{self.out} is there and holds no features ({self._format}); choose another with --out")
        return table

    def read_entries(self, videos: VideoIndex) -> dict[tuple[FeatureKey, FileStamp], JournalEntry]:
        """The videos that are done, of each file as it was then.

        Raises:
            InputError: the file holds some that are not asked for, which would be lost.
        """
        table = self._existing_table
        if table is None:
            return self.journal.read_entries()
        lost = [key.name for key in table.keys if key not in videos.locations]
        if lost:
            raise InputError(
                f"{self.out} holds {len(lost)} videos that are not asked for, first {lost[0]}, and is made anew if "
                "anything is added; name them too, or choose another file with --out"
            )
        first, rows = table.offsets[:-1].tolist(), np.diff(table.offsets).tolist()
        found = {
            (key, stamp): JournalEntry(stamp, rows[place], first[place], _PREVIOUS_FILE)
            for place, (key, stamp) in enumerate(zip(table.keys, table.stamps, strict=True))
        }
        return found | self.journal.read_entries()

    def open_writer(self, rank: int) -> ColumnSpool:
        return ColumnSpool(self.journal, str(rank), self._columns)

    def finish(self, videos: VideoIndex, entries: Mapping[FeatureKey, JournalEntry], about: Mapping[str, Any]) -> None:
        """Writes the file, unless it is there and would be the same."""
        keys = [key for key in videos.locations if key in entries]
        table = FeatureTable(
            about,
            keys,
            [entries[key].stamp for key in keys],
            videos.encode_labels(keys) if videos.classes else None,
            videos.classes,
            np.cumsum([0, *(entries[key].num_rows for key in keys)]),
            self._build_columns(entries[key] for key in keys),
        )
        there = self._existing_table
        old = any(entry.spool == _PREVIOUS_FILE for entry in entries.values())
        if (
            there is None
            or not there.has_same_metadata(table)
            or any(entry.spool != _PREVIOUS_FILE for entry in entries.values())
        ):
            self.journal.open(about)
            if old and there is not None:
                self._spool_table(there)
            whole = self.journal.folder / self.out.name
            with atomic_write(whole) as file:
                _FORMATS[self._format].write(file, table)
            move_file(whole, self.out)
        self.journal.remove()

    def _spool_table(self, table: FeatureTable) -> None:
        """The columns of the file that is there, as a piece."""
        for name, column in table.columns.items():
            with convert_write_errors(path := spool_path(self.journal, _PREVIOUS_FILE, name)), path.open("wb") as file:
                for chunk in column.read_chunks(table.rows_per_chunk):
                    file.write(chunk.tobytes())

    def _build_columns(self, entries: Iterator[JournalEntry]) -> dict[str, FeatureColumn]:
        """The columns of these videos, one video after the other."""
        spans: list[tuple[str, int, int]] = []
        for entry in entries:
            if spans and (spans[-1][0], sum(spans[-1][1:])) == (entry.spool, entry.first_row):
                spans[-1] = entry.spool, spans[-1][1], spans[-1][2] + entry.num_rows
            else:
                spans.append((entry.spool, entry.first_row, entry.num_rows))
        return {
            name: FeatureColumn(kind, shape, partial(self._read_spans, name, kind, shape, spans))
            for name, (kind, shape) in self._columns.items()
        }

    def _read_spans(
        self, name: str, dtype: str, shape: tuple[int, ...], spans: list[tuple[str, int, int]], chunk_rows: int
    ) -> Iterator[np.ndarray]:
        """The rows of the spans, each a piece's from the first so many, `step` at a time."""
        with ExitStack() as stack:
            pieces = {piece for piece, _, _ in spans}
            files = {each: stack.enter_context(spool_path(self.journal, each, name).open("rb")) for each in pieces}
            held: list[np.ndarray] = []
            for piece, first, rows in spans:
                files[piece].seek(first * count_row_bytes(dtype, shape))
                while rows:
                    taken = min(rows, chunk_rows - sum(map(len, held)))
                    held += read_array_chunks(files[piece], dtype, (taken, *shape), taken)
                    rows -= taken
                    if sum(map(len, held)) == chunk_rows:
                        yield np.concatenate(held)
                        held = []
            if held:
                yield np.concatenate(held)
