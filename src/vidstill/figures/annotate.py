"""Annotated videos: something is painted over each frame, here the most probable classes."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageColor, ImageDraw

from vidstill.data.decode.reader import DEFAULT_FRAME_RATE, VideoReader
from vidstill.data.storage.fetch import BrokenVideo, VideoSource
from vidstill.figures.text_fit import load_font, truncate_end
from vidstill.figures.timeline import OTHER_COLOR, Timeline
from vidstill.utils.files import atomic_write
from vidstill.utils.types import LUMA_WEIGHTS

_MIN_SHORT_SIDE, _MAX_LONG_SIDE = 480, 1920  # videos with a smaller short side are enlarged within the other limit
_TICKS_PER_SECOND = 90_000  # the frame times of all usual frame rates are whole numbers of ticks
_ENCODER_OPTIONS = {"preset": "veryfast", "crf": "18"}
_PANEL_COLOR, _BAR_TRACK_COLOR = (16, 16, 20, 184), (86, 86, 92, 216)
_TEXT_COLOR, _DIM_TEXT_COLOR = (255, 255, 255), (214, 214, 220)
_MAX_PIXEL_ASPECT = 10  # a header that states more is damaged

PaintFn = Callable[[Image.Image, float], None]
"""`(image, seconds)`: paints over the image, which is shown at this time."""


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
    with VideoReader(source) as video:
        pixel_aspect, frame_rate = video.read_pixel_aspect_ratio(), video.frame_rate or default_frame_rate
        frames = video.iter_timed_frames(default_frame_rate=default_frame_rate)
        first = next(frames)
        rows, columns, _ = first.to_image().shape
        height, width = compute_video_size(rows, columns, pixel_aspect)
        paint = make_paint_fn(height, width)
        with (
            atomic_write(out) as file,
            av.open(f"file:{file.name}", "w", format="mp4", options={"movflags": "faststart"}) as container,
        ):
            rate = Fraction(frame_rate or DEFAULT_FRAME_RATE).limit_denominator(10_000)
            stream = container.add_stream("libx264", rate=rate, options=dict(_ENCODER_OPTIONS))
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.codec_context.time_base = Fraction(1, _TICKS_PER_SECOND)
            latest = -1
            with suppress(BrokenVideo):
                for timed in chain([first], frames):
                    image = Image.fromarray(timed.to_image())
                    is_size = image.width - width in (0, 1) and image.height - height in (0, 1)
                    image = image.crop((0, 0, width, height)) if is_size else image.resize((width, height))
                    paint(image, timed.pts_seconds)
                    frame = av.VideoFrame.from_image(image)
                    latest = max(latest + 1, round(timed.pts_seconds * _TICKS_PER_SECOND))
                    frame.pts, frame.time_base = latest, Fraction(1, _TICKS_PER_SECOND)
                    container.mux(stream.encode(frame))
                    progress(timed.pts_seconds)
            container.mux(stream.encode())


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


class PanelRenderer:
    """Renders translucent panels with a line for each class: its name, its score in percent, and below them a bar.

    Args:
        font_size: In pixels; everything else is in proportion.
        max_name_width: In pixels; longer names are cut off.
    """

    def __init__(self, font_size: int, max_name_width: int):
        self._font_size, self._line_height, self._padding = font_size, round(1.9 * font_size), round(0.45 * font_size)
        self._max_name_width = max_name_width
        self._score_width = self._measure_text("100 %") + font_size // 2

    def measure_names(self, names: Iterable[str]) -> int:
        """Return the width of the longest of these names on a panel."""
        font = load_font(self._font_size, bold=True)
        lines = (truncate_end(name, self._max_name_width, font) for name in names)
        return max(map(self._measure_text, lines), default=0)

    def render(
        self, lines: Sequence[tuple[str, float, str]], name_width: int, tag: tuple[str, str] = ("", "")
    ) -> Image.Image:
        """Render a panel.

        Args:
            lines: Name, score in [0, 1] and colour of the bar.
            name_width: Of the longest name, by `measure_names`.
            tag: Text and colour of a label at the left, such as the number of a track.
        """
        edge, text, color = self._padding // 2, *tag
        tag_width = self._measure_text("88") + self._padding if text else 0
        left = tag_width + self._padding
        right = left + (name_width + self._score_width if lines else 0)
        height = max(1, len(lines)) * self._line_height + self._padding
        panel = Image.new("RGBA", (right + self._padding, height), _PANEL_COLOR)
        draw = ImageDraw.Draw(panel)
        if text:
            draw.rectangle((0, 0, tag_width, height), color)
            is_dark = sum(np.multiply(ImageColor.getrgb(color)[:3], LUMA_WEIGHTS)) < 140
            center, font = (tag_width / 2, edge + self._line_height / 2), load_font(self._font_size, bold=True)
            draw.text(center, text, _TEXT_COLOR if is_dark else "black", font, anchor="mm")
        for line, (name, score, bar_color) in enumerate(lines):
            y = edge + (line + 0.42) * self._line_height
            font, text_color = load_font(self._font_size, bold=line == 0), _DIM_TEXT_COLOR if line else _TEXT_COLOR
            draw.text((left, y), truncate_end(name, name_width, font), text_color, font, anchor="lm")
            draw.text((right, y), f"{100 * score:.0f} %", text_color, font, anchor="rm")
            y, radius = y + 0.78 * self._font_size, self._font_size * 0.107
            for length, fill in ((right - left, _BAR_TRACK_COLOR), (score * (right - left), bar_color)):
                if length >= 1:
                    draw.rounded_rectangle((left, y - radius, left + length, y + radius), radius / 2, fill)
        return panel

    def _measure_text(self, text: str) -> int:
        return math.ceil(load_font(self._font_size, bold=True).getlength(text))


class ClassPainter:
    """Paints a panel with the best classes of the nearest window over the lower left corner.

    The panels of all windows have the same size, so that nothing jumps.

    Args:
        classes: All class names.
        top_k: Classes that are shown at a time; fewer in a low frame.
        height, width: Of the frames.
    """

    def __init__(self, timeline: Timeline, classes: Sequence[str], top_k: int, height: int, width: int):
        self._timeline, self._classes, self._colors = timeline, classes, timeline.assign_colors()
        font_size = max(14, round(min(height, width) / 30))
        self._panels = PanelRenderer(font_size, width // 2)
        num_lines = max(1, min(top_k, height // (4 * font_size)))
        self._top_classes = np.argsort(-timeline.probabilities, axis=1, kind="stable")[:, :num_lines]
        self._name_width = self._panels.measure_names(classes[label] for label in np.unique(self._top_classes)[:1000])
        self._cached_panel = lru_cache(maxsize=8)(self._render_panel)

    def __call__(self, image: Image.Image, seconds: float) -> None:
        panel = self._cached_panel(self._timeline.find_window(seconds))
        image.paste(panel, (0, image.height - panel.height), panel)

    def _render_panel(self, window: int) -> Image.Image:
        scores = ((label, float(self._timeline.probabilities[window, label])) for label in self._top_classes[window])
        lines = [(self._classes[n], score, self._colors.get(n, OTHER_COLOR)) for n, score in scores]
        return self._panels.render(lines, self._name_width)
