"""Which frames around a key frame a clip has, by either of the released rules."""

import math
from dataclasses import dataclass
from typing import Literal

from vidstill.utils.types import check_range


@dataclass(frozen=True, kw_only=True)
class KeyframeSampling:
    """Frames around a key frame, `stride` of them apart.

    Args:
        frame_rate: frames per second that the stride counts; of a video with another rate, the frames nearest in time are
            taken.
        rule: "videomae" (its detection code): of the frames beside the moment at which the second begins, equally many
            on both sides, the middle ones (16 frames at stride 4: -31, -27, …, -3, 1, …, 29); "slowfast"
            (PySlowFast): from half a clip before the key frame on (-32, …, 0, …, 28).
    """

    frames: int = 16
    stride: int = 4
    frame_rate: float = 25.0
    rule: Literal["videomae", "slowfast"] = "videomae"

    def __post_init__(self) -> None:
        check_range(1, math.inf, frames=self.frames, stride=self.stride)
        check_range(1e-3, math.inf, frame_rate=self.frame_rate)

    def compute_offsets(self) -> list[int]:
        """Where the frames stand, in frames of `rate` from the key frame, if there are enough on both sides.

        An odd number of frames one apart is one frame short by the rule of PySlowFast.
        """
        span = self.frames * self.stride
        if self.rule == "slowfast":
            return list(range(-(span // 2), span // 2, self.stride))
        start = -(span // 2) - span % 2 + (self.stride - 1) // 2
        return [start + k * self.stride for k in range(self.frames)]

    def compute_video_offsets(
        self, frames_before: int, frames_after: int, *, frame_rate_ratio: float = 1.0, subframe_offset: float = 0.0
    ) -> list[int]:
        """Where the frames stand in a video, in its own frames from the key frame; at its ends the last is repeated.

        Args:
            frames_before: frames of the video before the key frame. By the rule of VideoMAE's detection code no side has more
                than the other.
            frames_after: those from the key frame on, which counts.
            frame_rate_ratio: frames of the video for one of `rate`.
            subframe_offset: frames from the key frame to the moment that is annotated: half of one at most.
        """
        low, high = -frames_before, frames_after - 1
        if self.rule == "videomae":
            low, high = -min(frames_before, frames_after), max(min(frames_before, frames_after) - 1, 0)
        return [
            min(max(round_half_up(subframe_offset + offset * frame_rate_ratio), low), high)
            for offset in self.compute_offsets()
        ]

    def compute_frame_indices(self, center: int, num_frames: int) -> list[int]:
        """The frames of a video of `rate` that has `total` of them, by their numbers from 0."""
        return [center + place for place in self.compute_video_offsets(center, num_frames - center)]


def round_half_up(value: float) -> int:
    """The whole number; of two that are equally near the higher, so that even steps stay even."""
    return math.floor(round(value, 6) + 0.5)
