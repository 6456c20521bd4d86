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
        num_frames: of a clip.
        stride: frames of the video from one to the next.
    """

    num_frames: int = 16
    stride: int = 4

    def __post_init__(self) -> None:
        _check_sampling(self.num_frames, self.stride)

    def list_start_ranges(self, total_frames: int, num_segments: int = 1) -> list[range]:
        """For each of `segments` equal parts of the video, the starts that may be drawn: 0 alone if it is too short."""
        room = (total_frames - self.num_frames * self.stride + 1) // num_segments
        return [range(r * room, (r + 1) * room) if room > 0 else range(1) for r in range(num_segments)]

    def list_indices_from(self, start: int, total_frames: int) -> list[int]:
        """The frames of the span from `start`: the last that is reached is repeated where the video ends too soon."""
        chosen = [start]
        while len(chosen) < self.num_frames:
            # released rule: one frame short of what would fit, so that advancing never reaches the last frame
            chosen.append(chosen[-1] + (self.stride if chosen[-1] + 1 + self.stride < total_frames else 0))
        return chosen

    def draw_indices(self, total_frames: int, rng: np.random.Generator) -> list[int]:
        return self.draw_repeat_indices(total_frames, 1, rng)[0]

    def draw_repeat_indices(self, total_frames: int, repeats: int, rng: np.random.Generator) -> list[list[int]]:
        """Frames for each of `repeats` clips, every clip from its own part of the video (MVD's repeated sampling)."""
        return [
            self.list_indices_from(_draw_from_range(part, rng), total_frames)
            for part in self.list_start_ranges(total_frames, repeats)
        ]

    def list_view_indices(self, total_frames: int, temporal_clips: int) -> list[list[int]]:
        """Test views; the papers have none for pre-training, so they are those of dense sampling."""
        return _list_dense_view_indices(total_frames, self.num_frames, self.stride, temporal_clips)


@dataclass(frozen=True, kw_only=True)
class DenseSampling:
    """Frames spread evenly over a span of `frames * stride`: fine-tuning on Kinetics, UCF101 and HMDB51.

    Args:
        num_frames: of a clip.
        stride: frames of the video that the span has for each of the clip's.
    """

    num_frames: int = 16
    stride: int = 4

    def __post_init__(self) -> None:
        _check_sampling(self.num_frames, self.stride)

    def get_end_range(self, total_frames: int) -> range:
        """The ends that may be drawn; none for a video that is no longer than the span.

        An end is one past the last frame, and `total` is not among them: the video's last frame is never seen (as
        released).
        """
        return range(self.num_frames * self.stride, total_frames)

    def list_indices_until(self, end: int) -> list[int]:
        """The frames of the span that stops before `end`; their steps are a little longer than the stride."""
        start = end - self.num_frames * self.stride
        return _floor_and_clip(np.linspace(start, end, self.num_frames), start, end - 1)

    def list_short_video_indices(self, total_frames: int) -> list[int]:
        """The frames of a video that is no longer than the span: the whole of it, then its last frame repeated."""
        spread = np.linspace(0, total_frames, total_frames // self.stride)
        return _floor_and_clip(np.append(spread, [total_frames] * (self.num_frames - len(spread))), 0, total_frames - 1)

    def draw_indices(self, total_frames: int, rng: np.random.Generator) -> list[int]:
        ends = self.get_end_range(total_frames)
        return (
            self.list_indices_until(_draw_from_range(ends, rng))
            if ends
            else self.list_short_video_indices(total_frames)
        )

    def list_view_indices(self, total_frames: int, temporal_clips: int) -> list[list[int]]:
        """Test views: windows over every `stride`-th frame, from the video's start to its end; the start for one."""
        return _list_dense_view_indices(total_frames, self.num_frames, self.stride, temporal_clips)


@dataclass(frozen=True, kw_only=True)
class SegmentSampling:
    """One frame from each of `frames` equal segments of the whole video (TSN, arXiv:1608.00859): for SSv2.

    Args:
        num_frames: of a clip, one for each segment.
        rule: whose segments. "amd" differs from "videomae" only where a video has fewer frames than segments: it shows
            every frame once, after the first repeated, not the first frame alone. "mvd" has segments of fractional
            length.
    """

    num_frames: int = 16
    rule: Literal["videomae", "amd", "mvd"] = "videomae"

    def __post_init__(self) -> None:
        _check_sampling(self.num_frames, 1)

    def list_segments(self, total_frames: int) -> list[range]:
        """For each segment, the frames that may be drawn from it."""
        if self.rule == "mvd":
            length = (total_frames - 1) / self.num_frames
            borders = [round(length * i) for i in range(self.num_frames + 1)]  # halves to even, as NumPy rounds
            return [range(low, high + 1) for low, high in pairwise(borders)]
        whole = total_frames // self.num_frames  # so the last `total % frames` frames are never drawn
        if whole:
            return [range(i * whole, (i + 1) * whole) for i in range(self.num_frames)]
        only = (
            [0] * self.num_frames
            if self.rule == "videomae"
            else [0] * (self.num_frames - total_frames) + list(range(total_frames))
        )
        return [range(frame, frame + 1) for frame in only]

    def draw_indices(self, total_frames: int, rng: np.random.Generator) -> list[int]:
        return [_draw_from_range(segment, rng) for segment in self.list_segments(total_frames)]

    def list_view_indices(self, total_frames: int, temporal_clips: int) -> list[list[int]]:
        """Test views, each with a frame from every segment, interleaved.

        VideoMAE's rule is released for two views only; AMD's, which equals it there, stands for any other number.
        """
        if self.rule == "mvd":
            length = (total_frames - 1) / self.num_frames
            part = length / temporal_clips
            chosen = [
                (round(length * i + part * c) + round(length * i + part * (c + 1))) // 2
                for i in range(self.num_frames)
                for c in range(temporal_clips)
            ]
        else:
            length = total_frames / self.num_frames
            shifts = [0.0, *(length / y for y in range(2, temporal_clips + 1))]
            chosen = sorted(int(shift + length * i) for shift in shifts for i in range(self.num_frames))
        return [chosen[c::temporal_clips] for c in range(temporal_clips)]


@dataclass(frozen=True, kw_only=True)
class TimedSampling:
    """Frames spread evenly over a span of time that starts anywhere: ST-MAE's rule (arXiv:2205.09113), as released.

    The span lasts `frames * stride / rate` seconds; `at` gives the rule for a video's own frame rate, and all other
    methods are about videos that have `rate`. From the first to the last of the clip's frames there is one frame of the
    video less than the span has, so 16 frames at a stride of 4 are 4.2 apart.

    Args:
        num_frames: of a clip.
        stride: frames of the video that the span has for each of the clip's; it may be a fraction.
        frame_rate: frames per second of the video that the stride is counted in.
        start_mode: "between" two frames, if the whole video is decoded and every place in it is rounded down (pre-training);
            at the next whole "frame", if the span alone is decoded and places are rounded down within it (fine-tuning;
            test views always).
    """

    num_frames: int = 16
    stride: float = 4.0
    frame_rate: float = 30.0
    start_mode: Literal["between", "frame"] = "between"

    def __post_init__(self) -> None:
        if self.num_frames < 1 or not (0 < self.stride < math.inf and 0 < self.frame_rate < math.inf):
            raise InputError(
                f"a clip of {self.num_frames} frames, {self.stride} apart at {self.frame_rate} frames per second, cannot be "
                "sampled; take 1 frame or more, and a stride and a rate above 0"
            )

    @property
    def span_frames(self) -> float:
        """Frames of the video, not always a whole number of them."""
        return self.num_frames * self.stride

    def adapt_to_frame_rate(self, frame_rate: float) -> "TimedSampling":
        """The same rule for a video of `rate` frames per second."""
        return replace(self, stride=self.stride * frame_rate / self.frame_rate, frame_rate=frame_rate)

    def get_last_start(self, total_frames: int) -> float:
        """The last start that may be drawn, from 0; 0 alone for a video that is no longer than the span."""
        return max(total_frames - self.span_frames, 0.0)

    def list_indices_from(self, start: float, total_frames: int) -> list[int]:
        """The frames of the span from `start`; the video's last is repeated where it ends too soon."""
        return (
            self._list_indices_in_video(start, total_frames)
            if self.start_mode == "between"
            else self._list_indices_in_span(start, total_frames)
        )

    def draw_indices(self, total_frames: int, rng: np.random.Generator) -> list[int]:
        return self.list_indices_from(rng.uniform(0, self.get_last_start(total_frames)), total_frames)

    def draw_repeat_indices(self, total_frames: int, repeats: int, rng: np.random.Generator) -> list[list[int]]:
        """Frames for each of `repeats` clips, every clip from a start of its own anywhere in the video."""
        return [self.draw_indices(total_frames, rng) for _ in range(repeats)]

    def list_view_indices(self, total_frames: int, temporal_clips: int) -> list[list[int]]:
        """Test views: spans whole frames apart, from the video's start nearly to its end; the middle for one."""
        room = self.get_last_start(total_frames)
        starts = (
            [k * math.floor(room / (temporal_clips - 1)) for k in range(temporal_clips)]
            if temporal_clips > 1
            else [math.floor(room / 2)]
        )
        return [self._list_indices_in_span(float(start), total_frames) for start in starts]

    def _list_indices_in_video(self, start: float, total_frames: int) -> list[int]:
        return _floor_and_clip(
            _linspace_float32(start, start + self._last_offset, self.num_frames), 0, total_frames - 1
        )

    def _list_indices_in_span(self, start: float, total_frames: int) -> list[int]:
        first, last = (
            min(math.ceil(start), total_frames - 1),
            min(math.floor(start + self._last_offset), total_frames - 1),
        )
        places = _linspace_float32(0.0, self._last_offset, self.num_frames)
        return [first + place for place in _floor_and_clip(places, 0, max(last - first, 0))]

    @property
    def _last_offset(self) -> float:
        return max(self.span_frames - 1, 0.0)


def _list_dense_view_indices(total_frames: int, num_frames: int, stride: int, temporal_clips: int) -> list[list[int]]:
    candidates = list(range(0, total_frames, stride))
    candidates += candidates[-1:] * (num_frames - len(candidates))
    step = (
        max((len(candidates) - num_frames) / (temporal_clips - 1), 0) if temporal_clips > 1 else 0
    )  # one view: AMD's answer
    return [candidates[int(c * step) :][:num_frames] for c in range(temporal_clips)]


def _draw_from_range(values: range, rng: np.random.Generator) -> int:
    return int(rng.integers(values.start, values.stop))


def _linspace_float32(first: float, last: float, count: int) -> np.ndarray:
    """Places from `first` to `last` in float32, each counted from the end that is nearer, as torch.linspace does it.

    Rounding decides between two frames now and then: of 40 frames over 0 … 159, the 14th is 52, not 53.
    """
    low, high, n = np.float32(first), np.float32(last), np.arange(count, dtype=np.float32)
    step = (high - low) / np.float32(max(count - 1, 1))
    return np.where(n < count // 2, low + step * n, high - step * (count - 1 - n)) if count > 1 else np.array([low])


def _floor_and_clip(values: np.ndarray, low: int, high: int) -> list[int]:
    return [int(place) for place in np.clip(values, low, high)]


def _check_sampling(num_frames: int, stride: int) -> None:
    if num_frames < 1 or stride < 1:
        raise InputError(f"a clip of {num_frames} frames, {stride} apart, cannot be sampled; both must be at least 1")
