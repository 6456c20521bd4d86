"""The header of an MP4 or MOV, compared with limits before FFmpeg believes it (ISO/IEC 14496-12)."""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from vidstill.data.storage.fetch import BrokenVideo

MAX_EDITS = 1_000
"""Entries of a track's edit list. FFmpeg shows a track's frames once for each that spans them: 200 became 3 million."""

MAX_INDEX_ENTRIES = 2**23
"""A track's samples, times the entries of its edit list. FFmpeg takes some 70 bytes for each, in a file of any size."""

_MAX_HEADER_BYTES = 2**28  # of a moov atom
_MAX_COMPRESSED_BYTES = 2**24  # of one that QuickTime compressed, before it did
_MAX_ATOMS = 1_000  # at the root, before the header
_MAX_DEPTH = 10  # FFmpeg's own limit
_ATOM_HEAD = struct.Struct(">I4s")
_STATING_ATOMS = frozenset(
    {b"mvex", b"trak", b"tkhd", b"elst", b"stsd", b"stsz", b"stz2", b"stts", b"ctts", b"stss", b"hdlr", b"cmvd"}
)
_NESTING_ATOMS = frozenset({b"moov", b"cmov", b"trak", b"edts", b"mdia", b"minf", b"stbl"})


class _Track:
    """What is known of a track so far."""

    num_edits = num_samples = 0
    is_sound = has_unit_durations = False

    def find_excess(self) -> str | None:
        if self.num_edits > MAX_EDITS:
            return f"has an edit list of {self.num_edits} entries: more than {MAX_EDITS} are not read"
        if self.is_sound and self.has_unit_durations:  # uncompressed sound: FFmpeg indexes its chunks
            return None
        if self.num_samples * max(1, self.num_edits) > MAX_INDEX_ENTRIES:
            edits = f" and {self.num_edits} entries of an edit list" if self.num_edits > 1 else ""
            return f"states {self.num_samples} frames or sounds{edits}: more than {MAX_INDEX_ENTRIES} are not indexed"
        return None


@dataclass(frozen=True)
class MovHeader:
    """The moov atom of an MP4 or MOV; empty for any other file."""

    offset: int = 0  # of its first byte in the file
    data: bytes = b""


def read_mov_header(file: io.BytesIO | io.FileIO, name: str) -> MovHeader:
    """Read the header of an MP4 or MOV; the file is left at its beginning.

    Args:
        name: What error messages call the file.

    Raises:
        BrokenVideo: The header exceeds a limit.
    """
    num_bytes, offset = file.seek(0, io.SEEK_END), 0
    try:
        for _ in range(_MAX_ATOMS):
            file.seek(offset)
            size, kind = _read_atom_head(file.read(16))
            if kind == b"moov":
                file.seek(offset)
                header = MovHeader(offset, file.read(min(size or num_bytes, _MAX_HEADER_BYTES)))
                if excess := _find_excess(header.data):
                    raise BrokenVideo(name, excess)
                return header
            offset += size
            if not size or offset >= num_bytes:
                return MovHeader()
        raise BrokenVideo(name, f"has no header among its first {_MAX_ATOMS} atoms")
    finally:
        file.seek(0)


def _read_atom_head(data: bytes, offset: int = 0) -> tuple[int, bytes]:
    """Return an atom's size, 0 where it is not stated or is none, and its kind."""
    if len(data) < offset + 8:
        return 0, b""
    size, kind = _ATOM_HEAD.unpack_from(data, offset)
    if size == 1 and len(data) >= offset + 16:
        size = int.from_bytes(data[offset + 8 : offset + 16], "big")
    return size if size >= 8 else 0, kind


def iter_atoms(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the content of the atoms that matter, in turn; a track's comes before what it holds."""
    return _iter_atoms(header, 0, len(header))


def _iter_atoms(data: bytes, start: int, end: int, depth: int = 0) -> Iterator[tuple[bytes, bytes]]:
    while start + 8 <= end:
        size, kind = _read_atom_head(data, start)
        content_start, stop = start + (16 if data[start : start + 4] == b"\0\0\0\1" else 8), min(start + size, end)
        stop = stop if size else end
        if kind in _STATING_ATOMS:
            yield kind, data[content_start:stop]
        if depth < _MAX_DEPTH and kind in _NESTING_ATOMS:
            yield from _iter_atoms(data, content_start, stop, depth + 1)
        if depth < _MAX_DEPTH and kind == b"cmvd":
            header = _decompress(data[content_start + 4 : stop])
            yield from _iter_atoms(header, 0, len(header), depth + 1)
        start = stop


def _decompress(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MAX_COMPRESSED_BYTES)
    except zlib.error:
        return b""


def _find_excess(header: bytes) -> str | None:
    tracks = [_Track()]
    for kind, content in iter_atoms(header):
        track = tracks[-1]
        if kind == b"trak":
            tracks.append(_Track())
        elif kind == b"elst" and len(content) >= 8:
            track.num_edits = max(track.num_edits, (len(content) - 8) // (20 if content[0] == 1 else 12))
        elif kind in (b"stsz", b"stz2"):
            track.num_samples = max(track.num_samples, int.from_bytes(content[8:12], "big"))
        elif kind == b"stts":
            track.has_unit_durations = content[4:8] + content[12:16] == b"\0\0\0\1\0\0\0\1"
        elif kind == b"hdlr":
            track.is_sound |= content[8:12] == b"soun"
        elif kind == b"cmvd" and int.from_bytes(content[:4], "big") > _MAX_COMPRESSED_BYTES:
            return f"has a compressed header of more than {_MAX_COMPRESSED_BYTES} bytes"
    return next((excess for track in tracks if (excess := track.find_excess())), None)
