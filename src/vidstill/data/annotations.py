"""Finds a data set's videos and their classes, in folders or in lists, and says what it took the data set for."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from vidstill.data.lists import VideoList, read_list
from vidstill.data.pictures import PICTURES
from vidstill.data.rows import Row, Rows
from vidstill.data.video import VIDEOS
from vidstill.types import InputError

__all__ = ["Listing", "Row", "Rows", "Split", "read_listing", "splits_of"]

Split = Literal["train", "val"]

_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "validation", "test")}


@dataclass(frozen=True)
class Listing:
    """A data set's videos.

    Args:
        classes: their names in the order of the labels; empty where there are no labels.
        kind: in words, what the data set was taken for.
        fingerprint: of every row's relative path, label and file size, in order.
    """

    rows: Rows
    classes: tuple[str, ...]
    kind: str
    source: Path
    fingerprint: str


class _Entry(NamedTuple):
    name: str
    label: int | None = None
    frames: int | None = None
    line: int | None = None


def read_listing(path: Path, *, split: Split | None = None, root: Path | None = None) -> Listing:
    """The videos of a folder or of a list; what it is, is detected and said in the listing's `kind`.

    A folder may hold `train.csv` and `val.csv` (lists, or tables with a header), or the folders `train` and `val`, or
    a folder for each class, or videos. A file is one video, or a list. Where a folder holds no videos, its pictures
    count as such. A list's relative paths stay below their root; absolute ones are taken at their word.

    Args:
        split: the part that is wanted; None takes the train split where there are splits. A list or a single video
            that is named itself is taken whole, but for a table's column `split`.
        root: the folder that a list's paths are relative to, if it is not the list's own.

    Raises:
        InputError: there is no such data, a line of a list cannot be read, or a video that it names is missing.
    """
    try:
        return _found(path, split, root)
    except OSError as error:
        raise InputError(f"{error.filename or path} cannot be read ({error.strerror}); make it readable") from error


def listing_to_test(path: Path) -> Listing:
    """The val split where there are splits, else the whole: what is given for a test and nothing else."""
    return read_listing(path, split="val" if path.exists() and splits_of(path) else None)


def _found(path: Path, split: Split | None, root: Path | None) -> Listing:
    if not path.exists():
        raise InputError(f"{path} does not exist; give a folder of videos or a list of them")
    if path.is_file():
        if path.suffix.lower() in VIDEOS | PICTURES:
            return _listing(path, path.parent, [_Entry(path.name)], (), "one video")
        return _from_lists(path, [path], split, root)
    if not path.is_dir():
        raise InputError(f"{path} is neither a file nor a folder; give a folder of videos or a list of them")
    if lists := _parts(path, ".csv"):
        return _from_lists(_chosen(path, lists, split), lists, split, root)
    if parts := _parts(path, ""):
        return _from_folder(_chosen(path, parts, split), parts, f"the {split or 'train'} split of ")
    if split == "val":
        raise InputError(f"{path} has no val split; give a folder with train and val in it, as lists or as folders")
    return _from_folder(path, [path], "")


def splits_of(path: Path) -> tuple[Split, ...]:
    """The splits that a data set has; none if it is one whole."""
    if path.is_file():
        stated = set() if path.suffix.lower() in VIDEOS | PICTURES else set(read_list(path).splits)
    else:
        stated = {part.stem for part in _parts(path, ".csv") or _parts(path, "")}
    return tuple(split for split, names in _SPLIT_NAMES.items() if stated & set(names))


def _parts(folder: Path, suffix: str) -> list[Path]:
    """The lists (`.csv`) or folders (no suffix) that are named as splits."""
    parts = [folder / (name + suffix) for names in _SPLIT_NAMES.values() for name in names]
    return [part for part in parts if (part.is_file() if suffix else part.is_dir())]


def _chosen(path: Path, parts: Sequence[Path], split: Split | None) -> Path:
    for name in _SPLIT_NAMES[split or "train"]:
        for part in parts:
            if part.stem == name:
                return part
    raise InputError(f"{path} has no {split or 'train'} split, only {', '.join(part.name for part in parts)}")


def _from_lists(path: Path, lists: Sequence[Path], split: Split | None, root: Path | None) -> Listing:
    """One list of a data set; the others help to number its classes, so that they are the same in every split."""
    tables = {each: read_list(each) for each in lists}
    table = tables[path]
    classes = _classes(path, tables.values())
    order = {name: label for label, name in enumerate(classes)}
    if stray := sorted(set(table.words) - set(order)):
        raise InputError(
            f"{path} has the class {stray[0]!r}, which is not in {path.parent / 'classes.txt'}; add it there"
        )
    relabel = [order[word] for word in table.words]
    names = _SPLIT_NAMES[split or "train"]
    whole = not set(table.splits) & {name for names in _SPLIT_NAMES.values() for name in names}
    if not whole and not set(table.splits) & set(names):
        raise InputError(
            f"{path} has no row of the {split or 'train'} split, only {', '.join(sorted(set(table.splits)))}"
        )

    def entries() -> Iterator[_Entry]:
        for i, line in enumerate(table.lines):
            if whole or table.splits[i] in names:
                row = table.rows[i]
                label = relabel[row.label] if relabel and row.label is not None else row.label
                if label is not None and label >= len(classes):
                    raise InputError(
                        f"line {line} of {path} has the label {label}, but {path.parent / 'classes.txt'} "
                        f"names only {len(classes)} classes (labels are counted from 0)"
                    )
                yield _Entry(table.rows.name(i), label, row.frames, line)

    kind = f"{path.name}, {table.form}" + ("" if whole else f", its {split or 'train'} split")
    return _listing(path, root or path.parent, entries(), classes, kind)


def _classes(path: Path, tables: Iterable[VideoList]) -> tuple[str, ...]:
    """The classes' names: from `classes.txt` beside the list, or from the lists themselves."""
    tables = [table for table in tables if len(table.rows) and table.rows[0].label is not None]
    if not tables:
        return ()
    named = path.parent / "classes.txt"
    if named.is_file():
        return tuple(name for line in named.read_text("utf-8").splitlines() if (name := line.strip()))
    if any(table.words for table in tables):
        return tuple(sorted({word for table in tables for word in table.words}))
    names = {label: name for table in tables for label, name in table.names.items()}
    return tuple(names.get(i, str(i)) for i in range(1 + max(int(table.rows.labels.max()) for table in tables)))


