"""Fetch a video's bytes: from a local file, a URL, or a shard; requests to servers time out and are retried."""

import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from vidstill.data.storage.addresses import check_inside, parse_address
from vidstill.data.storage.http import open_http_session
from vidstill.parallel.process import send_heartbeat
from vidstill.synthetic.made import is_made, parse_made
from vidstill.utils.types import InputError

REQUEST_TIMEOUT_SECONDS = 20.0
"""A request without an answer for so long is sent again."""

RETRY_TIMEOUT_SECONDS = 60.0
"""After so long without an answer a server counts as unreachable; at least two requests are sent."""

BLOCK_BYTES = 2**23
"""The most that one request reads: with 0.4 MB a second it is answered in time."""

MAX_FETCH_BYTES = 2**32
"""A video behind an address is held in memory whole; a larger one is refused, whatever its server states."""

_BACKOFF_SECONDS = 1.0, 8.0  # between two requests: at first, and at most, to which it doubles
_HEARTBEAT_SECONDS = 0.25  # waiting has its own timeout: meanwhile this process should not be killed as stuck

T = TypeVar("T")

PathOrUrl = Path | str
"""A local path, or, as text, an address as `parse_address` or `parse_made` accept it: `s3://bucket/videos/one.mp4`."""


@dataclass(frozen=True)
class ShardMember:
    """A video in a shard: some bytes of a larger file.

    Args:
        shard: The larger file.
        offset: The first byte.
        size: Bytes.
        name: The name of the video before it was packed.
        root: The local directory that the shard has to be in, with all links followed; None: any.
    """

    shard: PathOrUrl
    offset: int
    size: int
    name: str
    root: Path | None = field(default=None, compare=False, repr=False)


VideoSource = PathOrUrl | ShardMember | bytes
"""A video file, an image, a folder of images that are its frames in the order of their names, or a file's bytes.

A remote file, and a video in a shard, is read whole before it is decoded.
"""


class BrokenVideo(InputError):
    """A video that cannot be read, or not as far as was requested.

    Args:
        source: The video; as a field, the name that messages call it.
        reason: Why, to be read after the name: "does not decode: …".
    """

    def __init__(self, source: VideoSource, reason: str):
        super().__init__(source_name(source), reason)
        self.source, self.reason = source_name(source), reason

    def __str__(self) -> str:
        return f"{self.source} {self.reason}"


class StorageUnreachable(InputError):
    """A server that does not answer, which is no fault of the file: no other video replaces it."""


def parse_path(path: PathOrUrl) -> PathOrUrl:
    """Return an address as text, with that of drawn clips spelt out, and anything else as a path.

    Raises:
        InputError: It is an address that is not read.
    """
    if is_made(path):
        return str(parse_made(path))
    return parse_address(path) if isinstance(path, str) and "://" in path else Path(path)


def join_path(root: PathOrUrl, name: str) -> PathOrUrl:
    """Join a name to a root; absolute paths and URLs replace the root."""
    if "://" in name:
        return name
    return f"{root.rstrip('/')}/{name}" if isinstance(root, str) else root / name


def source_name(source: VideoSource) -> str:
    """Return what messages call a video."""
    if isinstance(source, bytes):
        return f"a video of {len(source)} bytes"
    return f"{source.name} in {source.shard}" if isinstance(source, ShardMember) else str(source)


def format_error(error: Exception) -> str:
    """Return a library's error message without its number and path."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip()


def fetch_source(source: VideoSource) -> Path | bytes:
    """Return a local file's path, or the bytes of a remote file or of a shard's member.

    Raises:
        BrokenVideo: The file or the shard does not exist, is too short, too large to be fetched, or no file.
        InputError: It is an address that is not read, or a drawn clip, or a shard that leads out of its pack by a link.
        StorageUnreachable: A server does not answer for `RETRY_TIMEOUT_SECONDS`, or denies access.
    """
    if is_made(source):
        raise InputError(f"{source} is drawn and has no file; write it into one with `vidstill data make`")
    if isinstance(source, str):
        return _fetch_url_range(source, source, 0, None)
    if not isinstance(source, ShardMember):
        if isinstance(source, Path):
            check_file_type(source)
        return source
    if source.root is not None:
        check_inside(source.shard, source.root)  # a link may have changed since the index was read
    fetch: Callable[[Any, str, int, int], bytes] = _fetch_url_range if isinstance(source.shard, str) else _read_range
    data = fetch(source.shard, source_name(source), source.offset, source.offset + source.size)
    if len(data) < source.size:
        raise BrokenVideo(
            source,
            f"is cut off: it has {source.size} bytes from byte {source.offset} on, of which the shard holds "
            f"{len(data)}",
        )
    return data


def check_file_type(path: Path) -> None:
    """Raise a BrokenVideo for what never ends or does not exist: a FIFO, a device, a socket, a link to nothing.

    Nothing is opened: a FIFO would wait for a writer, and some devices act when they are opened.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if path.is_symlink():
            raise BrokenVideo(path, f"is a link whose file cannot be read: {format_error(error)}") from error
        return  # opening it says why
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a FIFO" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise BrokenVideo(path, f"is {kind} and no file, and is not opened")


