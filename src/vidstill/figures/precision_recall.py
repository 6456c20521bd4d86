"""Precision over recall of each action, as a picture: small panels, the best action first."""

import io
import math
import warnings
from typing import Any

import numpy as np

from vidstill.tasks.metrics.ava_map import ActionResult, FrameMAP
from vidstill.utils.text import format_one_line

_COLUMNS = 8
_MAX_PANELS = 64  # panels; of more actions the first and last ones by precision
_MAX_NAME_LENGTH = 26  # letters of a name
_DPI = 100  # per inch
_PANEL_INCHES, _PANEL_PITCH_X, _PANEL_PITCH_Y = 1.5, 1.75, 2.0  # inches of a panel, and from one to the next
_MARGIN_LEFT, _MARGIN_TOP, _MARGIN_BOTTOM = 0.6, 0.35, 0.6  # inches around them
_MAX_POINTS = 400  # of a curve; more cannot be seen


def draw_precision_recall(frame_map: FrameMAP) -> bytes:
    """A panel for each action that is annotated: precision at every hit, pale, and the best one from there on, whose
    area is the average precision.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no window; and half a second to import
    from matplotlib.figure import Figure

    shown, left = _select_actions(frame_map)
    columns = min(_COLUMNS, max(2, math.ceil(math.sqrt(len(shown)))))
    rows = max(1, math.ceil(len(shown) / columns))
    wide, high = columns * _PANEL_PITCH_X + _MARGIN_LEFT, rows * _PANEL_PITCH_Y + _MARGIN_TOP + _MARGIN_BOTTOM
    figure = Figure(figsize=(wide, high), dpi=_DPI)
    FigureCanvasAgg(figure)
    mean = "no action is annotated" if frame_map.mean is None else f"mAP {100 * frame_map.mean:.2f} %"
    more = f"; {left} actions between these are not shown" if left else ""
    figure.text(
        _MARGIN_LEFT / wide, 1 - 0.15 / high, f"{mean} at an overlap of {frame_map.iou:g}{more}", va="top", fontsize=11
    )
    figure.text(_MARGIN_LEFT / wide, 0.1 / high, "recall: annotated boxes that are hit", fontsize=9)
    figure.text(0.1 / wide, _MARGIN_BOTTOM / high, "precision: detections that hit", rotation=90, fontsize=9)
    for place, each in enumerate(shown):
        row, column = divmod(place, columns)
        left_edge, bottom = _MARGIN_LEFT + column * _PANEL_PITCH_X, _MARGIN_BOTTOM + (rows - 1 - row) * _PANEL_PITCH_Y
        axes = figure.add_axes((left_edge / wide, bottom / high, _PANEL_INCHES / wide, _PANEL_INCHES / high))
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_xticklabels(("0", ".5", "1") if place + columns >= len(shown) else ())
        axes.set_yticklabels(("0", ".5", "1") if column == 0 else ())
        axes.tick_params(labelsize=7, length=2)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        _draw_curve(axes, each)
        share = f"{100 * (each.average_precision or 0):.1f} % of {each.num_ground_truth:,}"
        axes.text(0, 1.13, _short(each.name), fontsize=7, transform=axes.transAxes, parse_math=False)
        axes.text(0, 1.03, share, fontsize=7, color="0.35", transform=axes.transAxes)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # it draws a box
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _select_actions(found: FrameMAP) -> tuple[list[ActionResult], int]:
    """The actions by average precision, the best one first; and how many are left out in the middle."""
    there = [each for each in found.actions if each.average_precision is not None]
    there.sort(key=lambda each: -(each.average_precision or 0))
    left = max(0, len(there) - _MAX_PANELS)
    return (there[: _MAX_PANELS // 2] + there[len(there) - _MAX_PANELS // 2 :] if left else there), left


def _draw_curve(axes: Any, each: ActionResult) -> None:
    """Steps: a hit's precision holds for the recall that it adds."""
    curve, hits = each.curve, len(each.curve.recall)
    if not hits:
        return
    places = np.unique(np.linspace(0, hits - 1, _MAX_POINTS).astype(int))
    recall = np.append(0, curve.recall[places])
    every, best = (np.append(one[places[0]], one[places]) for one in (curve.precision, curve.envelope))
    axes.step(recall, every, where="pre", color="0.75", linewidth=0.7)
    axes.step(recall, best, where="pre", color="tab:blue", linewidth=1.2)
    axes.fill_between(recall, best, step="pre", color="tab:blue", alpha=0.15, linewidth=0)
    axes.plot([recall[-1]] * 2, [best[-1], 0], color="tab:blue", linewidth=1.2)  # what is missed has no precision


def _short(name: str) -> str:
    line = format_one_line(name)
    return line if len(line) <= _MAX_NAME_LENGTH else f"{line[: _MAX_NAME_LENGTH - 1]}…"
