"""Where the frames of a video with key frames are, and those of a clip around one of its seconds."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from vidstill.data.ava.frame_sampling import KeyframeSampling, round_half_up
from vidstill.data.decode.images import ImageArray, is_image_file, read_image
from vidstill.data.decode.reader import (
    DEFAULT_FRAME_RATE,
    Frames,
    count_frames,
    read_frame_rate,
    read_frames,
    read_stream_metadata,
)
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, fetch_source, join_path
from vidstill.data.storage.filesystem import is_file, list_files

VideoFormat = Literal["file", "frames", "seconds"]


@dataclass(frozen=True)
class KeyframeVideo:
    """A video that has key frames: a file, a folder of frames, or a folder of files of one second each.

    Args:
        name: as the annotations call it.
        path: None: it is not there, and nothing can be read of it.
        format: "file": a video file; "frames": a folder of pictures; "seconds": a folder of video files `902.mp4`, each
            of one second, as VideoMAE's detection code cuts them.
        start_second: the second of the annotations' time at which it begins: 0 for whole films, 900 for the 15 minutes that
            are annotated in AVA.
        frame_rate: frames per second of a folder of frames, and of a file that states none.
    """

    name: str
    path: PathOrUrl | None
    format: VideoFormat = "file"
    start_second: float = 0.0
    frame_rate: float = 30.0


class KeyframeClipReader:
    """Reads frames around seconds, and keeps of every film that it was asked for how many frames it has.

    What is not there, or does not decode, is a `BrokenVideo` that names the film and the second.
    """

    def __init__(self) -> None:
        self._length_cache: dict[KeyframeVideo, _VideoLength] = {}
        self._sequence_cache: dict[KeyframeVideo, _ImageSequence] = {}

    def read_clip(self, video: KeyframeVideo, second: int, sampling: KeyframeSampling) -> Frames:
        """The frames of a clip around a second."""
        with _add_error_context(video, second):
            place = _require_path(video)
            if video.format == "seconds":
                return _read_second_files(place, second, sampling)
            return self._read_indices(video, place, partial(_compute_clip_indices, video, second, sampling))

    def read_keyframes(self, video: KeyframeVideo, seconds: Sequence[int]) -> list[ImageArray]:
        """The key frames themselves: what is shown at each of these seconds."""
        with _add_error_context(video, *seconds):
            place = _require_path(video)
            if video.format == "seconds":
                return [read_frames(_require_second_file(place, second), [0])[0] for second in seconds]
            return list(self._read_indices(video, place, partial(_compute_keyframe_indices, video, seconds)))

    def _read_indices(
        self, film: KeyframeVideo, place: PathOrUrl, wanted: Callable[["_VideoLength"], list[int]]
    ) -> Frames:
        """
        Args:
            wanted: the numbers of frames, by how many there are.
        """
        if film.format == "frames":
            pictures = self._sequence_cache.get(film)
            if pictures is None:
                pictures = self._sequence_cache[film] = _ImageSequence.from_directory(place)
            return pictures.read(place, wanted(_VideoLength(pictures.num_frames, film.frame_rate)))
        length = self._length_cache.get(film)
        if length is None:
            stated = read_stream_metadata(place)
            length = _VideoLength(
                stated.num_frames or count_frames(place), stated.frame_rate or film.frame_rate, bool(stated.num_frames)
            )
            self._length_cache[film] = length
        try:
            return read_frames(place, wanted(length))
        except BrokenVideo:
            if not length.from_header:
                raise
            self._length_cache[film] = _VideoLength(count_frames(place), length.frame_rate)
            return read_frames(place, wanted(self._length_cache[film]))


@dataclass(frozen=True)
class _VideoLength:
    """A video's frames, and how many of them it has in a second.

    Args:
        from_header: the number of frames is what the file's header says, which may be wrong.
    """

    num_frames: int
    frame_rate: float
    from_header: bool = False


@dataclass(frozen=True)
class _ImageSequence:
    """The names of a folder's pictures, which are numbered: `{head}{number}{tail}`; or all of them, if they are not.

    Where they are numbered, one that is missing leaves the moments of the others as they are.
    """

    num_frames: int
    prefix: str = ""
    first_number: int = 0
    digits: int = 0
    suffix: str = ""
    names: Sequence[str] = ()

    @classmethod
    def from_directory(cls, folder: PathOrUrl) -> "_ImageSequence":
        names = [name for name in list_files(folder) if is_image_file(name)]
        if not names:
            raise BrokenVideo(folder, "is a folder without pictures, or does not exist")
        parts = [re.fullmatch(r"(.*?)(\d+)(\.\w+)", name, re.ASCII) for name in names]
        numbers = [int(part[2]) for part in parts if part]
        first = parts[0]
        if first and len(numbers) == len(names):
            digits = min(len(part[2]) for part in parts if part)
            found = cls(max(numbers) - min(numbers) + 1, first[1], min(numbers), digits, first[3])
            few_missing = len(names) >= 0.9 * found.num_frames
            if few_missing and all(
                found.frame_name(n - found.first_number) == name for n, name in zip(numbers, names, strict=True)
            ):
                return found
        return cls(len(names), names=names)

    def read(self, folder: PathOrUrl, numbers: list[int]) -> Frames:
        shown = {
            number: read_image(fetch_source(join_path(folder, self.frame_name(number)))) for number in set(numbers)
        }
        return _stack_frames(folder, [shown[number] for number in numbers])

    def frame_name(self, place: int) -> str:
        return (
            self.names[place]
            if self.names
            else f"{self.prefix}{self.first_number + place:0{self.digits}d}{self.suffix}"
        )


@contextmanager
def _add_error_context(film: KeyframeVideo, *seconds: int) -> Iterator[None]:
    """Says whose frames are wrong."""
    try:
        yield
    except BrokenVideo as error:
        keys = ", ".join(f"{film.name},{second:04d}" for second in seconds)
        raise BrokenVideo(f"key frame{'s' if len(seconds) > 1 else ''} {keys}: {error.source}", error.reason) from error


def _require_path(film: KeyframeVideo) -> PathOrUrl:
    if film.path is None:
        raise BrokenVideo(film.name, "has neither a file nor a folder of frames")
    return film.path


def _compute_center(film: KeyframeVideo, second: int, length: _VideoLength) -> float:
    """Where a second begins, in frames of the film.

    Raises:
        BrokenVideo: it has none there.
    """
    centre = (second - film.start_second) * length.frame_rate
    if not 0 <= round_half_up(centre) < length.num_frames:
        ends = film.start_second + length.num_frames / length.frame_rate
        raise BrokenVideo(str(film.path), f"begins at second {film.start_second:g} and ends at second {ends:.2f}")
    return centre


def _compute_keyframe_indices(film: KeyframeVideo, seconds: Sequence[int], length: _VideoLength) -> list[int]:
    """The numbers of a film's key frames."""
    return [round_half_up(_compute_center(film, second, length)) for second in seconds]


