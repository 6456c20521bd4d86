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

from vidstill.parallel.heartbeat import send_heartbeat
from vidstill.utils.types import InputError

REQUEST_TIMEOUT_SECONDS = 20.0
"""So long is waited for an answer from an address before it is asked again."""

RETRY_TIMEOUT_SECONDS = 60.0
"""After so long without an answer an address counts as unreachable; it is asked at least twice."""

BLOCK_BYTES = 2**23
"""At most so much is asked for at a time: 0.4 MB a second are enough."""

_BACKOFF_SECONDS = 1.0, 8.0  # seconds between two tries: the first, and the longest, to which they double
_HEARTBEAT_SECONDS = 0.25  # waiting has an end of its own: meanwhile nobody should take this process for stuck

T = TypeVar("T")

PathOrUrl = Path | str
"""A path of this machine, or, as text, an address that fsspec knows, such as `s3://bucket/videos/one.mp4`."""


@dataclass(frozen=True)
class ShardMember:
    """Some bytes of a larger file: a video in a shard.

    Args:
        offset, size: in bytes.
        name: what the video was called before it was packed.
    """

    shard: PathOrUrl
    offset: int
    size: int
    name: str


VideoSource = PathOrUrl | ShardMember | bytes
"""A video file, a picture, a folder of pictures that are its frames in the order of their names, or a file's bytes.

What lies behind an address, and a piece of a shard, is read whole before it is decoded.
"""


class BrokenVideo(InputError):
    """A video that cannot be read, or not as far as was requested.

    Args:
        source: The video; `source` holds the name that messages call it.
        reason: Why, to be read after the name: "does not decode: …".
    """

    def __init__(self, source: "VideoSource", reason: str):
        super().__init__(source_name(source), reason)
        self.source, self.reason = source_name(source), reason

    def __str__(self) -> str:
        return f"{self.source} {self.reason}"


class StorageUnreachable(InputError):
    """A place that does not answer: no fault of the file's, so that nothing stands in for it."""


def parse_path(path: PathOrUrl) -> PathOrUrl:
    """An address stays text; anything else is a path."""
    return path if isinstance(path, str) and "://" in path else Path(path)


def join_path(root: PathOrUrl, name: str) -> PathOrUrl:
    """The place of a name that is relative to a root; absolute paths and addresses are taken at their word."""
    if "://" in name:
        return name
    return f"{root.rstrip('/')}/{name}" if isinstance(root, str) else root / name


def source_name(source: VideoSource) -> str:
    """What messages call it."""
    if isinstance(source, bytes):
        return f"a video of {len(source)} bytes"
    return f"{source.name} in {source.shard}" if isinstance(source, ShardMember) else str(source)


