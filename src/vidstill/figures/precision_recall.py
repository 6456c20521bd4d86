"""Precision-recall curves of all actions in one image: small panels, the best action first."""

import math
from typing import Any

import numpy as np

from vidstill.figures.charts import open_figure, save_png
from vidstill.tasks.metrics.ava_map import ActionResult, FrameMAP
from vidstill.utils.text import format_one_line

_COLUMNS = 8
_MAX_PANELS = 64  # of more actions, the best and the worst by average precision
_MAX_NAME_LENGTH = 26  # characters
_PANEL_WIDTH, _PANEL_HEIGHT = 1.75, 2.0  # inches, with the gap beside it and the text above it
_LEFT, _BOTTOM, _TOP = 0.6, 0.6, 0.7  # inches, margins
_MAX_POINTS = 400  # per curve


def draw_precision_recall(frame_map: FrameMAP) -> bytes:
    """Return a PNG with one panel per annotated action.

    Grey: precision at every true positive. Blue: its maximum at that recall or higher, whose area is the average
    precision.
    """
    actions = [action for action in frame_map.actions if action.average_precision is not None]
    actions.sort(key=lambda action: -(action.average_precision or 0))
    omitted = slice(_MAX_PANELS // 2, max(_MAX_PANELS // 2, len(actions) - _MAX_PANELS // 2))
    title = "no action is annotated" if frame_map.mean is None else f"mAP {100 * frame_map.mean:.2f} %"
    title += f" at IoU {frame_map.iou:g}"
    if len(actions) > _MAX_PANELS:
        title += f"; {len(actions[omitted])} actions between these are omitted"
        del actions[omitted]
    columns = min(_COLUMNS, max(2, math.ceil(math.sqrt(len(actions)))))
    rows = max(1, math.ceil(len(actions) / columns))
    width, height = _LEFT + columns * _PANEL_WIDTH, rows * _PANEL_HEIGHT + _BOTTOM + _TOP - 0.35
    margins = {"left": _LEFT / width, "right": 0.99, "bottom": _BOTTOM / height, "top": 1 - _TOP / height}
    with open_figure(width, height) as figure:
        panels = figure.subplots(rows, columns, squeeze=False, gridspec_kw={**margins, "wspace": 0.17, "hspace": 0.35})
        figure.suptitle(title, x=margins["left"], ha="left", fontsize=11)
        figure.supxlabel("recall: share of the annotated boxes that are detected", fontsize=9)
        figure.supylabel("precision: share of the detections that are correct", fontsize=9)
        for position, axes in enumerate(panels.flat):
            if position >= len(actions):
                axes.remove()
                continue
            action = actions[position]
            axes.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            axes.tick_params(labelsize=7, length=2)
            axes.tick_params(labelbottom=position + columns >= len(actions), labelleft=position % columns == 0)
            axes.grid(color="0.92", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            _draw_curve(axes, action)
            name = format_one_line(action.name, _MAX_NAME_LENGTH)
            share = f"{100 * (action.average_precision or 0):.1f} % of {action.num_ground_truth:,}"
            axes.text(0, 1.13, name, fontsize=7, transform=axes.transAxes)
            axes.text(0, 1.03, share, fontsize=7, color="0.35", transform=axes.transAxes)
        return save_png(figure)


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
