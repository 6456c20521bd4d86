"""Which frames around a key frame a clip has, by either of the released rules."""

import math
from dataclasses import dataclass
from typing import Literal

from vidstill.utils.types import check_range


@dataclass(frozen=True, kw_only=True)
class KeyframeSampling:
    """Frames at regular intervals around a key frame."""

    num_frames: int = 16  # frames of a clip
    stride: int = 4  # distance of two frames, in frames at `frame_rate`
    # frames per second that the stride counts; in a video with another rate, the nearest frames are used
    frame_rate: float = 25.0
    # "videomae" (its detection code): as many frames before the key frame as after it, of which the middle ones are
    # used (16 frames at stride 4: -31, -27, …, -3, 1, …, 29); "slowfast" (PySlowFast): half a clip before the key frame
    # and half from it on (-32, …, 0, …, 28)
    rule: Literal["videomae", "slowfast"] = "videomae"

    def __post_init__(self) -> None:
        check_range(1, math.inf, num_frames=self.num_frames, stride=self.stride)
        check_range(1e-3, math.inf, frame_rate=self.frame_rate)

    def compute_offsets(self) -> list[int]:
        """Return the frames' distances from the key frame, in frames at `frame_rate`, away from a video's ends.

        PySlowFast's rule gives one frame less than `frames` if that is odd and the stride is 1.
        """
        span = self.num_frames * self.stride
        if self.rule == "slowfast":
            return list(range(-(span // 2), span // 2, self.stride))
        start = -(span // 2) - span % 2 + (self.stride - 1) // 2
        return [start + k * self.stride for k in range(self.num_frames)]

    def compute_video_offsets(
        self, frames_before: int, frames_after: int, frame_rate_ratio: float = 1.0, subframe_offset: float = 0.0
    ) -> list[int]:
        """Return the frames' distances from the key frame in a video's own frames; its first or last frame is repeated.

        Args:
            frames_before: Frames of the video before the key frame. VideoMAE's rule uses as many frames on both sides.
            frames_after: Frames of the video from the key frame on.
            frame_rate_ratio: Frame rate of the video divided by `frame_rate`.
            subframe_offset: Frames from the key frame to the annotated moment, from -0.5 to 0.5.
        """
        low, high = -frames_before, frames_after - 1
        if self.rule == "videomae":
            low, high = -min(frames_before, frames_after), max(min(frames_before, frames_after) - 1, 0)
        offsets = (round_half_up(subframe_offset + k * frame_rate_ratio) for k in self.compute_offsets())
        return [min(max(offset, low), high) for offset in offsets]


def round_half_up(value: float) -> int:
    """Round to the nearest integer, halves up: regular intervals stay regular."""
    return math.floor(round(value, 6) + 0.5)
