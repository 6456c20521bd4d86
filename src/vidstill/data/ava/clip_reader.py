"""Where the frames of a video with key frames are, and those of a clip around one of its seconds."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from vidstill.data.ava.frame_sampling import KeySampling, nearest
from vidstill.data.decode.images import Picture, is_picture, read_picture
from vidstill.data.decode.probe import count_frames, facts, frame_rate
from vidstill.data.decode.reader import Frames, read_frames
from vidstill.data.decode.stream import USUAL_RATE
from vidstill.data.storage.fetch import BrokenVideo, Place, below, fetched
from vidstill.data.storage.filesystem import files_in, is_file


@dataclass(frozen=True)
class Film:
    """A video that has key frames: a file, a folder of frames, or a folder of files of one second each.

    Args:
        name: as the annotations call it.
        place: None: it is not there, and nothing can be read of it.
        form: "file": a video file; "frames": a folder of pictures; "seconds": a folder of video files `902.mp4`, each
            of one second, as VideoMAE's detection code cuts them.
        start: the second of the annotations' time at which it begins: 0 for whole films, 900 for the 15 minutes that
            are annotated in AVA.
        rate: frames per second of a folder of frames, and of a file that states none.
    """

    name: str
    place: Place | None
    form: Literal["file", "frames", "seconds"] = "file"
    start: float = 0.0
    rate: float = 30.0


class FilmReader:
    """Reads frames around seconds, and keeps of every film that it was asked for how many frames it has.

    What is not there, or does not decode, is a `BrokenVideo` that names the film and the second.
    """

    def __init__(self) -> None:
        self._lengths: dict[Film, _Length] = {}
        self._pictures: dict[Film, _Pictures] = {}

    def around(self, film: Film, second: int, sampling: KeySampling) -> Frames:
        """The frames of a clip around a second."""
        with _named(film, second):
            place = _place(film)
            if film.form == "seconds":
                return _of_seconds(place, second, sampling)
            return self._numbered(film, place, partial(_wanted, film, second, sampling))

    def at(self, film: Film, seconds: Sequence[int]) -> list[Picture]:
        """The key frames themselves: what is shown at each of these seconds."""
        with _named(film, *seconds):
            place = _place(film)
            if film.form == "seconds":
                return [read_frames(_file(place, second), [0])[0] for second in seconds]
            return list(self._numbered(film, place, partial(_keys, film, seconds)))

    def _numbered(self, film: Film, place: Place, wanted: Callable[["_Length"], list[int]]) -> Frames:
        """
        Args:
            wanted: the numbers of frames, by how many there are.
        """
        if film.form == "frames":
            pictures = self._pictures.get(film)
            if pictures is None:
                pictures = self._pictures[film] = _Pictures.of(place)
            return pictures.read(place, wanted(_Length(pictures.total, film.rate)))
        length = self._lengths.get(film)
        if length is None:
            stated = facts(place)
            length = _Length(stated.frames or count_frames(place), stated.rate or film.rate, bool(stated.frames))
            self._lengths[film] = length
        try:
            return read_frames(place, wanted(length))
        except BrokenVideo:
            if not length.stated:
                raise
            self._lengths[film] = _Length(count_frames(place), length.rate)
            return read_frames(place, wanted(self._lengths[film]))


@dataclass(frozen=True)
class _Length:
    """A video's frames, and how many of them it has in a second.

    Args:
        stated: the number of frames is what the file's header says, which may be wrong.
    """

    frames: int
    rate: float
    stated: bool = False


@dataclass(frozen=True)
class _Pictures:
    """The names of a folder's pictures, which are numbered: `{head}{number}{tail}`; or all of them, if they are not.

    Where they are numbered, one that is missing leaves the moments of the others as they are.
    """

    total: int
    head: str = ""
    first: int = 0
    digits: int = 0
    tail: str = ""
    names: Sequence[str] = ()

    @classmethod
    def of(cls, folder: Place) -> "_Pictures":
        names = [name for name in files_in(folder) if is_picture(name)]
        if not names:
            raise BrokenVideo(f"{folder} is a folder without pictures, or is not there")
        parts = [re.fullmatch(r"(.*?)(\d+)(\.\w+)", name, re.ASCII) for name in names]
        numbers = [int(part[2]) for part in parts if part]
        first = parts[0]
        if first and len(numbers) == len(names):
            digits = min(len(part[2]) for part in parts if part)
            found = cls(max(numbers) - min(numbers) + 1, first[1], min(numbers), digits, first[3])
            few_missing = len(names) >= 0.9 * found.total
            if few_missing and all(found.name(n - found.first) == name for n, name in zip(numbers, names, strict=True)):
                return found
        return cls(len(names), names=names)

    def read(self, folder: Place, numbers: list[int]) -> Frames:
        shown = {number: read_picture(fetched(below(folder, self.name(number)))) for number in set(numbers)}
        return _together(folder, [shown[number] for number in numbers])

    def name(self, place: int) -> str:
        return self.names[place] if self.names else f"{self.head}{self.first + place:0{self.digits}d}{self.tail}"


@contextmanager
def _named(film: Film, *seconds: int) -> Iterator[None]:
    """Says whose frames are wrong."""
    try:
        yield
    except BrokenVideo as error:
        keys = ", ".join(f"{film.name},{second:04d}" for second in seconds)
        raise BrokenVideo(f"key frame{'s' if len(seconds) > 1 else ''} {keys}: {error}") from error


def _place(film: Film) -> Place:
    if film.place is None:
        raise BrokenVideo(f"neither a file nor a folder of the video {film.name} was found")
    return film.place


def _centre(film: Film, second: int, length: _Length) -> float:
    """Where a second begins, in frames of the film.

    Raises:
        BrokenVideo: it has none there.
    """
    centre = (second - film.start) * length.rate
    if not 0 <= nearest(centre) < length.frames:
        ends = film.start + length.frames / length.rate
        raise BrokenVideo(f"{film.place} begins at second {film.start:g} and ends at second {ends:.2f}")
    return centre


def _keys(film: Film, seconds: Sequence[int], length: _Length) -> list[int]:
    """The numbers of a film's key frames."""
    return [nearest(_centre(film, second, length)) for second in seconds]


