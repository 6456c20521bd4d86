"""Reads the frames of a clip around a second of a video: of a file, or of a directory of frames or one-second files."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vidstill.data.ava.frame_sampling import KeyframeSampling, round_half_up
from vidstill.data.decode.images import ImageArray, is_image_file, read_image
from vidstill.data.decode.reader import (
    DEFAULT_FRAME_RATE,
    Frames,
    VideoReader,
    count_frames,
    read_frames,
    read_stream_metadata,
)
from vidstill.data.storage.fetch import BrokenVideo, PathOrUrl, fetch_source, join_path
from vidstill.data.storage.filesystem import is_file, list_files

VideoFormat = Literal["file", "frames", "seconds"]
"""A video file; a directory of images; a directory of video files `902.mp4`, each of one second, as VideoMAE's
detection code cuts them."""

_MAX_REACH_SECONDS = 3600  # limits the search for one-second files on each side


@dataclass(frozen=True)
class KeyframeVideo:
    """A video that has key frames."""

    name: str  # in the annotations
    path: PathOrUrl | None  # file or directory; None: the video is missing
    format: VideoFormat = "file"
    # second of the annotations at which the video begins: 0 for whole movies, 900 for the 15 minutes that AVA annotates
    start_second: float = 0.0
    frame_rate: float = 30.0  # of a directory of frames, and of a file that states none


class KeyframeClipReader:
    """Reads frames around seconds, and caches the number of frames of every video.

    A missing or damaged file raises a `BrokenVideo` that names the video and the second.
    """

    def __init__(self) -> None:
        self._timelines: dict[KeyframeVideo, _Timeline] = {}

    def read_clip(self, video: KeyframeVideo, second: int, sampling: KeyframeSampling) -> Frames:
        """Read the frames of a clip around a second."""
        with _add_error_context(video, second) as path:
            if video.format == "seconds":
                return _read_second_files(path, second, sampling)
            return self._read(video, path, lambda timeline: timeline.compute_clip_indices(second, sampling))

    def read_keyframes(self, video: KeyframeVideo, seconds: Sequence[int]) -> list[ImageArray]:
        """Read the key frames themselves: the frame that is shown at each of these seconds."""
        with _add_error_context(video, *seconds) as path:
            if video.format == "seconds":
                return [read_frames(_find_second_file(path, second), [0])[0] for second in seconds]
            return list(self._read(video, path, lambda timeline: [timeline.locate(second)[0] for second in seconds]))

    def _read(
        self, video: KeyframeVideo, path: PathOrUrl, compute_indices: Callable[["_Timeline"], list[int]]
    ) -> Frames:
        timeline = self._timelines.get(video)
        if video.format == "frames":
            if timeline is None:
                names = _list_frame_names(path)
                timeline = self._timelines[video] = _Timeline(video, len(names), video.frame_rate, names)
            names = [timeline.names[index] for index in compute_indices(timeline)]
            images = {name: read_image(fetch_source(join_path(path, name))) for name in set(names)}
            return _stack_frames(path, [images[name] for name in names])
        with VideoReader(path) as reader:
            num_frames, rate = reader.metadata.num_frames, reader.frame_rate or video.frame_rate
            if timeline is None:
                timeline = self._timelines[video] = _Timeline(video, num_frames or reader.num_frames, rate)
            try:
                return reader.read_frames(compute_indices(timeline))
            except BrokenVideo:
                if timeline.num_frames != num_frames:  # it is not from the header, which may be wrong
                    raise
                timeline = self._timelines[video] = _Timeline(video, reader.num_frames, rate)
                return reader.read_frames(compute_indices(timeline))


@dataclass(frozen=True)
class _Timeline:
    """The frames of a video in time."""

    video: KeyframeVideo
    num_frames: int
    frame_rate: float
    names: Sequence[str] = ()  # of images

    def locate(self, second: int) -> tuple[int, float]:
        """Return the index of the frame at a second, and the rest in frames, from -0.5 to 0.5."""
        center = (second - self.video.start_second) * self.frame_rate
        index = round_half_up(center)
        if not 0 <= index < self.num_frames:
            start = self.video.start_second
            end = start + self.num_frames / self.frame_rate
            raise BrokenVideo(str(self.video.path), f"begins at second {start:g} and ends at second {end:.2f}")
        return index, center - index

    def compute_clip_indices(self, second: int, sampling: KeyframeSampling) -> list[int]:
        index, rest = self.locate(second)
        ratio = self.frame_rate / sampling.frame_rate
        offsets = sampling.compute_video_offsets(index, self.num_frames - index, ratio, rest)
        return [index + offset for offset in offsets]


@dataclass(frozen=True)
class _NumberedNames(Sequence[str]):
    """Names such as `video_000001.jpg`, which are not kept in memory: AVA has some eight million."""

    pattern: str
    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        return self.pattern % self.numbers[index]


def _list_frame_names(directory: PathOrUrl) -> Sequence[str]:
    """Return the names of a directory's images; if they are numbered, a missing one does not move the others."""
    names = [name for name in list_files(directory) if is_image_file(name)]
    if not names:
        raise BrokenVideo(directory, "does not exist or has no images")
    parts = [re.fullmatch(r"(.*?)(\d+)(\.\w+)", name, re.ASCII) for name in names]
    matches = [part for part in parts if part is not None]
    if len(matches) == len(names):
        numbers = [int(part[2]) for part in matches]
        prefix, digits, suffix = matches[0][1], min(len(part[2]) for part in matches), matches[0][3]
        pattern = f"{prefix.replace('%', '%%')}%0{digits}d{suffix}"
        numbered = _NumberedNames(pattern, range(min(numbers), max(numbers) + 1))
        is_regular = all(pattern % number == name for number, name in zip(numbers, names, strict=True))
        if is_regular and len(names) >= 0.9 * len(numbered):
            return numbered
    return names