def format_error(error: Exception) -> str:
    """What a library's error says, on its own."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()


def fetch_source(source: VideoSource) -> Path | bytes:
    """A file of this machine, or the bytes of what is none.

    Raises:
        BrokenVideo: what should hold them is gone, or ends too soon.
        Unreachable: an address does not answer, for `RETRY_TIMEOUT_SECONDS`, or refuses.
    """
    if isinstance(source, str):
        return _fetch_url_range(source, source)
    if not isinstance(source, ShardMember):
        return source
    end = source.offset + source.size
    if isinstance(source.shard, str):
        data = _fetch_url_range(source.shard, source_name(source), source.offset, end)
    else:
        data = _read_file_range(source.shard, source_name(source), source.offset, end)
    if len(data) < source.size:
        raise BrokenVideo(
            source, f"is cut: of its {source.size} bytes from byte {source.offset} on, the shard has {len(data)}"
        )
    return data


def call_with_retries(name: str, request: Callable[[], T]) -> T:
    """What `ask` gives, asked again and again while nothing answers, each time in a thread of its own.

    A thread that never gets an answer is left behind; it does not keep the process from ending.

    Args:
        name: what messages call the place.
        request: opens what it asks by itself, so that nothing of a failed try is used again.

    Raises:
        FileNotFoundError, InputError: at once, as `ask` raises them.
        Unreachable: it refuses, or did not answer for `RETRY_TIMEOUT_SECONDS`.
    """
    begun, (pause, longest) = time.monotonic(), _BACKOFF_SECONDS
    tries = 0
    while True:
        tries += 1
        try:
            return _call_with_timeout(request)
        except (FileNotFoundError, InputError):
            raise
        except Exception as error:  # each library behind fsspec has errors of its own
            if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
                raise StorageUnreachable(f"{name} may not be read: {format_error(error)}; see to the access") from error
            passed = time.monotonic() - begun
            if passed + pause > RETRY_TIMEOUT_SECONDS and tries > 1:
                raise StorageUnreachable(
                    f"{name} cannot be reached: {format_error(error)} ({tries} tries in {passed:.0f} s); "
                    "once it can, the same command goes on"
                ) from error
        _sleep_with_heartbeat(pause)
        pause = min(2 * pause, longest)


def _read_file_range(path: Path, name: str, start: int, end: int) -> bytes:
    try:
        with path.open("rb") as file:
            if end > (there := os.fstat(file.fileno()).st_size):
                end = max(start, there)  # an index may ask for more than memory holds
            file.seek(start)
            return file.read(end - start)
    except OSError as error:
        raise BrokenVideo(name, f"cannot be read: {format_error(error)}") from error


def _fetch_url_range(url: str, name: str, start: int = 0, end: int | None = None) -> bytes:
    """
    Args:
        start, end: of the bytes that are wanted; None: to the end.
    """
    try:
        if end is None:
            end = call_with_retries(name, partial(_fetch_size, url))
        blocks = []
        for at in range(start, end, BLOCK_BYTES):
            until = min(at + BLOCK_BYTES, end)
            blocks.append(call_with_retries(name, partial(_fetch_block, url, at, until)))
            if len(blocks[-1]) < until - at:
                break
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)
    except FileNotFoundError as error:
        raise BrokenVideo(name, "does not exist") from error


def _fetch_size(url: str) -> int:
    files, path = resolve_filesystem(url)
    size = files.size(path)
    if size is None:
        raise BrokenVideo(url, "does not state its size; copy it to this machine")
    return int(size)


def _fetch_block(url: str, start: int, end: int) -> bytes:
    files, path = resolve_filesystem(url)
    try:
        return bytes(files.cat_file(path, start=start, end=end))
    except FileNotFoundError:
        raise
    except Exception:
        if start >= files.size(path):  # asked for that, every server refuses in words of its own
            return b""
        raise


def resolve_filesystem(url: str) -> tuple[Any, str]:
    """What fsspec reaches an address with, made in this process, and the address as that knows it.

    Raises:
        InputError: fsspec does not know such addresses, or lacks what it needs for them.
    """
    try:
        return fsspec.url_to_fs(url)
    except ImportError as error:
        extra = "; pip install 'vidstill[s3]'" if url.startswith(("s3:", "s3a:")) else ""
        raise InputError(f"{url} cannot be read: {format_error(error)}{extra}") from error
    except ValueError as error:
        raise InputError(f"{url} cannot be read: {format_error(error)}") from error


def _call_with_timeout(request: Callable[[], T]) -> T:
    """What `ask` gives, or raises, or a TimeoutError after `REQUEST_TIMEOUT_SECONDS`."""
    answer: Future[T] = Future()

    def settle() -> None:
        try:
            answer.set_result(request())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=settle, name="vidstill asks", daemon=True).start()
    ends = time.monotonic() + REQUEST_TIMEOUT_SECONDS
    while not answer.done() and (left := ends - time.monotonic()) > 0:
        send_heartbeat()
        try:
            answer.exception(timeout=min(left, _HEARTBEAT_SECONDS))
        except TimeoutError:
            continue
    if not answer.done():
        raise TimeoutError(f"no answer within {REQUEST_TIMEOUT_SECONDS:g} s")
    return answer.result()


def _sleep_with_heartbeat(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        send_heartbeat()
        time.sleep(min(left, _HEARTBEAT_SECONDS))
