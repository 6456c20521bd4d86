"""Where a video's bytes are: in a file, behind an address, in a shard, or in memory; how they are reached and named."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from vidstill.parallel.heartbeat import beat
from vidstill.utils.types import InputError

TRY_SECONDS = 20.0
"""So long is waited for an answer from an address before it is asked again."""

GIVE_UP_SECONDS = 60.0
"""After so long without an answer an address counts as unreachable; it is asked at least twice."""

BLOCK_BYTES = 2**23
"""At most so much is asked for at a time: 0.4 MB a second are enough."""

_PAUSES = 1.0, 8.0  # seconds between two tries: the first, and the longest, to which they double
_BEAT_SECONDS = 0.25  # waiting has an end of its own: meanwhile nobody should take this process for stuck

T = TypeVar("T")

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
        Unreachable: an address does not answer, for `GIVE_UP_SECONDS`, or refuses.
    """
    if isinstance(source, str):
        return _bytes_behind(source, source)
    if not isinstance(source, Piece):
        return source
    end = source.offset + source.size
    if isinstance(source.shard, str):
        data = _bytes_behind(source.shard, name_of(source), source.offset, end)
    else:
        data = _bytes_in(source.shard, name_of(source), source.offset, end)
    if len(data) < source.size:
        raise BrokenVideo(
            f"{name_of(source)} is cut: of its {source.size} bytes from {source.offset} on, {len(data)} are there"
        )
    return data


def answered(name: str, ask: Callable[[], T]) -> T:
    """What `ask` gives, asked again and again while nothing answers, each time in a thread of its own.

    A thread that never gets an answer is left behind; it does not keep the process from ending.

    Args:
        name: what messages call the place.
        ask: opens what it asks by itself, so that nothing of a failed try is used again.

    Raises:
        FileNotFoundError, InputError: at once, as `ask` raises them.
        Unreachable: it refuses, or did not answer for `GIVE_UP_SECONDS`.
    """
    begun, (pause, longest) = time.monotonic(), _PAUSES
    tries = 0
    while True:
        tries += 1
        try:
            return _in_time(ask)
        except (FileNotFoundError, InputError):
            raise
        except Exception as error:  # each library behind fsspec has errors of its own
            if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
                raise Unreachable(f"{name} may not be read: {reason(error)}; see to the access") from error
            passed = time.monotonic() - begun
            if passed + pause > GIVE_UP_SECONDS and tries > 1:
                raise Unreachable(
                    f"{name} cannot be reached: {reason(error)} ({tries} tries in {passed:.0f} s); "
                    "once it can, the same command goes on"
                ) from error
        _let_pass(pause)
        pause = min(2 * pause, longest)


def _bytes_in(path: Path, name: str, start: int, end: int) -> bytes:
    try:
        with path.open("rb") as file:
            if end > (there := os.fstat(file.fileno()).st_size):
                end = max(start, there)  # an index may ask for more than memory holds
            file.seek(start)
            return file.read(end - start)
    except OSError as error:
        raise BrokenVideo(f"{name} cannot be read: {reason(error)}") from error


def _bytes_behind(address: str, name: str, start: int = 0, end: int | None = None) -> bytes:
    """
    Args:
        start, end: of the bytes that are wanted; None: to the end.
    """
    try:
        if end is None:
            end = answered(name, partial(_size_of, address))
        blocks = []
        for at in range(start, end, BLOCK_BYTES):
            until = min(at + BLOCK_BYTES, end)
            blocks.append(answered(name, partial(_block_of, address, at, until)))
            if len(blocks[-1]) < until - at:
                break
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)
    except FileNotFoundError as error:
        raise BrokenVideo(f"{name} does not exist") from error


def _size_of(address: str) -> int:
    files, path = reached(address)
    size = files.size(path)
    if size is None:
        raise BrokenVideo(f"{address} does not say how large it is; copy it to this machine")
    return int(size)


def _block_of(address: str, start: int, end: int) -> bytes:
    files, path = reached(address)
    try:
        return bytes(files.cat_file(path, start=start, end=end))
    except FileNotFoundError:
        raise
    except Exception:
        if start >= files.size(path):  # asked for that, every server refuses in words of its own
            return b""
        raise


def reached(address: str) -> tuple[Any, str]:
    """What fsspec reaches an address with, made in this process, and the address as that knows it.

    Raises:
        InputError: fsspec does not know such addresses, or lacks what it needs for them.
    """
    try:
        return fsspec.url_to_fs(address)
    except ImportError as error:
        extra = "; pip install 'vidstill[s3]'" if address.startswith(("s3:", "s3a:")) else ""
        raise InputError(f"{address} cannot be read: {reason(error)}{extra}") from error
    except ValueError as error:
        raise InputError(f"{address} cannot be read: {reason(error)}") from error


def _in_time(ask: Callable[[], T]) -> T:
    """What `ask` gives, or raises, or a TimeoutError after `TRY_SECONDS`."""
    answer: Future[T] = Future()

    def settle() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=settle, name="vidstill asks", daemon=True).start()
    ends = time.monotonic() + TRY_SECONDS
    while not answer.done() and (left := ends - time.monotonic()) > 0:
        beat()
        try:
            answer.exception(timeout=min(left, _BEAT_SECONDS))
        except TimeoutError:
            continue
    if not answer.done():
        raise TimeoutError(f"no answer within {TRY_SECONDS:g} s")
    return answer.result()


def _let_pass(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        beat()
        time.sleep(min(left, _BEAT_SECONDS))