def call_with_retries(name: str, request: Callable[[], T]) -> T:
    """Call `request` until it answers, each time in its own thread, with a timeout and exponential back-off.

    A thread that never gets an answer is abandoned; it does not keep the process from ending.

    Args:
        name: What messages call the file.
        request: Opens all that it needs itself, so that nothing of a failed request is used again.

    Raises:
        FileNotFoundError, InputError: At once, as `request` raises them.
        StorageUnreachable: Access is denied, or there was no answer for `RETRY_TIMEOUT_SECONDS`.
    """
    start, (pause, max_pause) = time.monotonic(), _BACKOFF_SECONDS
    num_tries = 0
    while True:
        num_tries += 1
        try:
            return _call_with_timeout(request)
        except InputError:
            raise
        except FileNotFoundError as error:
            raise (error.__cause__ if isinstance(error.__cause__, InputError) else error) from None
        except Exception as error:  # each library behind fsspec has its own errors
            reason, seconds = format_error(error), time.monotonic() - start
            if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
                raise StorageUnreachable(f"{name} cannot be read: {reason}; check the credentials") from error
            if seconds + pause > RETRY_TIMEOUT_SECONDS and num_tries > 1:
                raise StorageUnreachable(
                    f"{name} cannot be reached: {reason} ({num_tries} tries in {seconds:.0f} s); once it can, run the "
                    "same command again to continue"
                ) from error
        _wait_with_heartbeat(Future(), pause)
        pause = min(2 * pause, max_pause)


def _read_range(path: Path, name: str, start: int, end: int) -> bytes:
    check_file_type(path)
    try:
        with path.open("rb") as file:
            # an index may state more than fits into memory
            end = min(end, max(start, os.fstat(file.fileno()).st_size))
            file.seek(start)
            return file.read(end - start)
    except OSError as error:
        raise BrokenVideo(name, f"cannot be read: {format_error(error)}") from error


def _fetch_url_range(url: str, name: str, start: int, end: int | None) -> bytes:
    """Fetch the bytes from `start` to `end`, None for all, in blocks."""
    try:
        if end is None:
            end = call_with_retries(name, partial(_fetch_size, url))
        if end - start > MAX_FETCH_BYTES:
            raise BrokenVideo(
                name, f"has {end - start:,} bytes, of which at most {MAX_FETCH_BYTES:,} are fetched; copy it to a disk"
            )
        blocks = []
        for offset in range(start, end, BLOCK_BYTES):
            until = min(offset + BLOCK_BYTES, end)
            blocks.append(call_with_retries(name, partial(_fetch_block, url, offset, until)))
            if len(blocks[-1]) > until - offset:
                raise BrokenVideo(name, "comes from a server that sends more than was requested; copy it to a disk")
            if len(blocks[-1]) < until - offset:
                break
        return b"".join(blocks)
    except FileNotFoundError as error:
        raise BrokenVideo(name, "does not exist") from error


def _fetch_size(url: str) -> int:
    filesystem, path = resolve_filesystem(url)
    if (size := filesystem.size(path)) is None:
        raise BrokenVideo(url, "comes from a server that does not state its size; copy it to a disk")
    return int(size)


def _fetch_block(url: str, start: int, end: int) -> bytes:
    filesystem, path = resolve_filesystem(url)
    try:
        return bytes(filesystem.cat_file(path, start=start, end=end))
    except FileNotFoundError:
        raise
    except Exception:
        if start >= filesystem.size(path):  # servers refuse such a range in different ways
            return b""
        raise


def resolve_filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of an address, made in this process, and the path in it.

    Raises:
        InputError: Such addresses are not read, or a package for them is missing.
    """
    options = {"get_client": open_http_session} if parse_address(url).startswith("http") else {}
    try:
        return fsspec.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        is_s3 = isinstance(error, ImportError) and url.startswith(("s3:", "s3a:"))
        extra = "; pip install 'vidstill[s3]'" if is_s3 else ""
        raise InputError(f"{url} cannot be read: {format_error(error)}{extra}") from error


def _call_with_timeout(request: Callable[[], T]) -> T:
    """Return or raise what `request` does, or raise a TimeoutError after `REQUEST_TIMEOUT_SECONDS`."""
    answer: Future[T] = Future()

    def settle() -> None:
        try:
            answer.set_result(request())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=settle, name="vidstill request", daemon=True).start()
    _wait_with_heartbeat(answer, REQUEST_TIMEOUT_SECONDS)
    if not answer.done():
        raise TimeoutError(f"no answer within {REQUEST_TIMEOUT_SECONDS:g} s")
    return answer.result()


def _wait_with_heartbeat(answer: Future[Any], seconds: float) -> None:
    """Wait for an answer, at most so long, and report progress to the parent process meanwhile."""
    end = time.monotonic() + seconds
    while not answer.done() and (remaining := end - time.monotonic()) > 0:
        send_heartbeat()
        wait([answer], timeout=min(remaining, _HEARTBEAT_SECONDS))
