"""Which frames of a video are looked at: training draws and test views, as pure functions of the number of frames."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class SpanSampling:
    """Every `stride`-th frame of a span that starts anywhere: the pre-training rule of VideoMAE, MVD and MaskAgain.

    Args:
        frames: of a clip.
        stride: frames of the video from one to the next.
    """

    frames: int = 16
    stride: int = 4

    def __post_init__(self) -> None:
        _check(self.frames, self.stride)

    def starts(self, total: int, segments: int = 1) -> list[range]:
        """For each of `segments` equal parts of the video, the starts that may be drawn: 0 alone if it is too short."""
        room = (total - self.frames * self.stride + 1) // segments
        return [range(r * room, (r + 1) * room) if room > 0 else range(1) for r in range(segments)]

    def frames_from(self, start: int, total: int) -> list[int]:
        """The frames of the span from `start`: the last that is reached is repeated where the video ends too soon."""
        chosen = [start]
        while len(chosen) < self.frames:
            # released rule: one frame short of what would fit, so that advancing never reaches the last frame
            chosen.append(chosen[-1] + (self.stride if chosen[-1] + 1 + self.stride < total else 0))
        return chosen

    def draw(self, total: int, chance: np.random.Generator) -> list[int]:
        return self.draw_repeats(total, 1, chance)[0]

    def draw_repeats(self, total: int, repeats: int, chance: np.random.Generator) -> list[list[int]]:
        """Frames for each of `repeats` clips, every clip from its own part of the video (MVD's repeated sampling)."""
        return [self.frames_from(_one_of(part, chance), total) for part in self.starts(total, repeats)]

    def views(self, total: int, views: int) -> list[list[int]]:
        """Test views; the papers have none for pre-training, so they are those of dense sampling."""
        return _dense_views(total, self.frames, self.stride, views)


@dataclass(frozen=True, kw_only=True)
class DenseSampling:
    """Frames spread evenly over a span of `frames * stride`: fine-tuning on Kinetics, UCF101 and HMDB51.

    Args:
        frames: of a clip.
        stride: frames of the video that the span has for each of the clip's.
    """

    frames: int = 16
    stride: int = 4

    def __post_init__(self) -> None:
        _check(self.frames, self.stride)

    def ends(self, total: int) -> range:
        """The ends that may be drawn; none for a video that is no longer than the span.

        An end is one past the last frame, and `total` is not among them: the video's last frame is never seen (as
        released).
        """
        return range(self.frames * self.stride, total)

    def frames_to(self, end: int) -> list[int]:
        """The frames of the span that stops before `end`; their steps are a little longer than the stride."""
        start = end - self.frames * self.stride
        return _floors(np.linspace(start, end, self.frames), start, end - 1)

    def frames_of_all(self, total: int) -> list[int]:
        """The frames of a video that is no longer than the span: the whole of it, then its last frame repeated."""
        spread = np.linspace(0, total, total // self.stride)
        return _floors(np.append(spread, [total] * (self.frames - len(spread))), 0, total - 1)

    def draw(self, total: int, chance: np.random.Generator) -> list[int]:
        ends = self.ends(total)
        return self.frames_to(_one_of(ends, chance)) if ends else self.frames_of_all(total)

    def views(self, total: int, views: int) -> list[list[int]]:
        """Test views: windows over every `stride`-th frame, from the video's start to its end; the start for one."""
        return _dense_views(total, self.frames, self.stride, views)


@dataclass(frozen=True, kw_only=True)
class SegmentSampling:
    """One frame from each of `frames` equal segments of the whole video (TSN, arXiv:1608.00859): for SSv2.

    Args:
        frames: of a clip, one for each segment.
        rule: whose segments. "amd" differs from "videomae" only where a video has fewer frames than segments: it shows
            every frame once, after the first repeated, not the first frame alone. "mvd" has segments of fractional
            length.
    """

    frames: int = 16
    rule: Literal["videomae", "amd", "mvd"] = "videomae"

    def __post_init__(self) -> None:
        _check(self.frames, 1)

    def segments(self, total: int) -> list[range]:
        """For each segment, the frames that may be drawn from it."""
        if self.rule == "mvd":
            length = (total - 1) / self.frames
            borders = [round(length * i) for i in range(self.frames + 1)]  # halves to even, as NumPy rounds
            return [range(low, high + 1) for low, high in pairwise(borders)]
        whole = total // self.frames  # so the last `total % frames` frames are never drawn
        if whole:
            return [range(i * whole, (i + 1) * whole) for i in range(self.frames)]
        only = [0] * self.frames if self.rule == "videomae" else [0] * (self.frames - total) + list(range(total))
        return [range(frame, frame + 1) for frame in only]

    def draw(self, total: int, chance: np.random.Generator) -> list[int]:
        return [_one_of(segment, chance) for segment in self.segments(total)]

    def views(self, total: int, views: int) -> list[list[int]]:
        """Test views, each with a frame from every segment, interleaved.

        VideoMAE's rule is released for two views only; AMD's, which equals it there, stands for any other number.
        """
        if self.rule == "mvd":
            length = (total - 1) / self.frames
            part = length / views
            chosen = [
                (round(length * i + part * c) + round(length * i + part * (c + 1))) // 2
                for i in range(self.frames)
                for c in range(views)
            ]
        else:
            length = total / self.frames
            shifts = [0.0, *(length / y for y in range(2, views + 1))]
            chosen = sorted(int(shift + length * i) for shift in shifts for i in range(self.frames))
        return [chosen[c::views] for c in range(views)]


@dataclass(frozen=True, kw_only=True)
class TimedSampling:
    """Frames spread evenly over a span of time that starts anywhere: ST-MAE's rule (arXiv:2205.09113), as released.

    The span lasts `frames * stride / rate` seconds; `at` gives the rule for a video's own frame rate, and all other
    methods are about videos that have `rate`. From the first to the last of the clip's frames there is one frame of the
    video less than the span has, so 16 frames at a stride of 4 are 4.2 apart.

    Args:
        frames: of a clip.
        stride: frames of the video that the span has for each of the clip's; it may be a fraction.
        rate: frames per second of the video that the stride is counted in.
        start: "between" two frames, if the whole video is decoded and every place in it is rounded down (pre-training);
            at the next whole "frame", if the span alone is decoded and places are rounded down within it (fine-tuning;
            test views always).
    """

    frames: int = 16
    stride: float = 4.0
    rate: float = 30.0
    start: Literal["between", "frame"] = "between"

    def __post_init__(self) -> None:
        if self.frames < 1 or not (0 < self.stride < math.inf and 0 < self.rate < math.inf):
            raise InputError(
                f"a clip of {self.frames} frames, {self.stride} apart at {self.rate} frames per second, cannot be "
                "sampled; take 1 frame or more, and a stride and a rate above 0"
            )

    @property
    def span(self) -> float:
        """Frames of the video, not always a whole number of them."""
        return self.frames * self.stride

    def at(self, rate: float) -> "TimedSampling":
        """The same rule for a video of `rate` frames per second."""
        return replace(self, stride=self.stride * rate / self.rate, rate=rate)

    def room(self, total: int) -> float:
        """The last start that may be drawn, from 0; 0 alone for a video that is no longer than the span."""
        return max(total - self.span, 0.0)

    def frames_from(self, start: float, total: int) -> list[int]:
        """The frames of the span from `start`; the video's last is repeated where it ends too soon."""
        return self._within_all(start, total) if self.start == "between" else self._within_span(start, total)

    def draw(self, total: int, chance: np.random.Generator) -> list[int]:
        return self.frames_from(chance.uniform(0, self.room(total)), total)

    def draw_repeats(self, total: int, repeats: int, chance: np.random.Generator) -> list[list[int]]:
        """Frames for each of `repeats` clips, every clip from a start of its own anywhere in the video."""
        return [self.draw(total, chance) for _ in range(repeats)]

    def views(self, total: int, views: int) -> list[list[int]]:
        """Test views: spans whole frames apart, from the video's start nearly to its end; the middle for one."""
        room = self.room(total)
        starts = [k * math.floor(room / (views - 1)) for k in range(views)] if views > 1 else [math.floor(room / 2)]
        return [self._within_span(float(start), total) for start in starts]

    def _within_all(self, start: float, total: int) -> list[int]:
        return _floors(_even_places(start, start + self._reach, self.frames), 0, total - 1)

    def _within_span(self, start: float, total: int) -> list[int]:
        first, last = min(math.ceil(start), total - 1), min(math.floor(start + self._reach), total - 1)
        places = _even_places(0.0, self._reach, self.frames)
        return [first + place for place in _floors(places, 0, max(last - first, 0))]

    @property
    def _reach(self) -> float:
        return max(self.span - 1, 0.0)


def _dense_views(total: int, frames: int, stride: int, views: int) -> list[list[int]]:
    candidates = list(range(0, total, stride))
    candidates += candidates[-1:] * (frames - len(candidates))
    step = max((len(candidates) - frames) / (views - 1), 0) if views > 1 else 0  # one view: AMD's answer
    return [candidates[int(c * step) :][:frames] for c in range(views)]


def _one_of(places: range, chance: np.random.Generator) -> int:
    return int(chance.integers(places.start, places.stop))


def _even_places(first: float, last: float, count: int) -> np.ndarray:
    """Places from `first` to `last` in float32, each counted from the end that is nearer, as torch.linspace does it.

    Rounding decides between two frames now and then: of 40 frames over 0 … 159, the 14th is 52, not 53.
    """
    low, high, n = np.float32(first), np.float32(last), np.arange(count, dtype=np.float32)
    step = (high - low) / np.float32(max(count - 1, 1))
    return np.where(n < count // 2, low + step * n, high - step * (count - 1 - n)) if count > 1 else np.array([low])


def _floors(places: np.ndarray, low: int, high: int) -> list[int]:
    return [int(place) for place in np.clip(places, low, high)]


def _check(frames: int, stride: int) -> None:
    if frames < 1 or stride < 1:
        raise InputError(f"a clip of {frames} frames, {stride} apart, cannot be sampled; both must be at least 1")
