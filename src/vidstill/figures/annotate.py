"""Annotated videos: something is drawn over each frame, here the most probable classes."""

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

_MIN_SHORT_SIDE, _MAX_LONG_SIDE = 480, 1920  # videos with a smaller short side are enlarged within the other limit
_TICKS_PER_SECOND = 90_000  # the frame times of all usual frame rates are whole numbers of ticks
_ENCODER_OPTIONS = {"preset": "veryfast", "crf": "18"}
PANEL_COLOR, BAR_TRACK_COLOR = (16, 16, 20, 184), (86, 86, 92, 216)
TEXT_COLOR, DIM_TEXT_COLOR = (255, 255, 255, 255), (214, 214, 220, 255)
_MAX_PIXEL_ASPECT = 10  # a header that states more is damaged

PaintFn = Callable[[ImageArray, float], None]
"""`(image, seconds)`: paints over the image, which is shown at this time."""


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
    """Write an MP4 by `redraw_video` with the classes of the nearest window over each frame.

    Args:
        source: The video.
        out: The MP4.
        classes: All class names.
        top_k: Classes that are shown at a time.
        default_frame_rate: Frames per second, if the file does not state it.
        progress: Called with the seconds that are written.

    Raises:
        BrokenVideo: No frame decodes.
        InputError: The MP4 cannot be written; an earlier one is unchanged.
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
    """Write an MP4, complete or absent, with every frame of the video, upright, at its time, painted over.

    Pixels become square, and small videos are enlarged by a whole number so that text is legible; the last row or
    column of an odd size is dropped. There is no sound. It ends where the video no longer decodes.

    Args:
        source: The video.
        out: The MP4.
        make_paint_fn: Receives the rows and columns of the frames, and returns what paints over each.
        default_frame_rate: Frames per second, if the file does not state it.
        progress: Called with the seconds that are written.

    Raises:
        BrokenVideo: No frame decodes.
        InputError: The MP4 cannot be written; an earlier one is unchanged.
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
        for timed in _stop_at_broken_frame(chain([first], frames)):
            image = _resize_frame(timed.to_image(), height, width)
            paint(image, timed.pts_seconds)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            latest = max(latest + 1, round(timed.pts_seconds * _TICKS_PER_SECOND))
            frame.pts, frame.time_base = latest, Fraction(1, _TICKS_PER_SECOND)
            container.mux(stream.encode(frame))
            progress(timed.pts_seconds)
        container.mux(stream.encode())


def _stop_at_broken_frame(frames: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
    with suppress(BrokenVideo):
        yield from frames


def compute_video_size(height: int, width: int, pixel_aspect: float) -> tuple[int, int]:
    """Return the rows and columns of the annotated video, both even.

    Args:
        height, width: Of the upright frames.
        pixel_aspect: Width of a pixel divided by its height.
    """
    square = width * (pixel_aspect if 1 / _MAX_PIXEL_ASPECT <= pixel_aspect <= _MAX_PIXEL_ASPECT else 1)
    scale = max(1, min(math.ceil(_MIN_SHORT_SIDE / min(height, square)), int(_MAX_LONG_SIDE / max(height, square))))
    rows, columns = height * scale, round(square * scale)
    return max(2, rows - rows % 2), max(2, columns - columns % 2)


def _add_stream(container: Any, height: int, width: int, rate: float) -> Any:
    stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(10_000))
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    stream.codec_context.time_base = Fraction(1, _TICKS_PER_SECOND)
    stream.options = dict(_ENCODER_OPTIONS)
    return stream


def _resize_frame(image: ImageArray, height: int, width: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """Return the image in this size; one that is larger by one row or column is cropped."""
    rows, columns = image.shape[:2]
    if rows - rows % 2 == height and columns - columns % 2 == width:
        return np.ascontiguousarray(image[:height, :width])
    return np.array(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Overlay:
    """A translucent image: the factor of the image below it, and what is added, both times 255."""

    transmittance: Int32[np.ndarray, "h w 1"]
    premultiplied: Int32[np.ndarray, "h w 3"]

    @classmethod
    def from_image(cls, image: Image.Image) -> "Overlay":
        """Build an overlay from an RGBA image."""
        pixels = np.array(image).astype(np.int32)
        alpha = pixels[..., 3:]
        return cls(255 - alpha, pixels[..., :3] * alpha)

    def composite(self, image: ImageArray) -> None:
        """Draw it over an image from its upper left corner; what does not fit is cut off."""
        part = np.s_[: image.shape[0], : image.shape[1]]
        np.copyto(image, ((image * self.transmittance[part] + self.premultiplied[part] + 127) // 255).astype(np.uint8))


def draw_bar(
    draw: ImageDraw.ImageDraw, left: int, center_y: float, length: int, font_size: int, value: float, color: str
) -> None:
    """Draw a value in [0, 1] as a bar on its track.

    Args:
        draw: Of the image.
        left, center_y: Of the track, in pixels.
        length: Of the track, in pixels.
        font_size: Of the text beside it.
        color: Of the bar.
    """
    radius = font_size * 0.32
    for fraction, fill in ((1.0, BAR_TRACK_COLOR), (value, (*ImageColor.getrgb(color)[:3], 255))):
        if fraction * length >= 1:
            box = left, center_y - radius, left + fraction * length, center_y + radius
            draw.rounded_rectangle(box, radius / 2, fill=fill)


class _ClassPanels:
    """A dark panel in the lower left corner: for each of the best classes its name, a bar, and its percentage.

    The panels of all windows have the same size and columns, so that nothing jumps.
    """

    def __init__(self, height: int, width: int, timeline: Timeline, classes: Sequence[str], top_k: int):
        self._probabilities, self._classes = timeline.probabilities, classes
        self._colors = timeline.assign_colors()
        size = max(14, round(min(height, width) / 30))
        self._font_size, self._line_height, self._padding = size, round(1.55 * size), round(0.7 * size)
        max_lines = (height // 2 - 2 * self._padding) // self._line_height
        self._num_lines = max(1, min(top_k, len(classes), max_lines))
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
        """Draw a window's panel over an image."""
        self._cached_panel(window).composite(image[-self._height :, : self._width])

    def _render_panel(self, window: int) -> Overlay:
        panel = Image.new("RGBA", (self._width, self._height), PANEL_COLOR)
        draw = ImageDraw.Draw(panel)
        left, right = self._padding + self._name_width + self._font_size, self._width - self._padding
        for line, label in enumerate(self._top_classes[window]):
            probability = float(self._probabilities[window, label])
            center = self._padding + (line + 0.5) * self._line_height
            bold, text_color = line == 0, DIM_TEXT_COLOR if line else TEXT_COLOR
            font = load_font(self._font_size, bold=bold)
            name = truncate_end(self._classes[label], self._name_width, self._font_size, bold=bold)
            draw.text((self._padding, center), name, font=font, fill=text_color, anchor="lm")
            bar_color = self._colors.get(int(label), OTHER_COLOR)
            draw_bar(draw, left, center, self._bar_width, self._font_size, probability, bar_color)
            draw.text((right, center), f"{100 * probability:.0f} %", font=font, fill=text_color, anchor="rm")
        return Overlay.from_image(panel)

    def _measure_text(self, text: str) -> int:
        return math.ceil(load_font(self._font_size, bold=True).getlength(text))
