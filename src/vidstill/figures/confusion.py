"""A confusion matrix as an image, for four classes or a thousand."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from vidstill.figures.charts import DPI, open_figure, save_png
from vidstill.utils.text import format_one_line

_MAX_NAMED_CLASSES = 60  # more classes are shown without their names
_MAX_ANNOTATED_CLASSES = 16  # more classes are shown without counts in the cells
_MAX_NAME_LENGTH = 28  # characters
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
