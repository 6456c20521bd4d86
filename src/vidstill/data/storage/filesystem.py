"""Looks around in folders, of this machine or behind an address: what is there, how large it is, what it says."""

import io
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from vidstill.data.storage.fetch import (
    PathOrUrl,
    StorageUnreachable,
    call_with_retries,
    fetch_source,
    format_error,
    resolve_filesystem,
)
from vidstill.utils.types import InputError


def is_file(path: PathOrUrl) -> bool:
    return path.is_file() if isinstance(path, Path) else _get_url_type(path) == "file"


def is_directory(path: PathOrUrl) -> bool:
    return path.is_dir() if isinstance(path, Path) else _get_url_type(path) == "directory"


def invalidate_listing_cache(path: PathOrUrl) -> None:
    """Forgets what was seen behind an address: others may have written there since."""
    if isinstance(path, str):
        resolve_filesystem(path)[0].invalidate_cache()


def parent_path(path: PathOrUrl) -> PathOrUrl:
    """The folder that a file lies in."""
    return path.parent if isinstance(path, Path) else path.rpartition("/")[0]


def base_name(path: PathOrUrl) -> str:
    return path.name if isinstance(path, Path) else path.rstrip("/").rpartition("/")[2]


def read_lines(path: PathOrUrl) -> Iterator[tuple[int, str]]:
    """A text's lines that hold something, numbered from 1.

    Raises:
        InputError: it is no text in UTF-8; the line is named.
    """
    with _open_path(path) as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise InputError(f"line {number} of {path} is no text in UTF-8; give a list of videos") from None
            if "\0" in line:
                raise InputError(f"line {number} of {path} holds a zero byte; give a list of videos in UTF-8")
            if line:
                yield number, line


def read_first_line(path: PathOrUrl) -> str:
    """How a file begins, whatever it is."""
    if isinstance(path, Path):
        with path.open("rb") as file:
            head = file.readline(4096)
    else:
        head = call_with_retries(path, partial(_fetch_head, path))
    return str(head.partition(b"\n")[0], "utf-8-sig", "replace").strip()


def _fetch_head(url: str) -> bytes:
    files, path = resolve_filesystem(url)
    return bytes(files.cat_file(path, start=0, end=4096)) if files.size(path) else b""


def read_text(path: PathOrUrl) -> str:
    """
    Raises:
        InputError: it is no text in UTF-8.
    """
    with _open_path(path) as file:
        try:
            return str(file.read(), "utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{path} is no text in UTF-8; fetch it again") from None


def list_files(directory: PathOrUrl) -> list[str]:
    """The names of a folder's files, but for hidden ones, in order."""
    _, _, files = next(walk_directory(directory), ("", [], []))
    return sorted(name for name in files if name[0] != ".")


def list_directories(directory: PathOrUrl) -> list[str]:
    """The names of a folder's folders, but for hidden ones, in order."""
    _, folders, _ = next(walk_directory(directory), ("", [], []))
    return sorted(name for name in folders if name[0] != ".")


def walk_directory(directory: PathOrUrl, *, follow_links: bool = False) -> Iterator[tuple[str, list[str], list[str]]]:
    """A folder and those in it, from the top: a path relative to it ("" is its own), its folders and its files.

    The folders are walked into in their order; what is taken out of them is passed by.

    Args:
        follow_links: walk into folders behind links too; whoever does sees to it that there is an end.
    """
    if isinstance(directory, str):
        yield from _walk_url(directory.rstrip("/"), "")
        return
    for here, folders, files in os.walk(directory, onerror=_raise_walk_error, followlinks=follow_links):
        yield here[len(str(directory)) :].strip("/"), folders, files


def _walk_url(url: str, relative_path: str) -> Iterator[tuple[str, list[str], list[str]]]:
    found = _list_url(url)
    folders = [name for name, size in found.items() if size is None]
    yield relative_path, folders, [name for name, size in found.items() if size is not None]
    for name in folders:
        yield from _walk_url(f"{url}/{name}", f"{relative_path}/{name}" if relative_path else name)


def build_size_lookup(root: PathOrUrl) -> Callable[[str], int | None]:
    """Gives a file's size in bytes, 0 for a folder, None where there is nothing, by its path relative to the root.

    Behind an address whole folders are listed, each when it is first asked about, rather than one file after another.
    """
    seen: dict[str, dict[str, int | None]] = {}

    def size_behind(address: str) -> int | None:
        folder, _, name = address.rpartition("/")
        if folder not in seen:
            seen[folder] = _list_url(folder)
        return (seen[folder][name] or 0) if name in seen[folder] else None

    def size_here(path: str) -> int | None:  # asked a million times at the start of a run
        if "://" in path:
            return size_behind(path)
        try:
            facts = os.stat(path if path[0] == "/" else here + path)
        except OSError:
            return None
        return 0 if stat.S_ISDIR(facts.st_mode) else facts.st_size

    if isinstance(root, Path):
        here = f"{root}/"
        return size_here
    return lambda path: size_behind(path if "://" in path else f"{root.rstrip('/')}/{path}")


def _get_url_type(url: str) -> str:
    """What is behind an address: "file", "directory", or nothing."""
    try:
        return call_with_retries(url, partial(_fetch_url_type, url))
    except FileNotFoundError:
        return ""


def _fetch_url_type(url: str) -> str:
    files, path = resolve_filesystem(url)
    return str(files.info(path)["type"])


def _list_url(url: str) -> dict[str, int | None]:
    """What lies in a folder behind an address: each file's size in bytes, None for a folder.

    It may take minutes where there are very many, so that no answer is waited for by the clock.

    Raises:
        Unreachable: the listing failed.
    """
    files, path = resolve_filesystem(url)
    try:
        found = files.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except Exception as error:  # each library behind fsspec has errors of its own
        raise StorageUnreachable(f"{url} cannot be listed: {format_error(error)}") from error
    sizes = {
        each["name"].rstrip("/"): None if each["type"] == "directory" else int(each["size"] or 0) for each in found
    }
    sizes.pop(path.rstrip("/"), None)  # some list an empty file that stands for the folder
    return {name.rpartition("/")[2]: size for name, size in sizes.items()}


def _open_path(path: PathOrUrl) -> io.BufferedIOBase:
    here = fetch_source(path)
    return here.open("rb") if isinstance(here, Path) else io.BytesIO(here)


def _raise_walk_error(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a split may lack a class
        raise error
