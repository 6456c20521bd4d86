"""A video of any length as windows of the same length, one after another, in memory that does not grow with it."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.decode.images import ImageArray
from vidstill.data.decode.reader import TimedFrame, iter_timed_frames
from vidstill.data.storage.fetch import BrokenVideo, VideoSource
from vidstill.utils.types import check_range


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """Where a video is looked at.

    Args:
        window_seconds: of a window.
        hop_seconds: seconds from the start of a window to the start of the next.
    """

    window_seconds: float
    hop_seconds: float

    def __post_init__(self) -> None:
        check_range(1e-3, math.inf, window_seconds=self.window_seconds, hop_seconds=self.hop_seconds)


@dataclass(frozen=True)
class Window:
    """Seconds of a video, from its first frame on, and the clips that are seen of them, in bytes."""

    start: float
    end: float
    clip: UInt8[Tensor, "crops 3 t h w"]


def iter_windows(
    source: VideoSource, config: WindowsConfig, views: ViewsConfig, *, default_frame_rate: float | None = None
) -> Iterator[Window]:
    """The windows of a video from its start to its end.

    A clip's frames stand evenly in the window, the first at its start: of each moment, the frame that is nearest. Where
    the video ends within a window, its last frame is repeated; a window that would be filled by half or less is left
    out, unless it is the only one.

    Args:
        views: how many frames a clip has and where they are cropped; which frames, the window says.
        default_frame_rate: frames per second, where the file states none.

    Raises:
        BrokenVideo: behind the last window that decodes, if something is wrong there.
    """
    frames = views.sampling.num_frames
    gap = config.window_seconds / frames
    started, end = 0, 0.0
    filling: deque[_PartialWindow] = deque()
    for shown, until in _iter_nearest_frames(iter_timed_frames(source, default_frame_rate=default_frame_rate)):
        end = shown.pts_seconds + shown.duration_seconds
        seen: list[ImageArray] = []
        while True:
            for each in filling:
                while len(each.frame_crops) < frames and each.start + len(each.frame_crops) * gap <= until:
                    seen = seen or _crop_image(shown.to_image(), views)
                    each.frame_crops.append(seen)
            while filling and len(filling[0].frame_crops) == frames:
                yield filling.popleft().to_window(config.window_seconds)
            if started * config.hop_seconds > until:
                break
            filling.append(_PartialWindow(started * config.hop_seconds, []))
            started += 1
    for each in filling:
        if each.start == 0 or 2 * len(each.frame_crops) > frames:
            seen = seen or _crop_image(shown.to_image(), views)
            each.frame_crops.extend([seen] * (frames - len(each.frame_crops)))
            yield each.to_window(end - each.start)


def _iter_nearest_frames(frames: Iterator[TimedFrame]) -> Iterator[tuple[TimedFrame, float]]:
    """Each frame, and the moment up to which it is the nearest; what is wrong behind the last is raised after it."""
    last, wrong = None, None
    try:
        for shown in frames:
            if last is not None:
                yield last, (last.pts_seconds + shown.pts_seconds) / 2
            last = shown
    except BrokenVideo as error:
        wrong = error
    if last is not None:
        yield last, last.pts_seconds + last.duration_seconds / 2
    if wrong is not None:
        raise wrong


@dataclass(frozen=True)
class _PartialWindow:
    """A window that is not full yet: for each frame that was seen, its crops."""

    start: float
    frame_crops: list[list[ImageArray]]

    def to_window(self, window_seconds: float) -> Window:
        crops = rearrange(np.array(self.frame_crops), "t crops h w c -> crops c t h w")
        return Window(self.start, self.start + window_seconds, torch.from_numpy(np.ascontiguousarray(crops)))


def _crop_image(image: ImageArray, views: ViewsConfig) -> list[UInt8[np.ndarray, "rows cols 3"]]:
    return [crop[0] for crop in views.crop(image[None])]
