"""Features as one file, put together when all videos are done; complete or absent."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vidstill.pipelines.infer.embed_config import Key, Stamp, Videos
from vidstill.pipelines.infer.journal import Entry, Parts, Piece, piece_file, put, row_bytes, writable
from vidstill.pipelines.infer.writers import npz, parquet
from vidstill.pipelines.infer.writers import safetensors as tensors
from vidstill.pipelines.infer.writers.feature_table import Column, Columns, Table, rows_in
from vidstill.utils.files import written_whole
from vidstill.utils.types import InputError

Format = Literal["npz", "safetensors", "parquet"]

_MODULES = {"npz": npz, "safetensors": tensors, "parquet": parquet}
_OLD = "old"  # the piece that is the file as it was


class OneFile:
    """A file with all videos, a row for each or for each window of it.

    Args:
        out: the file; `OUT.part` beside it is where the work is done.
    """

    def __init__(self, out: Path, kind: Format, columns: Columns):
        self.out, self.parts = out, Parts.beside(out)
        self._kind, self._columns = kind, columns
        if kind == "parquet":
            parquet.pyarrow()

    @property
    def told(self) -> Mapping[str, Any] | None:
        """What the file says of itself; None if it is not there."""
        return None if self._there is None else self._there.about

    @cached_property
    def _there(self) -> Table | None:
        """
        Raises:
            InputError: what is there is something else.
        """
        if not self.out.exists():
            return None
        table = _MODULES[self._kind].read(self.out) if self.out.is_file() else None
        if table is None:
            raise InputError(f"{self.out} is there and holds no features ({self._kind}); choose another with --out")
        return table

    def entries(self, videos: Videos) -> dict[tuple[Key, Stamp], Entry]:
        """The videos that are done, of each file as it was then.

        Raises:
            InputError: the file holds some that are not asked for, which would be lost.
        """
        table = self._there
        if table is None:
            return self.parts.entries()
        lost = [key.name for key in table.keys if key not in videos.places]
        if lost:
            raise InputError(
                f"{self.out} holds {len(lost)} videos that are not asked for, first {lost[0]}, and is made anew if "
                "anything is added; name them too, or choose another file with --out"
            )
        first, rows = table.offsets[:-1].tolist(), np.diff(table.offsets).tolist()
        found = {
            (key, stamp): Entry(stamp, rows[place], first[place], _OLD)
            for place, (key, stamp) in enumerate(zip(table.keys, table.stamps, strict=True))
        }
        return found | self.parts.entries()

    def writer(self, rank: int) -> Piece:
        return Piece(self.parts, str(rank), self._columns)

    def finish(self, videos: Videos, entries: Mapping[Key, Entry], about: Mapping[str, Any]) -> None:
        """Writes the file, unless it is there and would be the same."""
        keys = [key for key in videos.places if key in entries]
        table = Table(
            about,
            keys,
            [entries[key].stamp for key in keys],
            videos.labels(keys) if videos.classes else None,
            videos.classes,
            np.cumsum([0, *(entries[key].rows for key in keys)]),
            self._read(entries[key] for key in keys),
        )
        there = self._there
        old = any(entry.piece == _OLD for entry in entries.values())
        if there is None or not there.says_what(table) or any(entry.piece != _OLD for entry in entries.values()):
            self.parts.claim(about)
            if old and there is not None:
                self._keep(there)
            whole = self.parts.folder / self.out.name
            with written_whole(whole) as file:
                _MODULES[self._kind].write(file, table)
            put(whole, self.out)
        self.parts.remove()

    def _keep(self, table: Table) -> None:
        """The columns of the file that is there, as a piece."""
        for name, column in table.columns.items():
            with writable(path := piece_file(self.parts, _OLD, name)), path.open("wb") as file:
                for chunk in column.chunks(table.at_once):
                    file.write(chunk.tobytes())

    def _read(self, entries: Iterator[Entry]) -> dict[str, Column]:
        """The columns of these videos, one video after the other."""
        spans: list[tuple[str, int, int]] = []
        for entry in entries:
            if spans and (spans[-1][0], sum(spans[-1][1:])) == (entry.piece, entry.first):
                spans[-1] = entry.piece, spans[-1][1], spans[-1][2] + entry.rows
            else:
                spans.append((entry.piece, entry.first, entry.rows))
        return {
            name: Column(kind, shape, partial(self._rows, name, kind, shape, spans))
            for name, (kind, shape) in self._columns.items()
        }

    def _rows(
        self, name: str, kind: str, shape: tuple[int, ...], spans: list[tuple[str, int, int]], step: int
    ) -> Iterator[np.ndarray]:
        """The rows of the spans, each a piece's from the first so many, `step` at a time."""
        with ExitStack() as stack:
            pieces = {piece for piece, _, _ in spans}
            files = {each: stack.enter_context(piece_file(self.parts, each, name).open("rb")) for each in pieces}
            held: list[np.ndarray] = []
            for piece, first, rows in spans:
                files[piece].seek(first * row_bytes(kind, shape))
                while rows:
                    taken = min(rows, step - sum(map(len, held)))
                    held += rows_in(files[piece], kind, (taken, *shape), taken)
                    rows -= taken
                    if sum(map(len, held)) == step:
                        yield np.concatenate(held)
                        held = []
            if held:
                yield np.concatenate(held)
