"""Look into directories, local or behind a URL, and read their text files."""

import io
import os
import stat
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from vidstill.data.storage.addresses import leads_outside
from vidstill.data.storage.fetch import (
    PathOrUrl,
    ShardMember,
    StorageUnreachable,
    VideoSource,
    call_with_retries,
    fetch_source,
    format_error,
    resolve_filesystem,
)
from vidstill.synthetic.made import identify_made, is_made, parse_made
from vidstill.utils.types import InputError


def is_file(path: PathOrUrl) -> bool:
    return path.is_file() if isinstance(path, Path) else _get_url_type(path) == "file"


def is_directory(path: PathOrUrl) -> bool:
    return path.is_dir() if isinstance(path, Path) else _get_url_type(path) == "directory"


def invalidate_listing_cache(path: PathOrUrl) -> None:
    """Drop cached listings behind a URL: others may have written there since."""
    if isinstance(path, str):
        resolve_filesystem(path)[0].invalidate_cache()


def parent_path(path: PathOrUrl) -> PathOrUrl:
    """Return the directory of a file."""
    return path.parent if isinstance(path, Path) else path.rpartition("/")[0]


def base_name(path: PathOrUrl) -> str:
    return path.name if isinstance(path, Path) else path.rstrip("/").rpartition("/")[2]


def read_lines(path: PathOrUrl) -> Iterator[tuple[int, str]]:
    """Yield a text's non-empty lines, stripped, with their numbers from 1.

    Raises:
        InputError: It is not UTF-8 text; the line is named.
    """
    file_or_bytes = fetch_source(path)
    with file_or_bytes.open("rb") if isinstance(file_or_bytes, Path) else io.BytesIO(file_or_bytes) as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise InputError(f"line {number} of {path} is not UTF-8 text; give a list of videos") from None
            if "\0" in line:
                raise InputError(f"line {number} of {path} holds a zero byte; give a list of videos in UTF-8")
            if line:
                yield number, line


def read_first_line(path: PathOrUrl) -> str:
    """Return the first line of a file of any kind, at most 4096 bytes."""

    def fetch_head() -> bytes:
        filesystem, inside = resolve_filesystem(str(path))
        return bytes(filesystem.cat_file(inside, start=0, end=4096)) if filesystem.size(inside) else b""

    if isinstance(path, Path):
        with path.open("rb") as file:
            head = file.readline(4096)
    else:
        head = call_with_retries(path, fetch_head)
    return str(head.partition(b"\n")[0], "utf-8-sig", "replace").strip()


def read_text(path: PathOrUrl) -> str:
    """Read a text file.

    Raises:
        InputError: It is not UTF-8 text.
    """
    file_or_bytes = fetch_source(path)
    try:
        return str(file_or_bytes.read_bytes() if isinstance(file_or_bytes, Path) else file_or_bytes, "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; fetch it again") from None


def list_files(directory: PathOrUrl) -> list[str]:
    """Return the sorted names of a directory's files, without hidden ones."""
    return sorted(name for _, _, files in islice(walk_directory(directory), 1) for name in files if name[0] != ".")


def list_directories(directory: PathOrUrl) -> list[str]:
    """Return the sorted names of a directory's subdirectories, without hidden ones."""
    return sorted(name for _, inside, _ in islice(walk_directory(directory), 1) for name in inside if name[0] != ".")


