"""A video again, with something drawn over each frame: here the most probable classes of each moment."""

import math
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

from vidstill.data.decode.images import ImageArray
from vidstill.data.decode.reader import DEFAULT_FRAME_RATE, TimedFrame, VideoReader, iter_timed_frames
from vidstill.data.storage.fetch import BrokenVideo, VideoSource
from vidstill.figures.text_fit import load_font, truncate_end
from vidstill.figures.timeline import OTHER_COLOR, Timeline
from vidstill.utils.files import atomic_write

_MIN_SHORT_SIDE, _MAX_LONG_SIDE = (
    480,
    1920,
)  # smaller videos are enlarged until the shorter side has the one, if the longer stays below
_TICKS_PER_SECOND = 90_000  # a second: the times of every usual frame rate are whole numbers of them
_ENCODER_OPTIONS = {"preset": "veryfast", "crf": "18"}
PANEL_COLOR, BAR_TRACK_COLOR, TEXT_COLOR, DIM_TEXT_COLOR = (
    (16, 16, 20, 184),
    (86, 86, 92, 216),
    (255, 255, 255, 255),
    (214, 214, 220, 255),
)
_MAX_PIXEL_ASPECT = 10  # a header that states pixels of other shapes is damaged

PaintFn = Callable[[ImageArray, float], None]
"""Paints over a picture, at its second of the video."""


