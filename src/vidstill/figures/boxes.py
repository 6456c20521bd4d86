"""Annotated videos of detections: the persons' boxes, and beside each what the person does."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from vidstill.data.decode.images import ImageArray
from vidstill.data.storage.fetch import VideoSource
from vidstill.figures.annotate import DIM_TEXT_COLOR, PANEL_COLOR, TEXT_COLOR, Overlay, PaintFn, draw_bar, redraw_video
from vidstill.figures.text_fit import load_font, truncate_end
from vidstill.figures.timeline import CLASS_COLORS
from vidstill.figures.tracks import PersonTracks, TrackBox
from vidstill.utils.types import LUMA_WEIGHTS

PixelBox = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are exclusive."""

_FACE_FRACTION = 1 / 3  # the upper part of a box, which a panel should not cover
_FACE_COST, _BODY_COST, _PANEL_COST = 4.0, 1.0, 8.0  # of covering them
_STAY_BONUS, _SIDE_COST = 0.5, 0.02  # of staying on a side; of each further side in their order
_LINE_LIMITS = ((3, 2), (6, 1))  # (boxes, lines): with more boxes in a frame, a panel has at most so many lines
_BLACK = (0, 0, 0)


def annotate_boxes(
    source: VideoSource,
    out: Path,
    tracks: PersonTracks,
    actions: Sequence[str],
    *,
    min_score: float = 0.0,
    default_frame_rate: float | None = None,
    top_k: int = 3,
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Write an MP4 by `redraw_video`: each box in the colour of its track, with the actions of the nearest key frame.

    Args:
        source: The video.
        out: The MP4.
        actions: All action names.
        top_k: Actions that are shown per person; fewer in frames with many persons.
        min_score: Actions with a lower score are not shown.
        default_frame_rate: Frames per second, if the file does not state it.
        progress: Called with the seconds that are written.

    Raises:
        BrokenVideo: No frame decodes.
        InputError: The MP4 cannot be written; an earlier one is unchanged.
    """

    def painter(height: int, width: int) -> PaintFn:
        return _BoxPainter(height, width, tracks, actions, top_k, min_score).paint

    redraw_video(source, out, painter, default_frame_rate=default_frame_rate, progress=progress)


def get_track_color(track_id: int) -> tuple[int, int, int]:
    """Return a track's colour; the colours repeat."""
    return ImageColor.getrgb(CLASS_COLORS[(track_id - 1) % len(CLASS_COLORS)])[:3]


class _BoxPainter:
    """Paints the frames of a video in order.

    All panels of a track have the same width, and a panel stays on its side of the box until another side is clearly
    better, so that nothing jumps.
    """

    def __init__(
        self, height: int, width: int, tracks: PersonTracks, actions: Sequence[str], top_k: int, min_score: float
    ):
        self._height, self._width = height, width
        self._tracks, self._actions, self._top_k, self._min_score = tracks, actions, top_k, min_score
        size = max(13, round(min(height, width) / 40))
        self._font_size, self._line_height, self._padding = size, round(1.9 * size), round(0.45 * size)
        self._line_width = max(3, round(min(height, width) / 180))
        self._score_width = self._measure_text("100 %")
        max_width = max(0, min(13 * size, width // 3 - self._score_width))
        measure = cache(lambda action: self._measure_text(truncate_end(actions[action], max_width, size, bold=True)))
        self._name_widths: dict[int, int] = {}
        for keyframe, track_ids in enumerate(tracks.track_ids):
            for index, track in enumerate(track_ids.tolist()):
                for action in self._select_actions(keyframe, index):
                    self._name_widths[track] = max(measure(action), self._name_widths.get(track, 0))
        self._id_width = self._measure_text("88") + self._padding
        self._panel_sides: dict[int, int] = {}
        self._cached_panel = lru_cache(maxsize=64)(self._render_panel)

    def paint(self, image: ImageArray, seconds: float) -> None:
        track_boxes = self._tracks.interpolate_boxes(seconds)
        boxes = [self._to_pixels(each) for each in track_boxes]
        for each, box in zip(track_boxes, boxes, strict=True):
            _draw_outline(image, box, self._line_width, get_track_color(each.track_id))
        lines = min([self._top_k, *(limit for count, limit in _LINE_LIMITS if len(boxes) > count)])
        panels: list[PixelBox] = []
        for each, box in zip(track_boxes, boxes, strict=True):
            panel = self._cached_panel(each.track_id, each.keyframe_index, each.box_index, lines)
            left, top, right, bottom = self._place_panel(each.track_id, panel, box, boxes, panels)
            panels.append((left, top, right, bottom))
            panel.composite(image[top:bottom, left:right])

    def _to_pixels(self, track_box: TrackBox) -> PixelBox:
        sides = track_box.box.clip(0, 1) * [self._width, self._height, self._width, self._height]
        x1, y1, x2, y2 = sides.round().astype(int).tolist()
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)

    def _place_panel(
        self, track: int, panel: Overlay, box: PixelBox, boxes: Sequence[PixelBox], panels: Sequence[PixelBox]
    ) -> PixelBox:
        """Return where a panel covers least: right of its box, left, below, above, or in it at the feet."""
        height, width = panel.transmittance.shape[:2]
        gap = self._line_width + 1
        x1, y1, x2, y2 = box
        sides = (
            (x2 + gap, y1),
            (x1 - gap - width, y1),
            (x1, y2 + gap),
            (x1, y1 - gap - height),
            (x2 - width, y2 + gap),
            (x2 - width, y1 - gap - height),
            (x2 + gap, y2 - height),
            (x1 - gap - width, y2 - height),
            (x1 + gap, y2 - gap - height),
        )
        candidates: list[tuple[float, int, PixelBox]] = []
        for side, (left, top) in enumerate(sides):
            left, top = max(0, min(left, self._width - width)), max(0, min(top, self._height - height))
            area = left, top, min(left + width, self._width), min(top + height, self._height)
            cost = _FACE_COST * _compute_overlap_area(area, map(_get_face_box, boxes))
            cost += _BODY_COST * _compute_overlap_area(area, boxes) + _PANEL_COST * _compute_overlap_area(area, panels)
            cost = cost / (width * height) + _SIDE_COST * side - _STAY_BONUS * (self._panel_sides.get(track) == side)
            candidates.append((cost, side, area))
        _, self._panel_sides[track], area = min(candidates)
        return area

    def _select_actions(self, keyframe: int, box: int) -> list[int]:
        """Return the actions of a box that are shown, the likeliest first."""
        scores = self._tracks.keyframes[keyframe].action_scores[box]
        best = np.argsort(-scores, kind="stable")[: self._top_k]
        return [int(action) for action in best if scores[action] >= self._min_score]

    def _render_panel(self, track: int, keyframe: int, box: int, lines: int) -> Overlay:
        """Render the track's number, and beside it each action: its name, its score, and below them a bar."""
        actions = self._select_actions(keyframe, box)[:lines]
        name_width = self._name_widths.get(track, 0)
        width = 2 * self._padding + self._id_width
        if actions:
            width += self._padding + name_width + self._font_size // 2 + self._score_width
        panel = Image.new("RGBA", (width, max(1, len(actions)) * self._line_height + self._padding), PANEL_COLOR)
        draw = ImageDraw.Draw(panel)
        color = get_track_color(track)
        edge = self._padding // 2
        draw.rectangle((0, 0, self._id_width + edge, panel.height), fill=(*color, 255))
        text_color = TEXT_COLOR if sum(np.multiply(color, LUMA_WEIGHTS)) < 140 else (*_BLACK, 255)
        center = (self._id_width + edge) / 2, edge + self._line_height / 2
        draw.text(center, str(track), font=load_font(self._font_size, bold=True), fill=text_color, anchor="mm")
        left, right = self._id_width + edge + self._padding, width - self._padding
        bar_color = CLASS_COLORS[(track - 1) % len(CLASS_COLORS)]
        for line, action in enumerate(actions):
            score = float(self._tracks.keyframes[keyframe].action_scores[box, action])
            center_y = edge + line * self._line_height + 0.42 * self._line_height
            bold, text_color = line == 0, DIM_TEXT_COLOR if line else TEXT_COLOR
            name = truncate_end(self._actions[action], name_width, self._font_size, bold=bold)
            font = load_font(self._font_size, bold=bold)
            draw.text((left, center_y), name, font=font, fill=text_color, anchor="lm")
            draw.text((right, center_y), f"{100 * score:.0f} %", font=font, fill=text_color, anchor="rm")
            bar_y = center_y + 0.78 * self._font_size
            draw_bar(draw, left, bar_y, right - left, self._font_size // 3, score, bar_color)
        return Overlay.from_image(panel)

    def _measure_text(self, text: str) -> int:
        return math.ceil(load_font(self._font_size, bold=True).getlength(text))


def _draw_outline(image: ImageArray, box: PixelBox, thickness: int, color: tuple[int, int, int]) -> None:
    """Draw the colour from the box's edge inwards, with a dark line around it, visible on every background."""
    height, width = image.shape[:2]
    for inset, depth, line_color in ((-1, thickness + 2, _BLACK), (0, thickness, color)):
        x1, y1 = max(0, box[0] + inset), max(0, box[1] + inset)
        x2, y2 = min(width, box[2] - inset), min(height, box[3] - inset)
        depth = min(depth, (x2 - x1 + 1) // 2, (y2 - y1 + 1) // 2)
        for rows, columns in (
            (slice(y1, y1 + depth), slice(x1, x2)),
            (slice(y2 - depth, y2), slice(x1, x2)),
            (slice(y1, y2), slice(x1, x1 + depth)),
            (slice(y1, y2), slice(x2 - depth, x2)),
        ):
            image[rows, columns] = line_color


def _get_face_box(box: PixelBox) -> PixelBox:
    return box[0], box[1], box[2], box[1] + round(_FACE_FRACTION * (box[3] - box[1]))


def _compute_overlap_area(panel: PixelBox, others: Iterable[PixelBox]) -> int:
    """Return the pixels of the others below a panel, added up."""
    sides = (
        (min(panel[2], x2) - max(panel[0], x1), min(panel[3], y2) - max(panel[1], y1)) for x1, y1, x2, y2 in others
    )
    return sum(max(0, width) * max(0, height) for width, height in sides)