def _compute_clip_indices(
    film: KeyframeVideo, second: int, sampling: KeyframeSampling, length: _VideoLength
) -> list[int]:
    """The numbers of a film's frames around a second."""
    centre = _compute_center(film, second, length)
    key, ratio = round_half_up(centre), length.frame_rate / sampling.frame_rate
    return [
        key + place
        for place in sampling.compute_video_offsets(
            key, length.num_frames - key, frame_rate_ratio=ratio, subframe_offset=centre - key
        )
    ]


def _read_second_files(folder: PathOrUrl, second: int, sampling: KeyframeSampling) -> Frames:
    """Frames of files of one second each, which follow one another as far as there are any."""
    file = _require_second_file(folder, second)
    ratio = (read_frame_rate(file) or DEFAULT_FRAME_RATE) / sampling.frame_rate
    reach = 1 + math.ceil(ratio * max(map(abs, sampling.compute_offsets())))
    after = _count_frames_until(folder, range(second, second + _MAX_REACH_SECONDS), reach)
    before = _count_frames_until(folder, range(second - 1, second - _MAX_REACH_SECONDS, -1), reach)
    first = -sum(before.values())
    wanted = sampling.compute_video_offsets(-first, sum(after.values()), frame_rate_ratio=ratio)
    shown: dict[int, ImageArray] = {}
    for each, count in sorted((before | after).items()):
        here = sorted({place for place in wanted if first <= place < first + count})
        if here:
            shown |= zip(
                here, read_frames(_get_second_path(folder, each), [place - first for place in here]), strict=True
            )
        first += count
    return _stack_frames(folder, [shown[place] for place in wanted])


_MAX_REACH_SECONDS = 3600  # that a clip reaches to each side: none does


def _count_frames_until(folder: PathOrUrl, seconds: range, enough: int) -> dict[int, int]:
    """The frames of each file, up to where there are enough, or to the first that is not there."""
    counts: dict[int, int] = {}
    for second in seconds:
        if sum(counts.values()) >= enough or not is_file(_get_second_path(folder, second)):
            break
        counts[second] = count_frames(_get_second_path(folder, second))
    return counts


def _require_second_file(folder: PathOrUrl, second: int) -> PathOrUrl:
    """
    Raises:
        BrokenVideo: it is not there.
    """
    path = _get_second_path(folder, second)
    if not is_file(path):
        raise BrokenVideo(path, "does not exist")
    return path


def _get_second_path(folder: PathOrUrl, second: int) -> PathOrUrl:
    return join_path(folder, f"{second}.mp4")


def _stack_frames(place: PathOrUrl, pictures: Sequence[ImageArray]) -> Frames:
    """
    Raises:
        BrokenVideo: they are not all of one size.
    """
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        one, other = (f"{width}x{height}" for height, width, _ in list(sizes)[:2])
        raise BrokenVideo(place, f"has frames of {one} and of {other} in one clip")
    return np.stack(pictures)
