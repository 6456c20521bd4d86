"""A video again, with something drawn over each frame: here the most probable classes of each moment."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image, ImageColor, ImageDraw

from vidstill.data.decode.images import Picture
from vidstill.data.decode.probe import frame_rate, pixel_aspect
from vidstill.data.decode.stream import USUAL_RATE, Shown, timed
from vidstill.data.storage.fetch import BrokenVideo, Source, name_of
from vidstill.figures.text_fit import ended, font
from vidstill.figures.timeline import OTHER, Timeline
from vidstill.utils.files import HALF

_SHORT, _LONG = 480, 1920  # smaller videos are enlarged until the shorter side has the one, if the longer stays below
_TICKS = 90_000  # a second: the times of every usual frame rate are whole numbers of them
_CODING = {"preset": "veryfast", "crf": "18"}
DARK, TRACK, PAPER, PALE = (16, 16, 20, 184), (86, 86, 92, 216), (255, 255, 255, 255), (214, 214, 220, 255)
_FLATTEST = 10  # a header that states pixels of other shapes is damaged

Paint = Callable[[Picture, float], None]
"""Paints over a picture, at its second of the video."""


def annotate(
    source: Source,
    out: Path,
    timeline: Timeline,
    classes: Sequence[str],
    *,
    top: int = 3,
    rate: float | None = None,
    done: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Writes an MP4 by `redraw`, with the classes over it; where windows overlap, the one speaks whose middle is
    nearest.

    Args:
        top: classes that are shown at a time.
        rate: frames per second, where the file states none.
        done: is told how many seconds there are so far.

    Raises:
        BrokenVideo: not one frame decodes.
        OSError: it cannot be written; what was there still is.
    """

    def painter(height: int, width: int) -> Paint:
        panels = _Panels(height, width, timeline, classes, top)
        return lambda image, seconds: panels.draw(image, timeline.at(seconds))

    redraw(source, out, painter, rate=rate, done=done)


