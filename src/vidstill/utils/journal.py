"""Work that resumes: one JSON line for each finished item, beside the output until the output is complete."""

import json
import os
import shutil
from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from vidstill.utils.files import PARTIAL_SUFFIX, convert_write_errors, find_difference, open_locked, write_json
from vidstill.utils.locks import lock_outputs
from vidstill.utils.types import InputError

JOURNAL_SUFFIX = ".journal"
"""Suffix of the directory beside an output."""

_SETTINGS_FILE = "settings.json"
Record = dict[str, Any]


class Journal:
    """The finished items of an output, so that a killed command loses only the item in hand.

    The journal of `OUT` is the directory `OUT.journal`: the settings, one file of records per rank, and the arrays that
    its user keeps in `directory`. A record is a JSON object; its entry `key` names the item (a string, a number, or
    lists of these), if `done` is to find it. A record is in the file when `append` returns, so the arrays that it
    refers to are flushed before. Rank 0 opens it first, since it checks and writes the settings, and removes it after
    the output is written::

        with Journal(out, settings, runtime.rank) as journal:
            for key in share_of_this_rank - journal.done().keys():
                journal.append({"key": key, "rows": compute(key)})

    Args:
        out: The output, a file or a directory, which is not touched.
        settings: What the records depend on, as JSON values; records of other settings are never mixed with these.
        rank: Of this process: each appends to a file of its own.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], rank: int = 0):
        self.directory = out.with_name(out.name + JOURNAL_SUFFIX)
        self.settings, self.rank = settings, rank
        self._out, self._lock = out, ExitStack()
        self._file: BinaryIO | None = None

    def read_settings(self) -> dict[str, Any] | None:
        """Return the settings of the stored records; None if there are none."""
        try:
            return dict(json.loads((self.directory / _SETTINGS_FILE).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def check(self) -> None:
        """Raise an InputError if the directory holds records of other settings, or something else; write nothing."""
        stored = self.read_settings()
        if stored is None and not self._is_unused():
            raise InputError(f"{self.directory} is not a journal of unfinished work; move it away")
        if stored is not None and (difference := find_difference(stored, self.settings)):
            raise InputError(
                f"{self.directory} holds unfinished work with other settings ({difference}); delete it, or choose "
                "another path with --out"
            )

    def _is_unused(self) -> bool:
        """Return whether the directory is absent, empty, or as a kill leaves it before the settings are written."""
        if not self.directory.is_dir():
            return not os.path.lexists(self.directory)
        leftover = _SETTINGS_FILE + PARTIAL_SUFFIX
        return all(each.name == leftover or not each.stat().st_size for each in self.directory.iterdir())

    def open(self) -> None:
        """Make the directory, or check that its settings are these; rank 0 locks the output until `close`.

        Raises:
            InputError: The settings differ, another process is at work on it, or it cannot be written.
        """
        try:
            if self.rank == 0:
                self._lock.enter_context(lock_outputs(self._out))
            self.check()
            with convert_write_errors(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
                self._file = open_locked(self.directory / f"records-{self.rank}.jsonl")
                if self.rank == 0:
                    write_json(self.directory / _SETTINGS_FILE, self.settings)
                if self._file.seek(0, os.SEEK_END):
                    self._file.write(b"\n")  # ends a line that a kill has cut; readers skip it
        except BaseException:
            self.close()
            raise

    def append(self, *records: Mapping[str, Any]) -> None:
        """Write records of finished items to the file of this rank."""
        assert self._file is not None, "open the journal before it is appended to"
        with convert_write_errors(self.directory):
            self._file.write("".join(f"{json.dumps(record)}\n" for record in records).encode())
            self._file.flush()

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of all ranks as they are in the files, also cut ones: for readers that parse later."""
        for path in filter(Path.is_file, sorted(self.directory.glob("records-*.jsonl"))):
            with path.open("rb") as file:
                yield from file

    def gather(self) -> Iterator[Record]:
        """Yield the records of all ranks, this start's and earlier ones'; cut lines are skipped."""
        for line in self.lines():
            with suppress(ValueError):
                if isinstance(record := json.loads(line), dict):
                    yield record

    def done(self) -> dict[Hashable, Record]:
        """Return the records of all ranks by their `key` (lists become tuples); later records replace earlier ones."""
        return {_to_tuple(record["key"]): record for record in self.gather()}

    def close(self) -> None:
        """Close the file of this rank, and unlock the output; the records stay."""
        self._close_file()
        self._lock.close()

    def _close_file(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # on a full disk, which was reported
                self._file.close()
            self._file = None

    def remove(self) -> None:
        """Close the journal and delete its directory, once the output is complete."""
        self._close_file()  # some network file systems keep an open file
        shutil.rmtree(self.directory, ignore_errors=True)
        self._lock.close()

    def __enter__(self) -> "Journal":
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _to_tuple(key: Any) -> Any:
    return tuple(map(_to_tuple, key)) if isinstance(key, list) else key
