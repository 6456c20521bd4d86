"""Open a video file for FFmpeg, which gets to see this one file and nothing else."""

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from vidstill.data.decode.mov_header import MovHeader, read_mov_header
from vidstill.data.storage.fetch import BrokenVideo

CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "asf_o", "ogg", "gif", "mxf", "gxf", "rm", "dv", "wtv"),
    *("nut", "nuv", "ivf", "cine", "dhav", "yuv4mpegpipe"),
    *("h261", "h263", "h264", "hevc", "vvc", "av1", "obu", "m4v", "mpegvideo", "mjpeg", "vc1", "vc1test", "dnxhd"),
)
"""FFmpeg's names of the containers, and of the bare streams, that are read.

Each holds its frames itself. Playlists (HLS, DASH, ffconcat), session descriptions (SDP), numbered pictures and devices
do not: they name other files and addresses, so that what is read would not be the file.
"""

MAX_PIXELS = 2**25
"""Of a frame or an image: an 8K frame has as many. Damaged headers state more, which would fill the memory."""

OPEN_OPTIONS = {
    "format_whitelist": ",".join(CONTAINERS),
    "protocol_whitelist": "none",  # FFmpeg reads through a Python file and opens nothing itself
    "max_pixels": str(MAX_PIXELS),
}
"""FFmpeg's, for every file that it opens."""


class _NamelessFile:
    """A file whose name FFmpeg does not see: its content alone says what it is, on a disk as in a pack.

    Args:
        header: The part of the file that has been read already, and is not read again.
    """

    def __init__(self, file: io.BytesIO | io.FileIO, header: MovHeader):
        self._file, self._header = file, header
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        offset = self._file.tell() - self._header.offset
        if 0 <= offset < len(self._header.data):
            data = self._header.data[offset : offset + size]
            self._file.seek(len(data), io.SEEK_CUR)
            return data
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):  # a damaged file leads to before its beginning
            return -errno.EINVAL  # PyAV would print an exception


@contextmanager
def open_container(file: Path | bytes, name: str) -> Iterator[tuple[Any, MovHeader]]:
    """Open a video file with PyAV, and read its header if it is an MP4 or MOV.

    The container is closed at the end of the `with` block.

    Args:
        file: A path, or the bytes of a file.
        name: What error messages call it.

    Raises:
        BrokenVideo: Its container is none of `CONTAINERS`, or its header exceeds a limit of `mov_header`.
        av.FFmpegError, OSError: It does not open.
    """
    with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb", buffering=0) as binary_file:
        header = read_mov_header(binary_file, name)
        try:
            container: Any = av.open(_NamelessFile(binary_file, header), options=OPEN_OPTIONS, metadata_errors="ignore")
        except av.ArgumentError as error:  # so FFmpeg answers for a container that is not on the list
            raise BrokenVideo(
                name, "is in none of the containers that are read, such as MP4, Matroska, AVI and MPEG-TS"
            ) from error
        with container:
            yield container, header
