"""The folder beside what is written: which videos are done, so that a kill costs no more than the one in hand."""

import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

import numpy as np

from vidstill.data.ava.box_table import BoxRows, write_rows
from vidstill.data.ava.clip_reader import Film
from vidstill.data.ava.csv_reader import NO_ACTION
from vidstill.data.storage.fetch import reason
from vidstill.pipelines.infer.embed_config import Key, Stamp, difference
from vidstill.pipelines.infer.person_detector import Persons
from vidstill.pipelines.infer.writers.feature_table import Columns
from vidstill.utils.files import HALF, unwritable, write_json
from vidstill.utils.types import InputError

_ABOUT = "about.json"
_DONE = "done-"  # a list for each process, of what it has done


@dataclass(frozen=True)
class Entry:
    """A video that is done.

    Args:
        piece: whose columns its features are in; nothing where they are in a file of their own.
        first, rows: where in them.
    """

    stamp: Stamp
    rows: int
    first: int = 0
    piece: str = ""


@runtime_checkable
class Writer(Protocol):
    """Takes the features of one video after the other; a process has its own."""

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """More rows of the video in hand, by column."""

    def end(self, key: Key, stamp: Stamp) -> Entry:
        """The video in hand is done."""

    def drop(self) -> None:
        """The video in hand is broken: forgets its rows."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Parts:
    """What is done and not yet where it belongs."""

    folder: Path

    @classmethod
    def beside(cls, out: Path) -> "Parts":
        return cls(out.with_name(out.name + HALF))

    def claim(self, about: Mapping[str, Any]) -> None:
        """Makes the folder, for features with these settings.

        Raises:
            InputError: it holds the beginning of others, or cannot be made.
        """
        self.check(about)
        with writable(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / _ABOUT, about)

    def check(self, about: Mapping[str, Any]) -> None:
        """
        Raises:
            InputError: the folder holds what is not of these settings.
        """
        told = self.told()
        if told is None or "settings" not in told:
            if self.folder.exists() and not self._is_empty():
                raise InputError(f"{self.folder} is in the way and no beginning of features; move it away")
        elif other := difference(told["settings"], about["settings"]):
            raise InputError(
                f"{self.folder} holds the beginning of features {other}; delete it, or choose another place with --out"
            )

    def told(self) -> Mapping[str, Any] | None:
        """What `claim` wrote; None where it did not."""
        try:
            return dict(json.loads((self.folder / _ABOUT).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def entries(self) -> dict[tuple[Key, Stamp], Entry]:
        """All that is done, of each file as it was then; what is no line, such as one that was cut, is passed by."""
        found = {}
        for path in sorted(self.folder.glob(f"{_DONE}*.jsonl")):
            for line in path.read_bytes().splitlines():
                with suppress(ValueError, KeyError, TypeError):
                    each = json.loads(line)
                    key, stamp = Key(*each.pop("key")), Stamp(*each.pop("stamp"))
                    found[key, stamp] = Entry(stamp, **each)
        return found

    def _is_empty(self) -> bool:
        return self.folder.is_dir() and not any(each.name != _ABOUT + HALF for each in self.folder.iterdir())

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Done:
    """A process's list of what it has done, for it alone to append to.

    Raises:
        InputError: another process does.
    """

    def __init__(self, parts: Parts, piece: str):
        self.path = parts.folder / f"{_DONE}{piece}.jsonl"
        with writable(self.path):
            self._file = self.path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(f"{parts.folder} is being written by another process; wait for its end") from None
        except OSError:
            pass  # not every network drive knows how
        if self._file.tell():
            self._append(b"\n")  # what was cut stays a line of its own

    def note(self, key: Key, entry: Entry) -> None:
        self._append((json.dumps({"key": key, **asdict(entry)}) + "\n").encode())

    def _append(self, line: bytes) -> None:
        with writable(self.path):
            while line:
                line = line[self._file.write(line) :]

    def close(self) -> None:
        self._file.close()


class Piece:
    """A process's columns of features: rows are appended, and cut off again where a video turns out to be broken.

    What a kill has left behind the last video that is done is cut off at once.

    Args:
        columns: the kind and the shape of each column's rows.
    """

    def __init__(self, parts: Parts, name: str, columns: Columns):
        self.name, self._columns = name, columns
        ends = (entry.first + entry.rows for entry in parts.entries().values() if entry.piece == name)
        self._first = self._rows = max(ends, default=0)
        self._files: dict[str, BinaryIO] = {}
        with writable(parts.folder):
            for column in columns:
                self._files[column] = piece_file(parts, name, column).open("ab")
        self.drop()

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        for column, (kind, shape) in self._columns.items():
            with writable(Path(self._files[column].name)):
                self._files[column].write(np.ascontiguousarray(arrays[column], kind).reshape(-1, *shape).tobytes())
        self._rows += len(next(iter(arrays.values())))

    def end(self, key: Key, stamp: Stamp) -> Entry:
        """The video whose rows these were is done."""
        for file in self._files.values():
            with writable(Path(file.name)):
                file.flush()
        first, self._first = self._first, self._rows
        return Entry(stamp, self._rows - first, first, self.name)

    def drop(self) -> None:
        """Cuts off what was appended since the last end."""
        self._rows = self._first
        for column, (kind, shape) in self._columns.items():
            with writable(Path(self._files[column].name)):
                self._files[column].flush()
                self._files[column].truncate(self._rows * row_bytes(kind, shape))

    def close(self) -> None:
        for file in self._files.values():
            with suppress(OSError):  # of a full disk, which was said
                file.close()


def piece_file(parts: Parts, piece: str, column: str) -> Path:
    return parts.folder / f"{column}-{piece}"


def row_bytes(kind: str, shape: tuple[int, ...]) -> int:
    return np.dtype(kind).itemsize * math.prod(shape)


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns a disk's refusal into a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({reason(error)}); make room, or make it writable: the same command goes on, "
            "and what was computed is kept"
        ) from error


def put(source: Path, target: Path) -> None:
    """Moves a finished file to where it belongs."""
    with writable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)


BEGUN = ".begun"


_DECIMALS = 5  # a fiftieth of a pixel in a frame of 1,920 columns


class MomentKey(NamedTuple):
    """A key frame."""

    film: str
    second: int


@dataclass(frozen=True)
class Kept:
    """The folder beside the file: what is found, a line for each work, until the file is whole.

    Args:
        about: what the boxes depend on, but for the films.
        stamps: of the films, by their names; what was found in others of these names does not count.
    """

    folder: Path
    about: Mapping[str, Any]
    stamps: Mapping[str, str]

    @classmethod
    def beside(cls, out: Path, about: Mapping[str, Any], films: Sequence[Film]) -> "Kept":
        return cls(out.with_name(out.name + BEGUN), about, {film.name: _stamp(film) for film in films})

    def begin(self, out: Path) -> dict[MomentKey, Persons]:
        """What is found already.

        Raises:
            InputError: there is no place for more.
        """
        if out.exists():
            raise InputError(f"{out} is there already; move it away, or choose another file with --out")
        try:
            told = json.loads((self.folder / _ABOUT).read_text("utf-8")) if self.folder.exists() else None
        except (OSError, ValueError):
            raise InputError(f"{self.folder} is in the way and no beginning of boxes; move it away") from None
        if told is not None and told != self.about:
            raise InputError(
                f"{self.folder} holds the beginning of boxes by other settings ({told}); delete it, or choose another "
                "file with --out"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / _ABOUT, self.about)
        except OSError as error:
            raise unwritable(out, error) from error
        found: dict[MomentKey, Persons] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text("utf-8").splitlines():
                with suppress(ValueError):  # one that a kill has cut
                    for film, stamp, second, boxes, scores in json.loads(line):
                        if self.stamps.get(film) != stamp:
                            continue
                        persons = Persons(np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64))
                        found[MomentKey(film, second)] = persons
        return found

    def note(self, rank: int, found: Mapping[MomentKey, Persons]) -> None:
        line = json.dumps(
            [
                [film, self.stamps[film], second, each.boxes.tolist(), each.scores.tolist()]
                for (film, second), each in found.items()
            ]
        )
        path = self.folder / f"{rank}.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}\n")  # what was cut stays a line of its own
        except OSError as error:
            raise unwritable(path, error) from error

    def finish(
        self, out: Path, keys: Sequence[MomentKey], found: Mapping[MomentKey, Persons], broken: Sequence[str]
    ) -> int:
        """Writes the file; gives how many boxes it has.

        Raises:
            InputError: there is nothing to write, or it cannot be written.
        """
        if not keys:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise InputError(f"not one key frame can be read; {broken[0]}" if broken else "there are no key frames")
        rows = _rows(out, keys, found)
        write_rows(out, rows, decimals=(_DECIMALS, _DECIMALS))
        shutil.rmtree(self.folder, ignore_errors=True)
        return len(rows)


def _rows(out: Path, keys: Sequence[MomentKey], found: Mapping[MomentKey, Persons]) -> BoxRows:
    """Boxes that have no width or no height as they are written are left out."""
    names = {name: place for place, name in enumerate(dict.fromkeys(key.film for key in keys))}
    counts = [len(found[key].scores) for key in keys]
    box = np.concatenate([found[key].boxes for key in keys]).round(_DECIMALS)
    there = (box[:, 2:] > box[:, :2]).all(axis=1)
    n = int(there.sum())
    return BoxRows(
        source=out,
        videos=tuple(names),
        video=np.repeat(np.array([names[key.film] for key in keys], np.int32), counts)[there],
        second=np.repeat(np.array([key.second for key in keys], np.int32), counts)[there],
        box=box[there],
        action=np.full(n, NO_ACTION, np.int32),
        score=np.concatenate([found[key].scores for key in keys])[there],
        line=np.arange(1, n + 1, dtype=np.int32),
    )


def _stamp(film: Film) -> str:
    """Where it is, and of a file its size and time."""
    stamp = f"{film.place} {film.start:g} {film.rate:g}"
    if isinstance(film.place, Path) and film.place.is_file():
        stamp += f" {(facts := film.place.stat()).st_size} {facts.st_mtime_ns}"
    return stamp
