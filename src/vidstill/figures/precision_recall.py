"""Precision-recall curves of all actions in one image: small panels, the best action first."""

import io
import math
import warnings
from typing import Any

import numpy as np

from vidstill.tasks.metrics.ava_map import ActionResult, FrameMAP
from vidstill.utils.text import format_one_line

_COLUMNS = 8
_MAX_PANELS = 64  # of more actions, the best and the worst by average precision
_MAX_NAME_LENGTH = 26  # characters
_DPI = 100
_PANEL_INCHES, _PANEL_PITCH_X, _PANEL_PITCH_Y = 1.5, 1.75, 2.0  # a panel's side, and the distance between panels
_MARGIN_LEFT, _MARGIN_TOP, _MARGIN_BOTTOM = 0.6, 0.35, 0.6  # inches
_MAX_POINTS = 400  # per curve


def draw_precision_recall(frame_map: FrameMAP) -> bytes:
    """Return a PNG with one panel per annotated action.

    Grey: precision at every true positive. Blue: its maximum at that recall or higher, whose area is the average
    precision.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # draws without a window; takes half a second to import
    from matplotlib.figure import Figure

    actions, num_omitted = _select_actions(frame_map)
    columns = min(_COLUMNS, max(2, math.ceil(math.sqrt(len(actions)))))
    rows = max(1, math.ceil(len(actions) / columns))
    wide, high = columns * _PANEL_PITCH_X + _MARGIN_LEFT, rows * _PANEL_PITCH_Y + _MARGIN_TOP + _MARGIN_BOTTOM
    figure = Figure(figsize=(wide, high), dpi=_DPI)
    FigureCanvasAgg(figure)
    mean = "no action is annotated" if frame_map.mean is None else f"mAP {100 * frame_map.mean:.2f} %"
    omitted = f"; {num_omitted} actions between these are omitted" if num_omitted else ""
    figure.text(
        _MARGIN_LEFT / wide, 1 - 0.15 / high, f"{mean} at IoU {frame_map.iou:g}{omitted}", va="top", fontsize=11
    )
    figure.text(_MARGIN_LEFT / wide, 0.1 / high, "recall: share of the annotated boxes that are detected", fontsize=9)
    figure.text(
        0.1 / wide,
        _MARGIN_BOTTOM / high,
        "precision: share of the detections that are correct",
        rotation=90,
        fontsize=9,
    )
    for position, action in enumerate(actions):
        row, column = divmod(position, columns)
        left_edge, bottom = _MARGIN_LEFT + column * _PANEL_PITCH_X, _MARGIN_BOTTOM + (rows - 1 - row) * _PANEL_PITCH_Y
        axes = figure.add_axes((left_edge / wide, bottom / high, _PANEL_INCHES / wide, _PANEL_INCHES / high))
        axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_xticklabels(("0", ".5", "1") if position + columns >= len(actions) else ())
        axes.set_yticklabels(("0", ".5", "1") if column == 0 else ())
        axes.tick_params(labelsize=7, length=2)
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        _draw_curve(axes, action)
        share = f"{100 * (action.average_precision or 0):.1f} % of {action.num_ground_truth:,}"
        axes.text(
            0,
            1.13,
            format_one_line(action.name, _MAX_NAME_LENGTH),
            fontsize=7,
            transform=axes.transAxes,
            parse_math=False,
        )
        axes.text(0, 1.03, share, fontsize=7, color="0.35", transform=axes.transAxes)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _select_actions(frame_map: FrameMAP) -> tuple[list[ActionResult], int]:
    """Return the annotated actions, best first, and how many between the best and the worst are omitted."""
    actions = [action for action in frame_map.actions if action.average_precision is not None]
    actions.sort(key=lambda action: -(action.average_precision or 0))
    num_omitted = max(0, len(actions) - _MAX_PANELS)
    half = _MAX_PANELS // 2
    return (actions[:half] + actions[-half:] if num_omitted else actions), num_omitted


def _draw_curve(axes: Any, action: ActionResult) -> None:
    """Draw steps: a true positive's precision holds for the recall that it adds."""
    curve, num_points = action.curve, len(action.curve.recall)
    if not num_points:
        return
    indices = np.unique(np.linspace(0, num_points - 1, _MAX_POINTS).astype(int))
    recall = np.append(0, curve.recall[indices])
    precision, envelope = (np.append(y[indices[0]], y[indices]) for y in (curve.precision, curve.envelope))
    axes.step(recall, precision, where="pre", color="0.75", linewidth=0.7)
    axes.step(recall, envelope, where="pre", color="tab:blue", linewidth=1.2)
    axes.fill_between(recall, envelope, step="pre", color="tab:blue", alpha=0.15, linewidth=0)
    axes.plot([recall[-1]] * 2, [envelope[-1], 0], color="tab:blue", linewidth=1.2)  # missed boxes have no precision