def redraw(
    source: Source,
    out: Path,
    painter: Callable[[int, int], Paint],
    *,
    rate: float | None = None,
    done: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Writes an MP4, complete or not at all: each frame of the video, upright, at its time, painted over.

    Pixels become square, and small videos are enlarged by a whole number, so that letters can be read; of odd sizes the
    last row or column is left out. No sound. It ends where the video does not decode any further.

    Args:
        painter: is told the rows and columns of the frames, and gives what paints over each.
        rate: frames per second, where the file states none.
        done: is told how many seconds there are so far.

    Raises:
        BrokenVideo: not one frame decodes.
        OSError: it cannot be written; what was there still is.
    """
    half = out.with_name(out.name + HALF)
    frames = timed(source, rate=rate)
    first = next(frames, None)
    if first is None:
        raise BrokenVideo(f"{name_of(source)} holds no frame that decodes")
    rows, columns, _ = first.picture().shape
    height, width = size_for(rows, columns, pixel_aspect(source))
    paint = painter(height, width)
    try:
        with av.open(f"file:{half}", "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = _stream(container, height, width, frame_rate(source) or rate or USUAL_RATE)
            latest = -1
            for shown in _decodable(chain([first], frames)):
                image = _sized(shown.picture(), height, width)
                paint(image, shown.seconds)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                latest = max(latest + 1, round(shown.seconds * _TICKS))
                frame.pts, frame.time_base = latest, Fraction(1, _TICKS)
                container.mux(stream.encode(frame))
                done(shown.seconds)
            container.mux(stream.encode())
        os.replace(half, out)
    finally:
        half.unlink(missing_ok=True)


def _decodable(frames: Iterator[Shown]) -> Iterator[Shown]:
    with suppress(BrokenVideo):
        yield from frames


def size_for(height: int, width: int, pixel_aspect: float) -> tuple[int, int]:
    """Rows and columns of the annotated video, both even.

    Args:
        pixel_aspect: how many times as wide as high a pixel is.
    """
    wide = width * (pixel_aspect if 1 / _FLATTEST <= pixel_aspect <= _FLATTEST else 1)
    times = max(1, min(math.ceil(_SHORT / min(height, wide)), int(_LONG / max(height, wide))))
    rows, columns = height * times, round(wide * times)
    return max(2, rows - rows % 2), max(2, columns - columns % 2)


def _stream(container: Any, height: int, width: int, rate: float) -> Any:
    stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(10_000))
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    stream.codec_context.time_base = Fraction(1, _TICKS)
    stream.options = dict(_CODING)
    return stream


def _sized(picture: Picture, height: int, width: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """A picture of its own memory at this size; one that is larger by a last row or column loses that."""
    rows, columns = picture.shape[:2]
    if rows - rows % 2 == height and columns - columns % 2 == width:
        return np.ascontiguousarray(picture[:height, :width])
    return np.array(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Overlay:
    """Something half transparent: what the picture below is multiplied with, and what is added, both times 255."""

    ground: Int32[np.ndarray, "h w 1"]
    ink: Int32[np.ndarray, "h w 3"]

    @classmethod
    def of(cls, image: Image.Image) -> "Overlay":
        """A picture in RGBA."""
        pixels = np.array(image).astype(np.int32)
        cover = pixels[..., 3:]
        return cls(255 - cover, pixels[..., :3] * cover)

    def over(self, below: Picture) -> None:
        """Is laid over a part of a picture; what that has no room for is cut off."""
        own = np.s_[: below.shape[0], : below.shape[1]]
        np.copyto(below, ((below * self.ground[own] + self.ink[own] + 127) // 255).astype(np.uint8))


def draw_bar(
    draw: ImageDraw.ImageDraw, left: int, middle: float, length: int, size: int, share: float, colour: str
) -> None:
    """A share as a bar on its track.

    Args:
        length: of the track, in pixels.
        size: of the letters beside it.
    """
    half = size * 0.32
    for part, fill in ((1.0, TRACK), (share, (*ImageColor.getrgb(colour)[:3], 255))):
        if part * length >= 1:
            draw.rounded_rectangle((left, middle - half, left + part * length, middle + half), half / 2, fill=fill)


class _Panels:
    """Below on the left, on a darker ground: for each of the first classes its name, a bar, and the share in percent.

    All windows' have the same size and the same columns, so that nothing jumps.
    """

    def __init__(self, height: int, width: int, timeline: Timeline, classes: Sequence[str], top: int):
        self._probabilities, self._classes = timeline.probabilities, classes
        self._colours = timeline.colours()
        size = max(14, round(min(height, width) / 30))
        self._size, self._line, self._pad = size, round(1.55 * size), round(0.7 * size)
        room = (height // 2 - 2 * self._pad) // self._line
        self._lines = max(1, min(top, len(classes), room))
        order = np.argsort(-timeline.probabilities, axis=1, kind="stable")
        self._order = order[:, : self._lines]
        names = {ended(classes[label], width, size, bold=True) for label in np.unique(self._order)[:1000]}
        percent, longest = self._length("100 %"), max(map(self._length, names))
        inner = width - 2 * self._pad
        self._bar = min(10 * size, max(3 * size, int(0.3 * inner)))
        self._name = max(0, min(longest, inner - self._bar - percent - 2 * size))
        self._width = min(width, 2 * self._pad + self._name + self._bar + percent + 2 * size)
        self._height = min(height, 2 * self._pad + self._lines * self._line)
        self._drawn = lru_cache(maxsize=8)(self._draw)

    def draw(self, image: Picture, window: int) -> None:
        """Draws a window's panel over a picture."""
        below = image[-self._height :, : self._width]
        self._drawn(window).over(below)

    def _draw(self, window: int) -> Overlay:
        panel = Image.new("RGBA", (self._width, self._height), DARK)
        draw = ImageDraw.Draw(panel)
        for place, label in enumerate(self._order[window]):
            share = float(self._probabilities[window, label])
            middle = self._pad + (place + 0.5) * self._line
            colour = PALE if place else PAPER
            letters = font(self._size, bold=place == 0)
            name = ended(self._classes[label], self._name, self._size, bold=place == 0)
            draw.text((self._pad, middle), name, font=letters, fill=colour, anchor="lm")
            left = self._pad + self._name + self._size
            colour_of_bar = self._colours.get(int(label), OTHER)
            draw_bar(draw, left, middle, self._bar, self._size, share, colour_of_bar)
            right = self._width - self._pad
            draw.text((right, middle), f"{100 * share:.0f} %", font=letters, fill=colour, anchor="rm")
        return Overlay.of(panel)

    def _length(self, text: str) -> int:
        return math.ceil(font(self._size, bold=True).getlength(text))