def _from_folder(folder: Path, parts: Sequence[Path], of: str) -> Listing:
    """A folder of videos, or of a folder for each class; a class is one that any of the parts has."""
    suffixes = VIDEOS if next(_files(folder, VIDEOS), None) else PICTURES
    if any(entry.is_file() and _has_suffix(entry.name, suffixes) for entry in os.scandir(folder)):
        entries = (_Entry(name) for name in _files(folder, suffixes))
        return _listing(
            folder, folder, entries, (), f"{of}a folder of {'videos' if suffixes == VIDEOS else 'pictures'}"
        )
    inside = {entry.name for part in parts for entry in os.scandir(part) if entry.is_dir() and entry.name[0] != "."}
    found = [name for name in inside if any(next(_files(part / name, suffixes), None) for part in parts)]
    classes = tuple(sorted(found))
    entries = (
        _Entry(f"{name}/{file}", label)
        for label, name in enumerate(classes)
        for file in _files(folder / name, suffixes)
    )
    return _listing(folder, folder, entries, classes, f"{of}a folder with a folder for each class")


def _files(folder: Path, suffixes: frozenset[str]) -> Iterator[str]:
    """The videos in a folder and in its folders, relative to it, in the order of their names."""
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        inside = os.path.relpath(place, folder)
        for file in sorted(files):
            if _has_suffix(file, suffixes):
                yield file if inside == "." else f"{inside}/{file}"


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a split may lack a class
        raise error


def _has_suffix(name: str, suffixes: frozenset[str]) -> bool:
    return name[0] != "." and os.path.splitext(name)[1].lower() in suffixes


def _listing(source: Path, root: Path, entries: Iterable[_Entry], classes: tuple[str, ...], kind: str) -> Listing:
    """The listing of entries that are all there, with their fingerprint."""
    rows, digest, missing, first = Rows(root), hashlib.sha256(), 0, ""
    for name, label, frames, line in entries:
        # an absolute path is stated on purpose, as the field's lists do; a relative one must not wander off
        if not os.path.isabs(name) and os.path.normpath(name).split(os.sep)[0] == "..":
            raise InputError(f"line {line} of {source} names {name}, which lies outside {root}; move the root up to it")
        name, size = _size(root, name)
        if size is None:
            missing += 1
            first = first or f"{root / name}" + (f" (line {line})" if line else "")
            continue
        # a stated number is taken for a folder of frames only: a video's is known better by its packets
        rows.add(name, label, frames if size == 0 else None)
        digest.update(f"{name}\0{label}\0{size}\n".encode(errors="surrogateescape"))
    if missing:
        total = missing + len(rows)
        raise InputError(f"{source}: {missing} of its {total} videos are missing, first {first}; paths start at {root}")
    if not len(rows):
        raise InputError(f"no videos found in {source}; give a folder of videos, a folder for each class, or a list")
    return Listing(rows, classes, kind, source, digest.hexdigest())


def _size(root: Path, name: str) -> tuple[str, int | None]:
    """A file's size in bytes, 0 for a folder of frames, None if it is missing; a bare name may stand for an mp4."""
    for each in (name, f"{name}.mp4") if "." not in os.path.basename(name) else (name,):
        try:
            facts = os.stat(os.path.join(root, each))
        except OSError:
            continue
        return each, 0 if stat.S_ISDIR(facts.st_mode) else facts.st_size
    return name, None
