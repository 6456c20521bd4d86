"""Where a video's bytes are: in a file, behind an address, in a shard, or in memory; how they are reached and named."""

from dataclasses import dataclass
from pathlib import Path

import fsspec

from vidstill.types import InputError

Place = Path | str
"""A path of this machine, or, as text, an address that fsspec knows, such as `s3://bucket/videos/one.mp4`."""


@dataclass(frozen=True)
class Piece:
    """Some bytes of a larger file: a video in a shard.

    Args:
        offset, size: in bytes.
        name: what the video was called before it was packed.
    """

    shard: Place
    offset: int
    size: int
    name: str


Source = Place | Piece | bytes
"""A video file, a picture, a folder of pictures that are its frames in the order of their names, or a file's bytes.

What lies behind an address, and a piece of a shard, is read whole before it is decoded.
"""


class BrokenVideo(InputError):
    """A file that cannot be decoded, or not as far as was asked."""


class Unreachable(InputError):
    """A place that does not answer: no fault of the file's, so that nothing stands in for it."""


def place_of(text: Place) -> Place:
    """An address stays text; anything else is a path."""
    return text if isinstance(text, str) and "://" in text else Path(text)


def below(root: Place, name: str) -> Place:
    """The place of a name that is relative to a root; absolute paths and addresses are taken at their word."""
    if "://" in name:
        return name
    return f"{root.rstrip('/')}/{name}" if isinstance(root, str) else root / name


def name_of(source: Source) -> str:
    """What messages call it."""
    if isinstance(source, bytes):
        return f"a video of {len(source)} bytes"
    return f"{source.name} in {source.shard}" if isinstance(source, Piece) else str(source)


def reason(error: Exception) -> str:
    """What a library's error says, on its own."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()


def fetched(source: Source) -> Path | bytes:
    """A file of this machine, or the bytes of what is none.

    Raises:
        BrokenVideo: what should hold them is gone, or ends too soon.
        Unreachable: an address does not answer.
    """
    if isinstance(source, str):
        return _from_address(source, source)
    if not isinstance(source, Piece):
        return source
    if isinstance(source.shard, str):
        data = _from_address(source.shard, name_of(source), source.offset, source.offset + source.size)
    else:
        try:
            with source.shard.open("rb") as file:
                file.seek(source.offset)
                data = file.read(source.size)
        except OSError as error:
            raise BrokenVideo(f"{name_of(source)} cannot be read: {reason(error)}") from error
    if len(data) < source.size:
        raise BrokenVideo(f"{name_of(source)} is cut: {len(data)} of its {source.size} bytes are there")
    return data


def _from_address(address: str, name: str, start: int | None = None, end: int | None = None) -> bytes:
    try:
        files, path = fsspec.url_to_fs(address)
        return bytes(files.cat_file(path, start=start, end=end))
    except FileNotFoundError as error:
        raise BrokenVideo(f"{name} does not exist") from error
    except OSError as error:
        raise Unreachable(f"{name} cannot be reached: {reason(error)}") from error
