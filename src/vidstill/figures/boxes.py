"""A video again, with persons' boxes drawn over it, and beside each what that person does."""

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

PixelBox = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two outside."""

_FACE_FRACTION = 1 / 3  # of a box from its top: what a panel should not cover
_FACE_COST, _BODY_COST, _PANEL_COST = 4.0, 1.0, 8.0  # how bad it is to cover them
_STAY_BONUS, _SIDE_COST = 0.5, 0.02  # how good it is to stay on a side, how bad to take the next one in order
_LINE_LIMITS = ((3, 2), (6, 1))  # with more boxes than the one in a picture, a panel has as many lines as the other
_BLACK = (0, 0, 0)


def annotate_boxes(
    source: VideoSource,
    out: Path,
    tracks: PersonTracks,
    actions: Sequence[str],
    *,
    top_k: int = 3,
    min_score: float = 0.0,
    default_frame_rate: float | None = None,
    progress: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Writes an MP4 by `redraw_video`: each person's box in the colour of its track, and beside it, with the track's number,
    the actions of the moment that is nearest.

    Args:
        top_k: actions that are shown of a person at most; of many persons, fewer.
        min_score: actions with a lower score are not shown.
        default_frame_rate: frames per second, where the file states none.
        progress: is told how many seconds there are so far.

    Raises:
        BrokenVideo: not one frame decodes.
        OSError: it cannot be written; what was there still is.
    """

    def painter(height: int, width: int) -> PaintFn:
        return _BoxPainter(height, width, tracks, actions, top_k, min_score).paint

    redraw_video(source, out, painter, default_frame_rate=default_frame_rate, progress=progress)


def get_track_color(track_id: int) -> tuple[int, int, int]:
    """The colours come again after as many tracks as there are."""
    return ImageColor.getrgb(CLASS_COLORS[(track_id - 1) % len(CLASS_COLORS)])[:3]


