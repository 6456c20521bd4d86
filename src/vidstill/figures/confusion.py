"""A confusion matrix as an image, for four classes or a thousand."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from torch import Tensor

from vidstill.utils.text import format_one_line

_MAX_NAMED_CLASSES = 60  # more classes are shown without their names
_MAX_ANNOTATED_CLASSES = 16  # more classes are shown without counts in the cells
_MAX_NAME_LENGTH = 28  # characters
_DPI = 100
_CELL_INCHES, _MATRIX_INCHES = 0.42, 10.0  # the side of a cell with a count; of the matrix of many classes
_MIN_CELL_DOTS = 3  # per class


def draw_confusion_matrix(counts: Int[Tensor, "classes classes"], class_names: Sequence[str]) -> bytes:
    """Return a PNG with one row per class: the share of its videos predicted as each class; grey without videos.

    Args:
        counts: Videos by true class (rows) and predicted class (columns).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # draws without a window; takes half a second to import
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    classes = len(class_names)
    side = (
        max(2.0, classes * _CELL_INCHES)
        if classes <= _MAX_ANNOTATED_CLASSES
        else max(_MATRIX_INCHES, classes * _MIN_CELL_DOTS / _DPI)
    )
    figure = Figure(figsize=(side + 2.5, side + 1.5), dpi=_DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((1.5 / (side + 2.5), 1.0 / (side + 1.5), side / (side + 2.5), side / (side + 1.5)))
    videos = counts.sum(dim=1, keepdim=True)
    shares = np.ma.masked_invalid((counts / videos).numpy())
    axes.set_facecolor("0.9")
    image = axes.imshow(
        shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest"
    )  # makes rare mistakes visible
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if classes <= _MAX_NAMED_CLASSES:
        labels = [format_one_line(name, _MAX_NAME_LENGTH) for name in class_names]
        size = 9 if classes <= _MAX_ANNOTATED_CLASSES else 7
        axes.set_xticks(range(classes), labels, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(classes), labels, fontsize=size, parse_math=False)
    else:
        axes.set_title(f"{classes} classes by their numbers, from 0", fontsize=10)
    if classes <= _MAX_ANNOTATED_CLASSES:
        for row, column in np.ndindex(classes, classes):
            if count := int(counts[row, column]):
                color = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, f"{count}", ha="center", va="center", color=color, fontsize=8)
    bar = figure.add_axes(((1.7 + side) / (side + 2.5), 1.0 / (side + 1.5), 0.15 / (side + 2.5), side / (side + 1.5)))
    figure.colorbar(image, cax=bar, label="share of the class's videos")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as a box
        figure.savefig(file, format="png", bbox_inches="tight", metadata={"Software": None})
    return file.getvalue()