def annotate_video(
    source: VideoSource,
    out: Path,
    timeline: Timeline,
    classes: Sequence[str],
    *,
    top_k: int = 3,
    default_frame_rate: float | None = None,
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Writes an MP4 by `redraw_video`, with the classes over it; where windows overlap, the one speaks whose middle is
    nearest.

    Args:
        top_k: classes that are shown at a time.
        default_frame_rate: frames per second, where the file states none.
        progress: is told how many seconds there are so far.

    Raises:
        BrokenVideo: not one frame decodes.
        InputError: it cannot be written; what was there still is.
    """

    def painter(height: int, width: int) -> PaintFn:
        panels = _ClassPanels(height, width, timeline, classes, top_k)
        return lambda image, seconds: panels.draw(image, timeline.find_window(seconds))

    redraw_video(source, out, painter, default_frame_rate=default_frame_rate, progress=progress)


def redraw_video(
    source: VideoSource,
    out: Path,
    make_paint_fn: Callable[[int, int], PaintFn],
    *,
    default_frame_rate: float | None = None,
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Writes an MP4, complete or not at all: each frame of the video, upright, at its time, painted over.

    Pixels become square, and small videos are enlarged by a whole number, so that letters can be read; of odd sizes the
    last row or column is left out. No sound. It ends where the video does not decode any further.

    Args:
        make_paint_fn: is told the rows and columns of the frames, and gives what paints over each.
        default_frame_rate: frames per second, where the file states none.
        progress: is told how many seconds there are so far.

    Raises:
        BrokenVideo: not one frame decodes.
        InputError: it cannot be written; what was there still is.
    """
    frames = iter_timed_frames(source, default_frame_rate=default_frame_rate)
    first = next(frames, None)
    if first is None:
        raise BrokenVideo(source, "holds no frame that decodes")
    rows, columns, _ = first.to_image().shape
    with VideoReader(source) as video:
        aspect_ratio, frame_rate = video.read_pixel_aspect_ratio(), video.frame_rate
    height, width = compute_video_size(rows, columns, aspect_ratio)
    paint = make_paint_fn(height, width)
    with (
        atomic_write(out) as file,
        av.open(f"file:{file.name}", "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        stream = _add_stream(container, height, width, frame_rate or default_frame_rate or DEFAULT_FRAME_RATE)
        latest = -1
        for shown in _stop_at_broken_frame(chain([first], frames)):
            image = _resize_frame(shown.to_image(), height, width)
            paint(image, shown.pts_seconds)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            latest = max(latest + 1, round(shown.pts_seconds * _TICKS_PER_SECOND))
            frame.pts, frame.time_base = latest, Fraction(1, _TICKS_PER_SECOND)
            container.mux(stream.encode(frame))
            progress(shown.pts_seconds)
        container.mux(stream.encode())


def _stop_at_broken_frame(frames: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
    with suppress(BrokenVideo):
        yield from frames


def compute_video_size(height: int, width: int, pixel_aspect: float) -> tuple[int, int]:
    """Rows and columns of the annotated video, both even.

    Args:
        pixel_aspect: how many times as wide as high a pixel is.
    """
    wide = width * (pixel_aspect if 1 / _MAX_PIXEL_ASPECT <= pixel_aspect <= _MAX_PIXEL_ASPECT else 1)
    times = max(1, min(math.ceil(_MIN_SHORT_SIDE / min(height, wide)), int(_MAX_LONG_SIDE / max(height, wide))))
    rows, columns = height * times, round(wide * times)
    return max(2, rows - rows % 2), max(2, columns - columns % 2)


def _add_stream(container: Any, height: int, width: int, rate: float) -> Any:
    stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(10_000))
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    stream.codec_context.time_base = Fraction(1, _TICKS_PER_SECOND)
    stream.options = dict(_ENCODER_OPTIONS)
    return stream


def _resize_frame(picture: ImageArray, height: int, width: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """A picture of its own memory at this size; one that is larger by a last row or column loses that."""
    rows, columns = picture.shape[:2]
    if rows - rows % 2 == height and columns - columns % 2 == width:
        return np.ascontiguousarray(picture[:height, :width])
    return np.array(Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Overlay:
    """Something half transparent: what the picture below is multiplied with, and what is added, both times 255."""

    transmittance: Int32[np.ndarray, "h w 1"]
    premultiplied: Int32[np.ndarray, "h w 3"]

    @classmethod
    def from_image(cls, image: Image.Image) -> "Overlay":
        """A picture in RGBA."""
        pixels = np.array(image).astype(np.int32)
        cover = pixels[..., 3:]
        return cls(255 - cover, pixels[..., :3] * cover)

    def composite(self, image: ImageArray) -> None:
        """Is laid over a part of a picture; what that has no room for is cut off."""
        own = np.s_[: image.shape[0], : image.shape[1]]
        np.copyto(image, ((image * self.transmittance[own] + self.premultiplied[own] + 127) // 255).astype(np.uint8))


def draw_bar(
    draw: ImageDraw.ImageDraw, left: int, center_y: float, length: int, font_size: int, value: float, color: str
) -> None:
    """A share as a bar on its track.

    Args:
        length: of the track, in pixels.
        font_size: of the letters beside it.
    """
    half = font_size * 0.32
    for part, fill in ((1.0, BAR_TRACK_COLOR), (value, (*ImageColor.getrgb(color)[:3], 255))):
        if part * length >= 1:
            draw.rounded_rectangle((left, center_y - half, left + part * length, center_y + half), half / 2, fill=fill)


class _ClassPanels:
    """Below on the left, on a darker ground: for each of the first classes its name, a bar, and the share in percent.

    All windows' have the same size and the same columns, so that nothing jumps.
    """

    def __init__(self, height: int, width: int, timeline: Timeline, classes: Sequence[str], top_k: int):
        self._probabilities, self._classes = timeline.probabilities, classes
        self._colors = timeline.assign_colors()
        size = max(14, round(min(height, width) / 30))
        self._font_size, self._line_height, self._padding = size, round(1.55 * size), round(0.7 * size)
        room = (height // 2 - 2 * self._padding) // self._line_height
        self._num_lines = max(1, min(top_k, len(classes), room))
        order = np.argsort(-timeline.probabilities, axis=1, kind="stable")
        self._top_classes = order[:, : self._num_lines]
        names = {truncate_end(classes[label], width, size, bold=True) for label in np.unique(self._top_classes)[:1000]}
        percent, longest = self._measure_text("100 %"), max(map(self._measure_text, names))
        inner = width - 2 * self._padding
        self._bar_width = min(10 * size, max(3 * size, int(0.3 * inner)))
        self._name_width = max(0, min(longest, inner - self._bar_width - percent - 2 * size))
        self._width = min(width, 2 * self._padding + self._name_width + self._bar_width + percent + 2 * size)
        self._height = min(height, 2 * self._padding + self._num_lines * self._line_height)
        self._cached_panel = lru_cache(maxsize=8)(self._render_panel)

    def draw(self, image: ImageArray, window: int) -> None:
        """Draws a window's panel over a picture."""
        below = image[-self._height :, : self._width]
        self._cached_panel(window).composite(below)

    def _render_panel(self, window: int) -> Overlay:
        panel = Image.new("RGBA", (self._width, self._height), PANEL_COLOR)
        draw = ImageDraw.Draw(panel)
        for place, label in enumerate(self._top_classes[window]):
            share = float(self._probabilities[window, label])
            middle = self._padding + (place + 0.5) * self._line_height
            colour = DIM_TEXT_COLOR if place else TEXT_COLOR
            letters = load_font(self._font_size, bold=place == 0)
            name = truncate_end(self._classes[label], self._name_width, self._font_size, bold=place == 0)
            draw.text((self._padding, middle), name, font=letters, fill=colour, anchor="lm")
            left = self._padding + self._name_width + self._font_size
            colour_of_bar = self._colors.get(int(label), OTHER_COLOR)
            draw_bar(draw, left, middle, self._bar_width, self._font_size, share, colour_of_bar)
            right = self._width - self._padding
            draw.text((right, middle), f"{100 * share:.0f} %", font=letters, fill=colour, anchor="rm")
        return Overlay.from_image(panel)

    def _measure_text(self, text: str) -> int:
        return math.ceil(load_font(self._font_size, bold=True).getlength(text))
