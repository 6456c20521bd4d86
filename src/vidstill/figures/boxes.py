"""Annotated videos of detections: the persons' boxes, and beside each what the person does."""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Int
from PIL import Image, ImageDraw

from vidstill.figures.annotate import PanelRenderer
from vidstill.figures.timeline import CLASS_COLORS
from vidstill.figures.tracks import PersonTracks

_PixelBoxes = Int[np.ndarray, "_ 4"]  # left, top, right and bottom in pixels; right and bottom are exclusive

_FACE_FRACTION = 1 / 3  # the upper part of a box, which a panel should not cover
_FACE_COST, _BODY_COST, _PANEL_COST = 4.0, 1.0, 8.0  # of covering them
_STAY_BONUS, _SIDE_COST = 0.5, 0.02  # of staying on a side; of each further side in their order
_LINE_LIMITS = ((3, 2), (6, 1))  # (boxes, lines): with more boxes in a frame, a panel has at most so many lines


def get_track_color(track_id: int) -> str:
    """Return a track's colour; the colours repeat."""
    return CLASS_COLORS[(track_id - 1) % len(CLASS_COLORS)]


class BoxPainter:
    """Paints each box in the colour of its track, with the actions of the nearest key frame, over frames in order.

    All panels of a track have the same width, and a panel stays on its side of the box until another side is clearly
    better, so that nothing jumps.

    Args:
        actions: All action names.
        top_k: Actions that are shown per person; fewer in frames with many persons.
        min_score: Actions with a lower score are not shown.
        height, width: Of the frames.
    """

    def __init__(
        self, tracks: PersonTracks, actions: Sequence[str], top_k: int, min_score: float, height: int, width: int
    ):
        self._tracks, self._actions, self._top_k, self._min_score = tracks, actions, top_k, min_score
        self._size, short_side = np.array([width, height]), min(height, width)
        font_size = max(13, round(short_side / 40))
        self._line_width = max(3, round(short_side / 180))
        self._panels = PanelRenderer(font_size, max(0, min(13 * font_size, width // 3 - 4 * font_size)))
        names: dict[int, set[str]] = defaultdict(set)
        for keyframe, track_ids in enumerate(tracks.track_ids):
            for index, track in enumerate(track_ids.tolist()):
                names[track] |= {actions[action] for action, _ in self._select_actions(keyframe, index)}
        self._name_widths = {track: self._panels.measure_names(own) for track, own in names.items()}
        self._panel_sides: dict[int, int] = {}
        self._cached_panel = lru_cache(maxsize=64)(self._render_panel)

    def __call__(self, image: Image.Image, seconds: float) -> None:
        track_boxes = self._tracks.interpolate_boxes(seconds)
        sides = np.array([each.box for each in track_boxes]).reshape(-1, 4).clip(0, 1) * np.tile(self._size, 2)
        boxes = sides.round().astype(int)
        boxes[:, 2:] = boxes[:, 2:].clip(boxes[:, :2] + 1)
        draw = ImageDraw.Draw(image)
        for each, (left, top, right, bottom) in zip(track_boxes, boxes.tolist(), strict=True):
            draw.rectangle((left - 1, top - 1, right, bottom), outline="black", width=self._line_width + 2)
            color = get_track_color(each.track_id)
            draw.rectangle((left, top, right - 1, bottom - 1), outline=color, width=self._line_width)
        lines = min([self._top_k, *(limit for count, limit in _LINE_LIMITS if len(boxes) > count)])
        areas = np.empty((0, 4), int)
        for each, box in zip(track_boxes, boxes, strict=True):
            panel = self._cached_panel(each.track_id, each.keyframe_index, each.box_index, lines)
            area = self._place_panel(each.track_id, panel, box, boxes, areas)
            areas = np.concatenate([areas, area[None]])
            image.paste(panel, (int(area[0]), int(area[1])), panel)

    def _place_panel(
        self, track: int, panel: Image.Image, box: Int[np.ndarray, "4"], boxes: _PixelBoxes, panels: _PixelBoxes
    ) -> Int[np.ndarray, "4"]:
        """Return where a panel covers least: right of its box, left, below, above, or in it at the feet."""
        (width, height), (x1, y1, x2, y2), gap = panel.size, box, self._line_width + 1
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
        corners = np.clip(sides, 0, np.maximum(self._size - panel.size, 0))
        areas = np.concatenate([corners, np.minimum(corners + panel.size, self._size)], axis=1)
        faces = boxes.copy()
        faces[:, 3] = faces[:, 1] + np.round(_FACE_FRACTION * (boxes[:, 3] - boxes[:, 1]))
        costs = _SIDE_COST * np.arange(len(sides))
        for cost, others in ((_FACE_COST, faces), (_BODY_COST, boxes), (_PANEL_COST, panels)):
            overlap = np.minimum(areas[:, None, 2:], others[:, 2:]) - np.maximum(areas[:, None, :2], others[:, :2])
            costs += cost * overlap.clip(0).prod(axis=2).sum(axis=1) / (width * height)
        if track in self._panel_sides:
            costs[self._panel_sides[track]] -= _STAY_BONUS
        side = self._panel_sides[track] = int(costs.argmin())
        return areas[side]

    def _select_actions(self, keyframe: int, box: int) -> list[tuple[int, float]]:
        """Return the actions of a box that are shown and their scores, the likeliest first."""
        scores = self._tracks.keyframes[keyframe].action_scores[box]
        best = np.argsort(-scores, kind="stable")[: self._top_k].tolist()
        return [(action, float(scores[action])) for action in best if scores[action] >= self._min_score]

    def _render_panel(self, track: int, keyframe: int, box: int, num_lines: int) -> Image.Image:
        color, actions = get_track_color(track), self._select_actions(keyframe, box)[:num_lines]
        lines = [(self._actions[action], score, color) for action, score in actions]
        return self._panels.render(lines, self._name_widths[track], (str(track), color))
