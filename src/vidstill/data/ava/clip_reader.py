"""Reads the frames of a clip around a second of a video: of a file, or of a directory of frames or one-second files."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vidstill.data.ava.frame_sampling import KeyframeSampling, round_half_up
from vidstill.data.decode.images import ImageArray, is_image_file, read_image
from vidstill.data.decode.reader import (
    DEFAULT_FRAME_RATE,
    Frames,
    VideoReader,
    count_frames,
    read_frame_rate,
    read_frames,
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
                return [read_frames(_require_second_file(path, second), [0])[0] for second in seconds]
            return list(self._read(video, path, lambda timeline: [timeline.locate(second)[0] for second in seconds]))

    def _read(
        self, video: KeyframeVideo, path: PathOrUrl, compute_indices: Callable[["_Timeline"], list[int]]
    ) -> Frames:
        if video.format == "frames":
            if video not in self._timelines:
                images = _ImageSequence.from_directory(path)
                self._timelines[video] = _Timeline(video, images.num_frames, video.frame_rate, images=images)
            timeline = self._timelines[video]
            assert timeline.images is not None
            return timeline.images.read(path, compute_indices(timeline))
        with VideoReader(path) as reader:
            if video not in self._timelines:
                header = reader.metadata
                frames, rate = header.num_frames or reader.num_frames, header.frame_rate or video.frame_rate
                self._timelines[video] = _Timeline(video, frames, rate, from_header=bool(header.num_frames))
            timeline = self._timelines[video]
            indices = compute_indices(timeline)
            try:
                return reader.read_frames(indices)
            except BrokenVideo:
                if not timeline.from_header:
                    raise
                timeline = self._timelines[video] = _Timeline(video, reader.num_frames, timeline.frame_rate)
                return reader.read_frames(compute_indices(timeline))


@dataclass(frozen=True)
class _Timeline:
    """The frames of a video in time."""

    video: KeyframeVideo
    num_frames: int
    frame_rate: float
    from_header: bool = False  # `num_frames` is what the file's header states, which may be wrong
    images: "_ImageSequence | None" = None

    def locate(self, second: int) -> tuple[int, float]:
        """Return the index of the frame at a second, and the rest in frames, from -0.5 to 0.5."""
        center = (second - self.video.start_second) * self.frame_rate
        index = round_half_up(center)
        if not 0 <= index < self.num_frames:
            end = self.video.start_second + self.num_frames / self.frame_rate
            raise BrokenVideo(
                str(self.video.path), f"begins at second {self.video.start_second:g} and ends at second {end:.2f}"
            )
        return index, center - index

    def compute_clip_indices(self, second: int, sampling: KeyframeSampling) -> list[int]:
        index, rest = self.locate(second)
        ratio = self.frame_rate / sampling.frame_rate
        offsets = sampling.compute_video_offsets(index, self.num_frames - index, ratio, rest)
        return [index + offset for offset in offsets]


@dataclass(frozen=True)
class _ImageSequence:
    """The names of a directory's images: numbered, as `{prefix}{number}{suffix}`, or all of them.

    If they are numbered, a missing one does not move the others in time.
    """

    num_frames: int
    prefix: str = ""
    first_number: int = 0
    digits: int = 0
    suffix: str = ""
    names: Sequence[str] = ()

    @classmethod
    def from_directory(cls, directory: PathOrUrl) -> "_ImageSequence":
        names = [name for name in list_files(directory) if is_image_file(name)]
        if not names:
            raise BrokenVideo(directory, "does not exist or has no images")
        parts = [match for name in names if (match := re.fullmatch(r"(.*?)(\d+)(\.\w+)", name, re.ASCII))]
        if len(parts) == len(names):
            numbers = [int(part[2]) for part in parts]
            first, digits = min(numbers), min(len(part[2]) for part in parts)
            sequence = cls(max(numbers) - first + 1, parts[0][1], first, digits, parts[0][3])
            is_regular = all(sequence.frame_name(n - first) == name for n, name in zip(numbers, names, strict=True))
            if is_regular and len(names) >= 0.9 * sequence.num_frames:
                return sequence
        return cls(len(names), names=names)

    def read(self, directory: PathOrUrl, indices: list[int]) -> Frames:
        images = {i: read_image(fetch_source(join_path(directory, self.frame_name(i)))) for i in set(indices)}
        return _stack_frames(directory, [images[i] for i in indices])

    def frame_name(self, index: int) -> str:
        if self.names:
            return self.names[index]
        return f"{self.prefix}{self.first_number + index:0{self.digits}d}{self.suffix}"


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
    file = _require_second_file(directory, second)
    ratio = (read_frame_rate(file) or DEFAULT_FRAME_RATE) / sampling.frame_rate
    reach = 1 + math.ceil(ratio * max(map(abs, sampling.compute_offsets())))
    after = _count_frames_until(directory, range(second, second + _MAX_REACH_SECONDS), reach)
    before = _count_frames_until(directory, range(second - 1, second - _MAX_REACH_SECONDS, -1), reach)
    first = -sum(before.values())
    offsets = sampling.compute_video_offsets(-first, sum(after.values()), frame_rate_ratio=ratio)
    images: dict[int, ImageArray] = {}
    for file_second, count in sorted((before | after).items()):
        own = sorted({offset for offset in offsets if first <= offset < first + count})
        if own:
            path = _get_second_path(directory, file_second)
            images |= zip(own, read_frames(path, [offset - first for offset in own]), strict=True)
        first += count
    return _stack_frames(directory, [images[offset] for offset in offsets])


def _count_frames_until(directory: PathOrUrl, seconds: range, enough: int) -> dict[int, int]:
    """Count the frames of each file, until there are enough or a file is missing."""
    counts: dict[int, int] = {}
    for second in seconds:
        path = _get_second_path(directory, second)
        if sum(counts.values()) >= enough or not is_file(path):
            break
        counts[second] = count_frames(path)
    return counts


def _require_second_file(directory: PathOrUrl, second: int) -> PathOrUrl:
    path = _get_second_path(directory, second)
    if not is_file(path):
        raise BrokenVideo(path, "does not exist")
    return path


def _get_second_path(directory: PathOrUrl, second: int) -> PathOrUrl:
    return join_path(directory, f"{second}.mp4")


def _stack_frames(directory: PathOrUrl, images: Sequence[ImageArray]) -> Frames:
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        one, other = (f"{width}x{height}" for height, width, _ in list(sizes)[:2])
        raise BrokenVideo(directory, f"has frames of {one} and of {other} in one clip")
    return np.stack(images)
