"""Packet tables of long files, kept for as long as the process lives."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path

from vidstill.data.decode.packets import PacketTable

_MAX_BYTES = 2**26  # some 25 hours of 30 frames a second


class TableCache:
    """The tables that were used last; that of a file which has changed is built again."""

    def __init__(self, max_bytes: int = _MAX_BYTES):
        self._max_bytes = max_bytes
        self._tables: OrderedDict[Hashable, PacketTable | None] = OrderedDict()
        self._lock = threading.Lock()

    def get_or_build(
        self, file: Path | bytes, num_frames: int | None, build: Callable[[], PacketTable | None]
    ) -> PacketTable | None:
        """Return the table of a file, or what `build` returns.

        Args:
            num_frames: On which the table depends.
        """
        if isinstance(file, bytes):
            return build()
        status = file.stat()
        key = (file.absolute(), status.st_size, status.st_mtime_ns, num_frames)
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
                return self._tables[key]
        table = build()
        with self._lock:
            self._tables[key] = table
            while len(self._tables) > 1 and self._count_bytes() > self._max_bytes:
                self._tables.popitem(last=False)
        return table

    def _count_bytes(self) -> int:
        return sum(1000 + (0 if table is None else table.num_bytes) for table in self._tables.values())