def _wanted(film: Film, second: int, sampling: KeySampling, length: _Length) -> list[int]:
    """The numbers of a film's frames around a second."""
    centre = _centre(film, second, length)
    key, ratio = nearest(centre), length.rate / sampling.rate
    return [key + place for place in sampling.places(key, length.frames - key, ratio=ratio, beyond=centre - key)]


def _of_seconds(folder: Place, second: int, sampling: KeySampling) -> Frames:
    """Frames of files of one second each, which follow one another as far as there are any."""
    file = _file(folder, second)
    ratio = (frame_rate(file) or USUAL_RATE) / sampling.rate
    reach = 1 + math.ceil(ratio * max(map(abs, sampling.offsets())))
    after = _counted(folder, range(second, second + _MOST_SECONDS), reach)
    before = _counted(folder, range(second - 1, second - _MOST_SECONDS, -1), reach)
    first = -sum(before.values())
    wanted = sampling.places(-first, sum(after.values()), ratio=ratio)
    shown: dict[int, Picture] = {}
    for each, count in sorted((before | after).items()):
        here = sorted({place for place in wanted if first <= place < first + count})
        if here:
            shown |= zip(here, read_frames(_path(folder, each), [place - first for place in here]), strict=True)
        first += count
    return _together(folder, [shown[place] for place in wanted])


_MOST_SECONDS = 3600  # that a clip reaches to each side: none does


def _counted(folder: Place, seconds: range, enough: int) -> dict[int, int]:
    """The frames of each file, up to where there are enough, or to the first that is not there."""
    counts: dict[int, int] = {}
    for second in seconds:
        if sum(counts.values()) >= enough or not is_file(_path(folder, second)):
            break
        counts[second] = count_frames(_path(folder, second))
    return counts


def _file(folder: Place, second: int) -> Place:
    """
    Raises:
        BrokenVideo: it is not there.
    """
    path = _path(folder, second)
    if not is_file(path):
        raise BrokenVideo(f"{path} is not there")
    return path


def _path(folder: Place, second: int) -> Place:
    return below(folder, f"{second}.mp4")


def _together(place: Place, pictures: Sequence[Picture]) -> Frames:
    """
    Raises:
        BrokenVideo: they are not all of one size.
    """
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        one, other = (f"{width}x{height}" for height, width, _ in list(sizes)[:2])
        raise BrokenVideo(f"{place} has frames of {one} and of {other} in one clip")
    return np.stack(pictures)
