"""Files that make a demuxer open sockets or other files, or that cost far more than their bytes."""

import io
import struct
import zlib
from pathlib import Path

from PIL import Image

SESSION = b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45678 RTP/AVP 26\n"
"""A session description (SDP): whoever opens it listens on two UDP ports, for frames that anyone may send."""


def list_in_ffconcat(video: Path) -> bytes:
    return f"ffconcat version 1.0\nfile '{video}'\n".encode()


def list_in_hls(video: Path) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n".encode()


def rebuild_atom(data: bytes, path: tuple[bytes, ...], content: bytes) -> bytes:
    """Replace the content of the first atom of this path in a MOV or MP4, such as `(b"moov", b"trak")`."""
    at, parts, name = 0, [], path[0]
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        inner = data[at + 8 : at + size]
        if kind == name:
            inner, name = content if len(path) == 1 else rebuild_atom(inner, path[1:], content), b""
        parts.append(struct.pack(">I4s", len(inner) + 8, kind) + inner)
        at += size
    return b"".join(parts)


_TRACK = (b"moov", b"trak")


def refer_to(data: bytes, video: Path) -> bytes:
    """Return a MOV whose samples lie in another file, by QuickTime's alias with an absolute path (2)."""
    name = str(video).encode()
    name += bytes(len(name) % 2)
    record = bytes(10) + bytes(28) + bytes(12) + bytes(64) + bytes(16) + struct.pack(">HH", 0, 0) + bytes(16)
    record += struct.pack(">HH", 2, len(name)) + name + struct.pack(">HH", 0xFFFF, 0)
    alias = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    content = struct.pack(">II", 0, 1) + alias
    return rebuild_atom(data, (*_TRACK, b"mdia", b"minf", b"dinf", b"dref"), content)


def repeat_edit(data: bytes, count: int, milliseconds: int) -> bytes:
    """Return an MP4 that shows its first milliseconds so many times, by an edit list."""
    content = struct.pack(">II", 0, count) + struct.pack(">IIHH", milliseconds, 0, 1, 0) * count
    return rebuild_atom(data, (*_TRACK, b"edts", b"elst"), content)


def state_samples(data: bytes, count: int) -> bytes:
    """Return an MP4 that states so many frames of one byte."""
    path = (*_TRACK, b"mdia", b"minf", b"stbl")
    data = rebuild_atom(data, (*path, b"stsz"), struct.pack(">III", 0, 1, count))
    data = rebuild_atom(data, (*path, b"stsc"), struct.pack(">IIIII", 0, 1, 1, count, 1))
    return rebuild_atom(data, (*path, b"stts"), struct.pack(">IIII", 0, 1, count, 512))


def compress_header(data: bytes) -> bytes:
    """Return a MOV whose header is compressed, as QuickTime wrote them."""
    at = data.index(b"moov") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    header = data[at : at + size]
    parts = (b"dcom", b"zlib"), (b"cmvd", struct.pack(">I", size) + zlib.compress(header))
    content = b"".join(struct.pack(">I4s", len(each) + 8, kind) + each for kind, each in parts)
    return rebuild_atom(data, (b"moov",), struct.pack(">I4s", len(content) + 8, b"cmov") + content)


def state_size(width: int, height: int) -> bytes:
    """Return a progressive JPEG of 16 by 16 pixels that states another size: its decoder takes memory for all of it."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", progressive=True)
    data = bytearray(file.getvalue())
    at = data.index(b"\xff\xc2") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def add_compressed_text(size: int) -> bytes:
    """Return a PNG with a compressed text of so many bytes."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "PNG")
    data, text = file.getvalue(), b"zTXtkey\0\0" + zlib.compress(bytes(size))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return data[:33] + chunk + data[33:]  # behind the image header
