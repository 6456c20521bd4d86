"""Windows of one length over a video of any length, in memory that does not grow with it."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from vidstill.data.datasets.view_clips import ViewsConfig
from vidstill.data.decode.images import ImageArray
from vidstill.data.decode.reader import TimedFrame, VideoReader, iter_timed_frames
from vidstill.data.storage.fetch import BrokenVideo, VideoSource
from vidstill.utils.types import check_range


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """The windows of a video."""

    window_seconds: float  # seconds of a window
    hop_seconds: float  # seconds from the start of a window to the start of the next

    def __post_init__(self) -> None:
        check_range(1e-3, math.inf, window_seconds=self.window_seconds, hop_seconds=self.hop_seconds)


@dataclass(frozen=True)
class Window:
    """A window, from `start` to `end` in seconds from the video's first frame, and its spatial crops as uint8 clips."""

    start: float
    end: float
    clip: UInt8[Tensor, "crops 3 t h w"]


def iter_windows(
    source: VideoSource | VideoReader,
    config: WindowsConfig,
    views: ViewsConfig,
    *,
    default_frame_rate: float | None = None,
) -> Iterator[Window]:
    """Yield the windows of a video from its start to its end.

    A clip's frames are evenly spaced in the window, the first at its start; each is the frame nearest in time. Where
    the video ends within a window, its last frame is repeated; a window that would be filled by half or less is left
    out, unless it is the only one.

    Args:
        source: The video, opened or not.
        views: How many frames a clip has and how they are cropped; its sampling rule is not used.
        default_frame_rate: Frames per second, where the file states none.

    Raises:
        BrokenVideo: After the last window that decodes, if something is wrong behind it.
    """
    num_frames = views.sampling.num_frames
    interval = config.window_seconds / num_frames
    num_started, end = 0, 0.0
    partial_windows: deque[tuple[float, list[list[ImageArray]]]] = deque()  # start, and the crops of each frame so far
    iter_frames = source.iter_timed_frames if isinstance(source, VideoReader) else partial(iter_timed_frames, source)
    frames = iter_frames(default_frame_rate=default_frame_rate)
    for frame, nearest_until in _iter_nearest_frames(frames):
        end = frame.pts_seconds + frame.duration_seconds
        crops: list[ImageArray] = []
        while True:
            for start, frame_crops in partial_windows:
                while len(frame_crops) < num_frames and start + len(frame_crops) * interval <= nearest_until:
                    crops = crops or _crop_image(frame.to_image(), views)
                    frame_crops.append(crops)
            while partial_windows and len(partial_windows[0][1]) == num_frames:
                start, frame_crops = partial_windows.popleft()
                yield _build_window(start, start + config.window_seconds, frame_crops)
            if num_started * config.hop_seconds > nearest_until:
                break
            partial_windows.append((num_started * config.hop_seconds, []))
            num_started += 1
    for start, frame_crops in partial_windows:
        if start == 0 or 2 * len(frame_crops) > num_frames:
            crops = crops or _crop_image(frame.to_image(), views)
            yield _build_window(start, end, frame_crops + [crops] * (num_frames - len(frame_crops)))


def _iter_nearest_frames(frames: Iterator[TimedFrame]) -> Iterator[tuple[TimedFrame, float]]:
    """Yield each frame and the time until which it is the nearest; an error is raised after the last frame."""
    last, broken = None, None
    try:
        for frame in frames:
            if last is not None:
                yield last, (last.pts_seconds + frame.pts_seconds) / 2
            last = frame
    except BrokenVideo as error:
        broken = error
    if last is not None:
        yield last, last.pts_seconds + last.duration_seconds / 2
    if broken is not None:
        raise broken


def _build_window(start: float, end: float, frame_crops: list[list[ImageArray]]) -> Window:
    crops = rearrange(np.array(frame_crops), "t crops h w c -> crops c t h w")
    return Window(start, end, torch.from_numpy(np.ascontiguousarray(crops)))


def _crop_image(image: ImageArray, views: ViewsConfig) -> list[UInt8[np.ndarray, "rows cols 3"]]:
    return [crop[0] for crop in views.crop(image[None])]