def walk_directory(directory: PathOrUrl, *, follow_links: bool = False) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield each directory of a tree from the top, as `os.walk` does: its path relative to the root, "" for the root
    itself, its subdirectories and its files.

    Subdirectories are visited in the order of their list; those that the caller removes from it are skipped.

    Args:
        directory: The root.
        follow_links: Whether to visit directories behind links; then the caller has to break cycles.
    """
    if isinstance(directory, str):
        yield from _walk_url(directory.rstrip("/"), "")
        return
    for path, subdirectories, files in os.walk(directory, onerror=_raise_walk_error, followlinks=follow_links):
        yield path[len(str(directory)) :].strip("/"), subdirectories, files


def _walk_url(url: str, relative_path: str) -> Iterator[tuple[str, list[str], list[str]]]:
    sizes = _list_url(url)
    subdirectories = [name for name, size in sizes.items() if size is None]
    yield relative_path, subdirectories, [name for name, size in sizes.items() if size is not None]
    for name in subdirectories:
        yield from _walk_url(f"{url}/{name}", f"{relative_path}/{name}" if relative_path else name)


class FileState(NamedTuple):
    """What is known of a file without opening it."""

    size: int  # in bytes; 0 for a directory
    mtime_ns: int = -1  # when it was modified; -1 behind a URL


def build_file_lookup(root: PathOrUrl, outside: list[str]) -> Callable[[str], FileState | None]:
    """Return a function from a path relative to the root to its state, None if it does not exist.

    Behind a URL whole directories are listed, each once, instead of one request per file.

    Args:
        outside: Receives the relative paths that lead out of a local root by a link.
    """
    list_directory = cache(_list_url)

    def look_up_url(url: str) -> FileState | None:
        directory, _, name = url.rpartition("/")
        sizes = list_directory(directory)
        return FileState(sizes[name] or 0) if name in sizes else None

    @cache
    def is_linked(directory: str) -> bool:
        return leads_outside(prefix + directory, prefix)

    def look_up_local(path: str) -> FileState | None:  # called a million times at the start of a run
        if "://" in path:
            return look_up_url(path)
        full = path if path[0] == "/" else prefix + path
        try:
            status = os.lstat(full)
            if is_link := stat.S_ISLNK(status.st_mode):
                status = os.stat(full)
        except OSError:
            return None
        # an absolute path is meant to be outside
        if path[0] != "/" and (is_linked(path.rpartition("/")[0]) or (is_link and leads_outside(full, prefix))):
            outside.append(path)
        return FileState(0 if stat.S_ISDIR(status.st_mode) else status.st_size, status.st_mtime_ns)

    if isinstance(root, Path):
        prefix = f"{root}/"
        return look_up_local
    return lambda path: look_up_url(path if "://" in path else f"{root.rstrip('/')}/{path}")


def stat_source(source: VideoSource) -> tuple[int, int | None] | None:
    """Return the size in bytes (0 for a directory) and the modification time of a file: a changed file differs in them.

    The time is None for a missing file; the result is None for a URL. Drawn clips have what tells them apart as a time.
    """
    if is_made(source):
        return 0, int(identify_made(source)[:15], 16)
    path = source.shard if isinstance(source, ShardMember) else source
    if not isinstance(path, Path):
        return None
    try:
        status = path.stat()
    except OSError:
        return 0, None
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return source.size if isinstance(source, ShardMember) else size, status.st_mtime_ns


def _get_url_type(url: str) -> str:
    """Return "file", "directory", or "" where there is nothing."""
    if is_made(url):
        return "directory" if parse_made(url).job is None else "file"

    def fetch_type() -> str:
        filesystem, path = resolve_filesystem(url)
        return str(filesystem.info(path)["type"])

    try:
        return call_with_retries(url, fetch_type)
    except FileNotFoundError:
        return ""


def _list_url(url: str) -> dict[str, int | None]:
    """List a directory behind a URL: each file's size in bytes, None for a subdirectory.

    There is no timeout: a very large directory may take minutes.
    """
    filesystem, path = resolve_filesystem(url)
    try:
        entries = filesystem.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except Exception as error:  # each library behind fsspec has its own errors
        raise StorageUnreachable(f"{url} cannot be listed: {format_error(error)}") from error
    sizes = {
        entry["name"].rstrip("/"): None if entry["type"] == "directory" else int(entry["size"] or 0)
        for entry in entries
    }
    sizes.pop(path.rstrip("/"), None)  # some servers list an empty file for the directory itself
    return {name.rpartition("/")[2]: size for name, size in sizes.items()}


def _raise_walk_error(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a split may lack a class
        raise error
