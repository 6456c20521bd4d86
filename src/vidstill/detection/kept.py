"""Persons that were found, kept beside their file until that is whole, so that a kill costs only what was in hand."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vidstill.data.boxes.films import Film
from vidstill.data.boxes.rows import NO_ACTION, BoxRows, write_rows
from vidstill.detection.persons import Persons
from vidstill.folder import unwritable, write_json
from vidstill.types import InputError

BEGUN = ".begun"
"""Ends the name of the folder in which lies what is found, until the file is whole."""

_ABOUT = "about.json"
_DECIMALS = 5  # a fiftieth of a pixel in a frame of 1,920 columns


class Key(NamedTuple):
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

    def begin(self, out: Path) -> dict[Key, Persons]:
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
        found: dict[Key, Persons] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text("utf-8").splitlines():
                with suppress(ValueError):  # one that a kill has cut
                    for film, stamp, second, boxes, scores in json.loads(line):
                        if self.stamps.get(film) != stamp:
                            continue
                        persons = Persons(np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64))
                        found[Key(film, second)] = persons
        return found

    def note(self, rank: int, found: Mapping[Key, Persons]) -> None:
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

    def finish(self, out: Path, keys: Sequence[Key], found: Mapping[Key, Persons], broken: Sequence[str]) -> int:
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


def _rows(out: Path, keys: Sequence[Key], found: Mapping[Key, Persons]) -> BoxRows:
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
