"""Write tar shards that are the same bytes every time, and return where each file's bytes lie."""

import io
import tarfile
from typing import BinaryIO


class ShardWriter:
    """A tar file (USTAR) under construction; its headers depend neither on the time nor on the user."""

    def __init__(self, file: BinaryIO):
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add_file(self, name: str, data: bytes) -> int:
        """Append a file and return the offset of its first byte in the shard."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        offset = self._tar.offset + tarfile.BLOCKSIZE  # a short name's header is one block
        self._tar.addfile(info, io.BytesIO(data))
        return offset

    def close(self) -> None:
        self._tar.close()