class _BoxPainter:
    """Paints the frames of a video in their order.

    All panels of a track are equally wide, and a panel stays on its side of a box until another one is clearly better,
    so that nothing jumps.
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
        room = max(0, min(13 * size, width // 3 - self._score_width))
        long = cache(lambda action: self._measure_text(truncate_end(actions[action], room, size, bold=True)))
        self._name_widths: dict[int, int] = {}
        for moment, numbers in enumerate(tracks.track_ids):
            for place, track in enumerate(numbers.tolist()):
                for action in self._select_actions(moment, place):
                    self._name_widths[track] = max(long(action), self._name_widths.get(track, 0))
        self._id_width = self._measure_text("88") + self._padding
        self._panel_sides: dict[int, int] = {}
        self._cached_panel = lru_cache(maxsize=64)(self._render_panel)

    def paint(self, image: ImageArray, seconds: float) -> None:
        shown = self._tracks.interpolate_boxes(seconds)
        boxes = [self._to_pixels(each) for each in shown]
        for each, box in zip(shown, boxes, strict=True):
            _draw_outline(image, box, self._line_width, get_track_color(each.track_id))
        lines = min([self._top_k, *(most for count, most in _LINE_LIMITS if len(shown) > count)])
        placed: list[PixelBox] = []
        for each, box in zip(shown, boxes, strict=True):
            panel = self._cached_panel(each.track_id, each.keyframe_index, each.box_index, lines)
            where = self._place_panel(each.track_id, panel, box, boxes, placed)
            placed.append(where)
            panel.composite(image[where[1] : where[3], where[0] : where[2]])

    def _to_pixels(self, shown: TrackBox) -> PixelBox:
        sides = shown.box.clip(0, 1) * [self._width, self._height, self._width, self._height]
        x1, y1, x2, y2 = sides.round().astype(int).tolist()
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)

    def _place_panel(
        self, track: int, panel: Overlay, box: PixelBox, boxes: Sequence[PixelBox], placed: Sequence[PixelBox]
    ) -> PixelBox:
        """Where a panel covers least: to the right of its box, to the left, below, above, or in it at the feet."""
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
        found: list[tuple[float, int, PixelBox]] = []
        for side, (left, top) in enumerate(sides):
            left, top = max(0, min(left, self._width - width)), max(0, min(top, self._height - height))
            here = left, top, min(left + width, self._width), min(top + height, self._height)
            bad = _FACE_COST * _compute_overlap_area(
                here, map(_get_face_box, boxes)
            ) + _BODY_COST * _compute_overlap_area(here, boxes)
            bad = (bad + _PANEL_COST * _compute_overlap_area(here, placed)) / (width * height) + _SIDE_COST * side
            found.append((bad - _STAY_BONUS * (self._panel_sides.get(track) == side), side, here))
        _, self._panel_sides[track], where = min(found)
        return where

    def _select_actions(self, moment: int, place: int) -> list[int]:
        """The actions that are shown of a box, the likeliest first."""
        scores = self._tracks.keyframes[moment].action_scores[place]
        best = np.argsort(-scores, kind="stable")[: self._top_k]
        return [int(action) for action in best if scores[action] >= self._min_score]

    def _render_panel(self, track: int, moment: int, place: int, lines: int) -> Overlay:
        """The track's number, and beside it a line for each action: its name, its score, and below them a bar."""
        told = self._select_actions(moment, place)[:lines]
        name_room = self._name_widths.get(track, 0)
        width = (
            2 * self._padding
            + self._id_width
            + bool(told) * (self._padding + name_room + self._font_size // 2 + self._score_width)
        )
        panel = Image.new("RGBA", (width, max(1, len(told)) * self._line_height + self._padding), PANEL_COLOR)
        draw = ImageDraw.Draw(panel)
        colour = get_track_color(track)
        edge = self._padding // 2
        draw.rectangle((0, 0, self._id_width + edge, panel.height), fill=(*colour, 255))
        ink = TEXT_COLOR if sum(np.multiply(colour, (0.299, 0.587, 0.114))) < 140 else (*_BLACK, 255)
        middle = (self._id_width + edge) / 2, edge + self._line_height / 2
        draw.text(middle, str(track), font=load_font(self._font_size, bold=True), fill=ink, anchor="mm")
        left, right = self._id_width + edge + self._padding, width - self._padding
        for line, action in enumerate(told):
            share = float(self._tracks.keyframes[moment].action_scores[place, action])
            middle_of_line = edge + line * self._line_height + 0.42 * self._line_height
            bold, ink = line == 0, DIM_TEXT_COLOR if line else TEXT_COLOR
            name = truncate_end(self._actions[action], name_room, self._font_size, bold=bold)
            letters = load_font(self._font_size, bold=bold)
            draw.text((left, middle_of_line), name, font=letters, fill=ink, anchor="lm")
            draw.text((right, middle_of_line), f"{100 * share:.0f} %", font=letters, fill=ink, anchor="rm")
            below = middle_of_line + 0.78 * self._font_size
            draw_bar(
                draw,
                left,
                below,
                right - left,
                self._font_size // 3,
                share,
                CLASS_COLORS[(track - 1) % len(CLASS_COLORS)],
            )
        return Overlay.from_image(panel)

    def _measure_text(self, text: str) -> int:
        return math.ceil(load_font(self._font_size, bold=True).getlength(text))


def _draw_outline(image: ImageArray, box: PixelBox, thick: int, colour: tuple[int, int, int]) -> None:
    """The colour from the box's edge inwards, and around it a dark line, so that it is seen on every ground."""
    height, width = image.shape[:2]
    for inwards, depth, ink in ((-1, thick + 2, _BLACK), (0, thick, colour)):
        x1, y1 = max(0, box[0] + inwards), max(0, box[1] + inwards)
        x2, y2 = min(width, box[2] - inwards), min(height, box[3] - inwards)
        depth = min(depth, (x2 - x1 + 1) // 2, (y2 - y1 + 1) // 2)
        for rows, columns in (
            (slice(y1, y1 + depth), slice(x1, x2)),
            (slice(y2 - depth, y2), slice(x1, x2)),
            (slice(y1, y2), slice(x1, x1 + depth)),
            (slice(y1, y2), slice(x2 - depth, x2)),
        ):
            image[rows, columns] = ink


def _get_face_box(box: PixelBox) -> PixelBox:
    return box[0], box[1], box[2], box[1] + round(_FACE_FRACTION * (box[3] - box[1]))


def _compute_overlap_area(panel: PixelBox, others: Iterable[PixelBox]) -> int:
    """The pixels of others below a panel, each one's counted."""
    sides = (
        (min(panel[2], x2) - max(panel[0], x1), min(panel[3], y2) - max(panel[1], y1)) for x1, y1, x2, y2 in others
    )
    return sum(max(0, width) * max(0, height) for width, height in sides)
