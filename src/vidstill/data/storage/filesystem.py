"""Looks around in folders, of this machine or behind an address: what is there, how large it is, what it says."""

import io
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from vidstill.data.storage.fetch import Place, Unreachable, answered, fetched, reached, reason
from vidstill.utils.types import InputError


def is_file(place: Place) -> bool:
    return place.is_file() if isinstance(place, Path) else _kind(place) == "file"


def is_folder(place: Place) -> bool:
    return place.is_dir() if isinstance(place, Path) else _kind(place) == "directory"


def look_again(place: Place) -> None:
    """Forgets what was seen behind an address: others may have written there since."""
    if isinstance(place, str):
        reached(place)[0].invalidate_cache()


def above(place: Place) -> Place:
    """The folder that a file lies in."""
    return place.parent if isinstance(place, Path) else place.rpartition("/")[0]


def last_name(place: Place) -> str:
    return place.name if isinstance(place, Path) else place.rstrip("/").rpartition("/")[2]


def lines_of(place: Place) -> Iterator[tuple[int, str]]:
    """A text's lines that hold something, numbered from 1.

    Raises:
        InputError: it is no text in UTF-8; the line is named.
    """
    with _opened(place) as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise InputError(f"line {number} of {place} is no text in UTF-8; give a list of videos") from None
            if "\0" in line:
                raise InputError(f"line {number} of {place} holds a zero byte; give a list of videos in UTF-8")
            if line:
                yield number, line


def first_line(place: Place) -> str:
    """How a file begins, whatever it is."""
    if isinstance(place, Path):
        with place.open("rb") as file:
            head = file.readline(4096)
    else:
        head = answered(place, partial(_head, place))
    return str(head.partition(b"\n")[0], "utf-8-sig", "replace").strip()


def _head(address: str) -> bytes:
    files, path = reached(address)
    return bytes(files.cat_file(path, start=0, end=4096)) if files.size(path) else b""


def text_of(place: Place) -> str:
    """
    Raises:
        InputError: it is no text in UTF-8.
    """
    with _opened(place) as file:
        try:
            return str(file.read(), "utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"{place} is no text in UTF-8; fetch it again") from None


def files_in(folder: Place) -> list[str]:
    """The names of a folder's files, but for hidden ones, in order."""
    _, _, files = next(walk(folder), ("", [], []))
    return sorted(name for name in files if name[0] != ".")


def folders_in(folder: Place) -> list[str]:
    """The names of a folder's folders, but for hidden ones, in order."""
    _, folders, _ = next(walk(folder), ("", [], []))
    return sorted(name for name in folders if name[0] != ".")


def walk(folder: Place, *, links: bool = False) -> Iterator[tuple[str, list[str], list[str]]]:
    """A folder and those in it, from the top: a path relative to it ("" is its own), its folders and its files.

    The folders are walked into in their order; what is taken out of them is passed by.

    Args:
        links: walk into folders behind links too; whoever does sees to it that there is an end.
    """
    if isinstance(folder, str):
        yield from _walk_behind(folder.rstrip("/"), "")
        return
    for here, folders, files in os.walk(folder, onerror=_refuse, followlinks=links):
        yield here[len(str(folder)) :].strip("/"), folders, files


def _walk_behind(address: str, inside: str) -> Iterator[tuple[str, list[str], list[str]]]:
    found = _listed(address)
    folders = [name for name, size in found.items() if size is None]
    yield inside, folders, [name for name, size in found.items() if size is not None]
    for name in folders:
        yield from _walk_behind(f"{address}/{name}", f"{inside}/{name}" if inside else name)


def sizes_below(root: Place) -> Callable[[str], int | None]:
    """Gives a file's size in bytes, 0 for a folder, None where there is nothing, by its path relative to the root.

    Behind an address whole folders are listed, each when it is first asked about, rather than one file after another.
    """
    seen: dict[str, dict[str, int | None]] = {}

    def size_behind(address: str) -> int | None:
        folder, _, name = address.rpartition("/")
        if folder not in seen:
            seen[folder] = _listed(folder)
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


def _kind(address: str) -> str:
    """What is behind an address: "file", "directory", or nothing."""
    try:
        return answered(address, partial(_stated_kind, address))
    except FileNotFoundError:
        return ""


def _stated_kind(address: str) -> str:
    files, path = reached(address)
    return str(files.info(path)["type"])


def _listed(address: str) -> dict[str, int | None]:
    """What lies in a folder behind an address: each file's size in bytes, None for a folder.

    It may take minutes where there are very many, so that no answer is waited for by the clock.

    Raises:
        Unreachable: the listing failed.
    """
    files, path = reached(address)
    try:
        found = files.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except Exception as error:  # each library behind fsspec has errors of its own
        raise Unreachable(f"{address} cannot be listed: {reason(error)}") from error
    sizes = {
        each["name"].rstrip("/"): None if each["type"] == "directory" else int(each["size"] or 0) for each in found
    }
    sizes.pop(path.rstrip("/"), None)  # some list an empty file that stands for the folder
    return {name.rpartition("/")[2]: size for name, size in sizes.items()}


def _opened(place: Place) -> io.BufferedIOBase:
    here = fetched(place)
    return here.open("rb") if isinstance(here, Path) else io.BytesIO(here)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a split may lack a class
        raise error
