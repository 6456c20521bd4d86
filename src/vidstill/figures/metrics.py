"""Images of evaluations: the confusion matrix of a classifier, precision over recall of an action detector."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from vidstill.figures.charts import DPI, open_figure, save_png
from vidstill.tasks.metrics.ava_map import ActionResult, FrameMAP
from vidstill.utils.text import format_one_line

_MAX_NAME_LENGTH = 26  # characters

# ---- Classification -------------------------------------------------------------------------------------------------


_MAX_NAMED_CLASSES = 60  # more classes are shown without their names
_MAX_ANNOTATED_CLASSES = 16  # more classes are shown without counts in the cells
_CELL_INCHES, _MATRIX_INCHES = 0.42, 10.0  # the side of a cell with a count; of the matrix of many classes
_MIN_CELL_DOTS = 3  # per class


def draw_confusion_matrix(counts: Int[Tensor, "classes classes"], class_names: Sequence[str]) -> bytes:
    """Return a PNG with one row per class: the share of its videos predicted as each class; grey without videos.

    Args:
        counts: Videos by true class (rows) and predicted class (columns).
    """
    from matplotlib.colors import PowerNorm

    classes = len(class_names)
    is_annotated = classes <= _MAX_ANNOTATED_CLASSES
    side = max(2.0, classes * _CELL_INCHES) if is_annotated else max(_MATRIX_INCHES, classes * _MIN_CELL_DOTS / DPI)
    shares = np.ma.masked_invalid((counts / counts.sum(dim=1, keepdim=True)).numpy())
    with open_figure(side, side) as figure:
        axes = figure.add_axes((0, 0, 1, 1), facecolor="0.9", xlabel="predicted class", ylabel="true class")
        norm = PowerNorm(0.5, 0, 1)  # makes rare mistakes visible
        image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
        if classes <= _MAX_NAMED_CLASSES:
            labels, size = [format_one_line(name, _MAX_NAME_LENGTH) for name in class_names], 9 if is_annotated else 7
            axes.set_xticks(range(classes), labels, rotation=90, fontsize=size)
            axes.set_yticks(range(classes), labels, fontsize=size)
        else:
            axes.set_title(f"{classes} classes by their numbers, from 0", fontsize=10)
        for row, column in counts.nonzero().tolist() if is_annotated else ():
            text, color = str(int(counts[row, column])), "white" if shares[row, column] > 0.3 else "black"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
        bar = figure.add_axes((1 + 0.2 / side, 0, 0.15 / side, 1))
        figure.colorbar(image, cax=bar, label="share of the class's videos")
        return save_png(figure, crop=True)


# ---- Detection ------------------------------------------------------------------------------------------------------


_PANEL_COLUMNS = 8
_MAX_PANELS = 64  # of more actions, the best and the worst by average precision
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
    columns = min(_PANEL_COLUMNS, max(2, math.ceil(math.sqrt(len(actions)))))
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