@contextmanager
def _add_error_context(video: KeyframeVideo, *seconds: int) -> Iterator[PathOrUrl]:
    """Give the video's path, and name the key frames in a BrokenVideo."""
    try:
        if video.path is None:
            raise BrokenVideo(video.name, "has neither a file nor a directory of frames")
        yield video.path
    except BrokenVideo as error:
        keys = ", ".join(f"{video.name},{second:04d}" for second in seconds)
        raise BrokenVideo(f"key frame{'s' if len(seconds) > 1 else ''} {keys}: {error.source}", error.reason) from error


def _read_second_files(directory: PathOrUrl, second: int, sampling: KeyframeSampling) -> Frames:
    """Read the frames of consecutive one-second files."""
    rate = read_stream_metadata(_find_second_file(directory, second)).frame_rate or DEFAULT_FRAME_RATE
    ratio = rate / sampling.frame_rate
    reach = 1 + math.ceil(ratio * max(map(abs, sampling.compute_offsets())))
    after = _count_frames_until(directory, range(second, second + _MAX_REACH_SECONDS), reach)
    before = _count_frames_until(directory, range(second - 1, second - _MAX_REACH_SECONDS, -1), reach)
    first = -sum(before.values())
    offsets = sampling.compute_video_offsets(-first, sum(after.values()), frame_rate_ratio=ratio)
    images: dict[int, ImageArray] = {}
    for file_second, count in sorted((before | after).items()):
        if own := sorted({offset for offset in offsets if first <= offset < first + count}):
            file = join_path(directory, f"{file_second}.mp4")
            images |= zip(own, read_frames(file, [offset - first for offset in own]), strict=True)
        first += count
    return _stack_frames(directory, [images[offset] for offset in offsets])


def _count_frames_until(directory: PathOrUrl, seconds: range, enough: int) -> dict[int, int]:
    """Count the frames of each file, until there are enough or a file is missing."""
    counts: dict[int, int] = {}
    for second in seconds:
        if sum(counts.values()) >= enough or not is_file(file := join_path(directory, f"{second}.mp4")):
            break
        counts[second] = count_frames(file)
    return counts


def _find_second_file(directory: PathOrUrl, second: int) -> PathOrUrl:
    if not is_file(file := join_path(directory, f"{second}.mp4")):
        raise BrokenVideo(file, "does not exist")
    return file


def _stack_frames(directory: PathOrUrl, images: Sequence[ImageArray]) -> Frames:
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        one, other = (f"{width}x{height}" for height, width, _ in list(sizes)[:2])
        raise BrokenVideo(directory, f"has frames of {one} and of {other} in one clip")
    return np.stack(images)
