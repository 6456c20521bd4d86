"""Writes tar shards that are whole or absent, the same bytes every time, and tells where each file's bytes lie."""

import fcntl
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vidstill.folder import HALF
from vidstill.types import InputError


class Shard:
    """A tar file (USTAR) that is being written; nothing in its headers depends on the time or on the user."""

    def __init__(self, file: BinaryIO):
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, name: str, data: bytes) -> int:
        """Appends a file and gives the offset of its first byte in the shard."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        offset = self._tar.offset + tarfile.BLOCKSIZE  # a short name's header is one block
        self._tar.addfile(info, io.BytesIO(data))
        return offset

    def close(self) -> None:
        self._tar.close()


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that is complete and on the disk afterwards, or absent, whatever happens meanwhile.

    Raises:
        InputError: it cannot be written, of which nothing is left, or another process is writing it.
    """
    half = path.with_name(path.name + HALF)
    try:
        with open(os.open(half, os.O_WRONLY | os.O_CREAT, 0o666), "wb") as file:
            if not _locked(file):
                raise InputError(f"{path} is being written by another process; wait for its end")
            try:
                yield file
                file.truncate()  # to what was written: a kill may have left more
                file.flush()
                os.fsync(file.fileno())
                half.replace(path)
            except BaseException:
                with suppress(OSError):  # a kill would leave it too
                    half.unlink()
                raise
        _note(path.parent)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); make room, or make it writable: "
            "the same command goes on"
        ) from error


def _locked(file: BinaryIO) -> bool:
    """Keeps others from writing the file until it is closed; False if they do already."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # not every network drive knows how
    return True


def _note(folder: Path) -> None:
    """Has the names in a folder on the disk, before anything is written that relies on them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every network drive knows how
            os.fsync(handle)
    finally:
        os.close(handle)
