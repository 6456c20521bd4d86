"""Which frames around a key frame a clip has, by either of the released rules."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class KeySampling:
    """Frames around a key frame, `stride` of them apart.

    Args:
        rate: frames per second that the stride counts; of a video with another rate, the frames nearest in time are
            taken.
        rule: "videomae" (its detection code): of the frames beside the moment at which the second begins, equally many
            on both sides, the middle ones (16 frames at stride 4: -31, -27, …, -3, 1, …, 29); "slowfast"
            (PySlowFast): from half a clip before the key frame on (-32, …, 0, …, 28).
    """

    frames: int = 16
    stride: int = 4
    rate: float = 25.0
    rule: Literal["videomae", "slowfast"] = "videomae"
