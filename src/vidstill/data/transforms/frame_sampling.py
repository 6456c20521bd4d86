"""Which frames of a video a clip has: training draws and evaluation views, from the number of frames alone."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from vidstill.utils.types import InputError


@dataclass(frozen=True, kw_only=True)
class _StridedSampling:
    num_frames: int = 16  # frames of a clip
    stride: int = 4  # frames of the video for each frame of the clip

    def __post_init__(self) -> None:
        _check_sampling(self.num_frames, self.stride)

    def list_view_indices(self, total_frames: int, temporal_clips: int) -> list[list[int]]:
        """Return windows over every `stride`-th frame, from the video's start to its end; one view is at the start.

        The papers have no views for pre-training, so that these serve its spans too.
        """
        candidates = list(range(0, total_frames, self.stride))
        candidates += candidates[-1:] * (self.num_frames - len(candidates))
        # one view is AMD's
        step = max((len(candidates) - self.num_frames) / (temporal_clips - 1), 0) if temporal_clips > 1 else 0
        return [candidates[int(c * step) :][: self.num_frames] for c in range(temporal_clips)]


@dataclass(frozen=True, kw_only=True)
class SpanSampling(_StridedSampling):
    """Take every `stride`-th frame of a span that starts anywhere: the pre-training of VideoMAE, MVD and MaskAgain."""

    def list_start_ranges(self, total_frames: int, num_segments: int = 1) -> list[range]:
        """Return the possible starts in each of `num_segments` equal parts; only 0 in a video that is too short."""
        num_starts = (total_frames - self.num_frames * self.stride + 1) // num_segments
        return [
            range(k * num_starts, (k + 1) * num_starts) if num_starts > 0 else range(1) for k in range(num_segments)
        ]

    def list_indices_from(self, start: int, total_frames: int) -> list[int]:
        """Return the frames of the span from `start`; where the video ends too soon, the last one is repeated."""
        indices = [start]
        while len(indices) < self.num_frames:
            # released rule: one frame short of what would fit, so that the last frame is never reached
            indices.append(indices[-1] + (self.stride if indices[-1] + 1 + self.stride < total_frames else 0))
        return indices

    def draw_indices(self, total_frames: int, rng: np.random.Generator) -> list[int]:
        return self.draw_repeat_indices(total_frames, 1, rng)[0]

    def draw_repeat_indices(self, total_frames: int, repeats: int, rng: np.random.Generator) -> list[list[int]]:
        """Draw the frames of `repeats` clips, each from its own part of the video (MVD's repeated sampling)."""
        return [
            self.list_indices_from(_draw_from_range(starts, rng), total_frames)
            for starts in self.list_start_ranges(total_frames, repeats)
        ]


@dataclass(frozen=True, kw_only=True)
class DenseSampling(_StridedSampling):
    """Take frames evenly from a span of `num_frames * stride` frames: fine-tuning on Kinetics, UCF101 and HMDB51."""

    def get_end_range(self, total_frames: int) -> range:
        """Return the possible ends, one past a span's last frame; none if the video is no longer than the span.

        The video's end is not among them: its last frame is never used (as released).
        """
        return range(self.num_frames * self.stride, total_frames)

    def list_indices_until(self, end: int) -> list[int]:
        """Return the frames of the span that stops before `end`; their steps are a little longer than the stride."""
        start = end - self.num_frames * self.stride
        return _floor_and_clip(np.linspace(start, end, self.num_frames), start, end - 1)

    def list_short_video_indices(self, total_frames: int) -> list[int]:
        """Return the frames of a video that is no longer than the span: all of it, then its last frame repeated."""
        positions = np.linspace(0, total_frames, total_frames // self.stride)
        padding = [total_frames] * (self.num_frames - len(positions))
        return _floor_and_clip(np.append(positions, padding), 0, total_frames - 1)

    def draw_indices(self, total_frames: int, rng: np.random.Generator) -> list[int]:
        ends = self.get_end_range(total_frames)
        if not ends:
            return self.list_short_video_indices(total_frames)
        return self.list_indices_until(_draw_from_range(ends, rng))


@dataclass(frozen=True, kw_only=True)
class SegmentSampling:
    """Take one frame from each of `num_frames` equal segments of the video (TSN, arXiv:1608.00859): for SSv2."""

    num_frames: int = 16  # frames of a clip, one per segment
    # Whose segments. "amd" differs from "videomae" only where a video has fewer frames than segments: it repeats the
    # first frame and then shows every frame once, instead of the first frame only. "mvd" has segments of fractional
    # length.
    rule: Literal["videomae", "amd", "mvd"] = "videomae"

    def __post_init__(self) -> None:
        _check_sampling(self.num_frames, 1)

    def list_segments(self, total_frames: int) -> list[range]:
        """Return the frames that may be drawn from each segment."""
        if self.rule == "mvd":
            fraction = (total_frames - 1) / self.num_frames
            borders = [round(fraction * i) for i in range(self.num_frames + 1)]  # halves to even, as NumPy rounds
            return [range(low, high + 1) for low, high in pairwise(borders)]
        length = total_frames // self.num_frames  # the last `total_frames % num_frames` frames are never drawn
        if length:
            return [range(i * length, (i + 1) * length) for i in range(self.num_frames)]
        frames = range(1 if self.rule == "videomae" else total_frames)
        return [range(1)] * (self.num_frames - len(frames)) + [range(frame, frame + 1) for frame in frames]

    def draw_indices(self, total_frames: int, rng: np.random.Generator) -> list[int]:
        return [_draw_from_range(segment, rng) for segment in self.list_segments(total_frames)]

    def list_view_indices(self, total_frames: int, temporal_clips: int) -> list[list[int]]:
        """Return interleaved views, each with a frame from every segment.

        VideoMAE's rule is released for two views only; AMD's, which equals it there, is used for any other number.
        """
        if self.rule == "mvd":
            length = (total_frames - 1) / self.num_frames
            part = length / temporal_clips
            indices = [
                (round(length * i + part * c) + round(length * i + part * (c + 1))) // 2
                for i in range(self.num_frames)
                for c in range(temporal_clips)
            ]
        else:
            length = total_frames / self.num_frames
            shifts = [0.0, *(length / y for y in range(2, temporal_clips + 1))]
            indices = sorted(int(shift + length * i) for shift in shifts for i in range(self.num_frames))
        return [indices[c::temporal_clips] for c in range(temporal_clips)]


@dataclass(frozen=True, kw_only=True)
class TimedSampling:
    """Take frames evenly from a span of time that starts anywhere: ST-MAE's rule (arXiv:2205.09113), as released.

    The span lasts `num_frames * stride / frame_rate` seconds; `adapt_to_frame_rate` gives the rule for a video's own
    frame rate, which all other methods assume. From the first to the last frame of a clip there is one frame of the
    video less than the span has, so 16 frames at a stride of 4 are 4.2 apart.
    """

    num_frames: int = 16  # frames of a clip
    stride: float = 4.0  # frames of the video in the span, for each frame of the clip; it may be a fraction
    frame_rate: float = 30.0  # frames per second of the video that the stride counts
    # "between" two frames, where the whole video is decoded and positions in it are rounded down (pre-training); at the
    # next whole "frame", where only the span is decoded and positions are rounded down within it (fine-tuning, and all
    # evaluation views)
    start_mode: Literal["between", "frame"] = "between"

    def __post_init__(self) -> None:
        if self.num_frames < 1 or not (0 < self.stride < math.inf and 0 < self.frame_rate < math.inf):
            raise InputError(
                f"a clip of {self.num_frames} frames at a stride of {self.stride} and {self.frame_rate} frames per "
                "second cannot be sampled; take num_frames of 1 or more, and a stride and a frame_rate above 0"
            )

    @property
    def span_frames(self) -> float:
        """Frames of the video in the span, not always a whole number."""
        return self.num_frames * self.stride

    def adapt_to_frame_rate(self, frame_rate: float) -> "TimedSampling":
        """Return the same rule for a video of `frame_rate` frames per second."""
        return replace(self, stride=self.stride * frame_rate / self.frame_rate, frame_rate=frame_rate)

    def get_last_start(self, total_frames: int) -> float:
        """Return the last start that may be drawn; 0 for a video that is no longer than the span."""
        return max(total_frames - self.span_frames, 0.0)

    def list_indices_from(self, start: float, total_frames: int) -> list[int]:
        """Return the frames of the span from `start`; where the video ends too soon, its last one is repeated."""
        if self.start_mode == "frame":
            return self._list_indices_in_span(start, total_frames)
        positions = _linspace_float32(start, start + self._last_offset, self.num_frames)
        return _floor_and_clip(positions, 0, total_frames - 1)

    def draw_indices(self, total_frames: int, rng: np.random.Generator) -> list[int]:
        return self.list_indices_from(rng.uniform(0, self.get_last_start(total_frames)), total_frames)

    def draw_repeat_indices(self, total_frames: int, repeats: int, rng: np.random.Generator) -> list[list[int]]:
        """Draw the frames of `repeats` clips, each with its own start anywhere in the video."""
        return [self.draw_indices(total_frames, rng) for _ in range(repeats)]

    def list_view_indices(self, total_frames: int, temporal_clips: int) -> list[list[int]]:
        """Return spans whole frames apart, from the video's start nearly to its end; one view is in the middle."""
        last_start = self.get_last_start(total_frames)
        starts = [math.floor(last_start / 2)]
        if temporal_clips > 1:
            starts = [k * math.floor(last_start / (temporal_clips - 1)) for k in range(temporal_clips)]
        return [self._list_indices_in_span(float(start), total_frames) for start in starts]

    def _list_indices_in_span(self, start: float, total_frames: int) -> list[int]:
        first = min(math.ceil(start), total_frames - 1)
        last = min(math.floor(start + self._last_offset), total_frames - 1)
        offsets = _linspace_float32(0.0, self._last_offset, self.num_frames)
        return [first + offset for offset in _floor_and_clip(offsets, 0, max(last - first, 0))]

    @property
    def _last_offset(self) -> float:
        return max(self.span_frames - 1, 0.0)


def _draw_from_range(values: range, rng: np.random.Generator) -> int:
    """Draw one of the values; where there is only one, NumPy draws nothing, and is not asked."""
    return values.start if len(values) == 1 else int(rng.integers(values.start, values.stop))


def _linspace_float32(first: float, last: float, count: int) -> np.ndarray:
    """Return evenly spaced float32 numbers, each computed from the nearer end, as torch.linspace does.

    Rounding sometimes decides between two frames: of 40 frames over 0 … 159, the 14th is 52, not 53.
    """
    low, high, n = np.float32(first), np.float32(last), np.arange(count, dtype=np.float32)
    step = (high - low) / np.float32(max(count - 1, 1))
    return np.where(n < count // 2, low + step * n, high - step * (count - 1 - n)) if count > 1 else np.array([low])


def _floor_and_clip(values: np.ndarray, low: int, high: int) -> list[int]:
    return [int(value) for value in np.clip(values, low, high)]


def _check_sampling(num_frames: int, stride: int) -> None:
    if num_frames < 1 or stride < 1:
        raise InputError(f"num_frames is {num_frames} and stride is {stride}; both must be at least 1")
