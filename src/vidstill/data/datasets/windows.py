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
from vidstill.data.decode.images import Picture
from vidstill.data.decode.stream import Shown, timed
from vidstill.data.storage.fetch import BrokenVideo, Source
from vidstill.data.transforms.crop import view_crops
from vidstill.utils.types import within


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    """Where a video is looked at.

    Args:
        seconds: of a window.
        hop: seconds from the start of a window to the start of the next.
    """

    seconds: float
    hop: float

    def __post_init__(self) -> None:
        within(1e-3, math.inf, seconds=self.seconds, hop=self.hop)


@dataclass(frozen=True)
class Window:
    """Seconds of a video, from its first frame on, and the clips that are seen of them, in bytes."""

    start: float
    end: float
    clip: UInt8[Tensor, "crops 3 t h w"]


def windows(source: Source, cut: WindowsConfig, views: ViewsConfig, *, rate: float | None = None) -> Iterator[Window]:
    """The windows of a video from its start to its end.

    A clip's frames stand evenly in the window, the first at its start: of each moment, the frame that is nearest. Where
    the video ends within a window, its last frame is repeated; a window that would be filled by half or less is left
    out, unless it is the only one.

    Args:
        views: how many frames a clip has and where they are cropped; which frames, the window says.
        rate: frames per second, where the file states none.

    Raises:
        BrokenVideo: behind the last window that decodes, if something is wrong there.
    """
    frames = views.sampling.frames
    gap = cut.seconds / frames
    started, end = 0, 0.0
    filling: deque[_Filling] = deque()
    for shown, until in _nearest(timed(source, rate=rate)):
        end = shown.seconds + shown.lasts
        seen: list[Picture] = []
        while True:
            for each in filling:
                while len(each.seen) < frames and each.start + len(each.seen) * gap <= until:
                    seen = seen or _crops(shown.picture(), views)
                    each.seen.append(seen)
            while filling and len(filling[0].seen) == frames:
                yield filling.popleft().window(cut.seconds)
            if started * cut.hop > until:
                break
            filling.append(_Filling(started * cut.hop, []))
            started += 1
    for each in filling:
        if each.start == 0 or 2 * len(each.seen) > frames:
            seen = seen or _crops(shown.picture(), views)
            each.seen.extend([seen] * (frames - len(each.seen)))
            yield each.window(end - each.start)


def _nearest(frames: Iterator[Shown]) -> Iterator[tuple[Shown, float]]:
    """Each frame, and the moment up to which it is the nearest; what is wrong behind the last is raised after it."""
    last, wrong = None, None
    try:
        for shown in frames:
            if last is not None:
                yield last, (last.seconds + shown.seconds) / 2
            last = shown
    except BrokenVideo as error:
        wrong = error
    if last is not None:
        yield last, last.seconds + last.lasts / 2
    if wrong is not None:
        raise wrong


@dataclass(frozen=True)
class _Filling:
    """A window that is not full yet: for each frame that was seen, its crops."""

    start: float
    seen: list[list[Picture]]

    def window(self, seconds: float) -> Window:
        crops = rearrange(np.array(self.seen), "t crops h w c -> crops c t h w")
        return Window(self.start, self.start + seconds, torch.from_numpy(np.ascontiguousarray(crops)))


def _crops(picture: Picture, views: ViewsConfig) -> list[UInt8[np.ndarray, "rows cols 3"]]:
    spatial = views.short_side, views.size, views.crops, views.interpolation, views.crop_rule
    return [crop[0] for crop in view_crops(picture[None], *spatial)]
